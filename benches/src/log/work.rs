//! [`Work`], and the trait of a contender.

use std::path::{Path, PathBuf};

use super::folder::Folder;
use crate::{Round, is_trial};

/// One turn of a contender at a work.
pub type Turn = Box<dyn FnMut() -> Round>;

/// A work for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Durable appends, one after the other.
    Alone,
    /// Durable appends by this many async tasks on two threads of tokio's.
    Tasks(usize),
    /// Durable appends by this many threads of the system's.
    Threads(usize),
    /// A million appends to a new log, one sync at the end.
    Bulk,
    /// A million records read, every checksum checked.
    Replay,
    /// The same, the hashes of the chain checked as well, on one thread.
    Verify,
    /// The same, on all processors.
    VerifyAbreast,
    /// Opened for writing at a million records, after an orderly end.
    ReopenClosed,
    /// Opened for writing at a million records, after the process was killed.
    ReopenKilled,
    /// The last hundred of a million records.
    Tail,
}

impl Work {
    /// Every work, in the table's order.
    pub const ALL: [Self; 11] = [
        Self::Alone,
        Self::Tasks(64),
        Self::Threads(64),
        Self::Tasks(512),
        Self::Bulk,
        Self::Replay,
        Self::Verify,
        Self::VerifyAbreast,
        Self::ReopenClosed,
        Self::ReopenKilled,
        Self::Tail,
    ];

    /// The name in the table.
    pub fn title(self) -> String {
        match self {
            Self::Alone => "durable, 1 writer".into(),
            Self::Tasks(tasks) => format!("durable, {tasks} tasks"),
            Self::Threads(threads) => format!("durable, {threads} threads"),
            Self::Bulk => "bulk of 1 M, one sync".into(),
            Self::Replay => "replay of 1 M".into(),
            Self::Verify => "verify 1 M, 1 thread".into(),
            Self::VerifyAbreast => "verify 1 M, all cores".into(),
            Self::ReopenClosed => "reopen 1 M, closed".into(),
            Self::ReopenKilled => "reopen 1 M, killed".into(),
            Self::Tail => "tail(100) of 1 M".into(),
        }
    }

    /// Turns of each contender; fewer if a turn is long.
    pub fn turns(self) -> usize {
        match self {
            Self::Bulk => 7,
            Self::ReopenClosed | Self::ReopenKilled => 11,
            _ => 21,
        }
    }

    /// `true` if the figure is the time of one unit, instead of units per second.
    pub fn is_a_time(self) -> bool {
        matches!(self, Self::ReopenClosed | Self::ReopenKilled | Self::Tail)
    }
}

/// A million, or fewer in a trial.
pub fn million() -> usize {
    if is_trial() { 5_000 } else { 1_000_000 }
}

/// A contender: a log that can do some of the works.
pub trait Peer {
    /// The name in the table.
    fn name(&self) -> &'static str;

    /// A note on its figures; may be empty.
    fn note(&self) -> &'static str {
        ""
    }

    /// A turn of this work; `None` if the contender cannot do it.
    fn turn(&self, work: Work, place: &Place<'_>) -> Option<Turn>;

    /// The role of the process that is killed: opens the log in this folder for writing, appends, and returns a value that keeps
    /// the log open.
    fn left_open(&self, dir: &Path) -> Box<dyn std::any::Any>;

    /// Replays the log in this folder, while its memory is measured.
    fn replay(&self, dir: &Path);
}

/// Folders for a contender's files.
#[derive(Debug)]
pub struct Place<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: &'static str,
}

impl Place<'_> {
    /// A new path below an existing folder.
    pub fn new_dir(&self) -> PathBuf {
        self.folder.new_dir()
    }

    /// The folder of the contender's log of a million records; `make` makes the log if no work before did.
    pub fn million(&self, make: impl FnOnce(&Path)) -> PathBuf {
        self.named("million", make)
    }

    /// The folder of another log of the contender, made once.
    pub fn named(&self, what: &str, make: impl FnOnce(&Path)) -> PathBuf {
        let dir = self.path(what);
        if !dir.exists() {
            make(&dir);
        }
        dir
    }

    /// The folder of the contender's log of a million records, if it was made.
    pub(super) fn made_million(&self) -> Option<PathBuf> {
        Some(self.path("million")).filter(|dir| dir.exists())
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.path().join(format!("{} {what}", self.name))
    }
}
