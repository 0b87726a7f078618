//! The process that is killed.

use std::{
    env,
    io::Write,
    ops::RangeInclusive,
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use runtide_core::{
    Result,
    wal::{Anchor, Durability, RecordKind, Retention, Seq, Wal},
};

use super::log::{Identity, KIND, Mode};

const DIR: &str = "RUNTIDE_KILL_DIR";
const JOB: &str = "RUNTIDE_KILL_JOB";

/// The task of one process.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) dir: PathBuf,
    pub(crate) incarnation: u32,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
}

impl Job {
    /// The command of a process that runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        let keyed = u8::from(self.mode.key.is_some());
        command.args(["--exact", "kill::the_process_that_is_killed", "--nocapture", "--test-threads=1"]);
        command
            .env(JOB, format!("{} {} {} {keyed}", self.incarnation, self.seed, self.mode.name()))
            .env(DIR, &self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The job of this process, if it was started for one.
    pub(crate) fn given() -> Option<Self> {
        let job = env::var(JOB).ok()?;
        let mut words = job.split(' ');
        let mut word = || words.next().unwrap();
        let (incarnation, seed) = (word().parse().unwrap(), word().parse().unwrap());
        let durability = match word() {
            "every" => Durability::Every(Duration::from_millis(1)),
            "os" => Durability::Os,
            _ => Durability::Commit,
        };
        let key = (word() == "1").then_some([7; 32]);
        Some(Self { dir: PathBuf::from(env::var_os(DIR)?), incarnation, seed, mode: Mode { durability, key } })
    }
}

/// A report of the process. A line is one write, so that none is torn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Opened,
    /// These records are acknowledged; they are the parts of this call.
    Acked {
        first: u64,
        last: u64,
        writer: u32,
        call: u32,
    },
    /// The log is acknowledged up to this anchor.
    Anchor(Anchor),
    /// Records before this one may be dropped.
    Keeps(u64),
}

impl Line {
    fn say(&self) {
        let line = match self {
            Self::Opened => "opened\n".to_owned(),
            Self::Acked { first, last, writer, call } => format!("acked {first} {last} {writer} {call}\n"),
            Self::Anchor(anchor) => format!("anchor {anchor}\n"),
            Self::Keeps(seq) => format!("keeps {seq}\n"),
        };
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        fn next<T: FromStr>(words: &mut std::str::Split<'_, char>) -> Option<T> {
            words.next()?.parse().ok()
        }
        let mut words = line.strip_suffix('\n')?.split(' ');
        let words = &mut words;
        match words.next()? {
            "opened" => Some(Self::Opened),
            "acked" => {
                Some(Self::Acked { first: next(words)?, last: next(words)?, writer: next(words)?, call: next(words)? })
            }
            "anchor" => Some(Self::Anchor(next(words)?)),
            "keeps" => Some(Self::Keeps(next(words)?)),
            _ => None,
        }
    }
}

/// Appends from two threads and a task, until it is killed.
pub(crate) fn run(job: &Job) -> Result<()> {
    let wal = Wal::open(&job.dir, job.mode.options())?;
    Line::Opened.say();
    thread::scope(|scope| {
        for writer in 0..2 {
            let wal = &wal;
            scope.spawn(move || Writer::new(job, writer).run(|records| wal.append_batch_blocking(records), wal));
        }
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Writer::new(job, 2).run(|records| tokio.block_on(wal.append_batch(records)), &wal);
    });
    Ok(())
}

struct Writer {
    incarnation: u32,
    number: u32,
    call: u32,
    random: fastrand::Rng,
}

type Batch<'a> = &'a [(RecordKind, &'a [u8])];

impl Writer {
    fn new(job: &Job, number: u32) -> Self {
        let seed = job.seed ^ u64::from(job.incarnation) << 8 ^ u64::from(number);
        Self { incarnation: job.incarnation, number, call: 0, random: fastrand::Rng::with_seed(seed) }
    }

    fn run(mut self, append: impl Fn(Batch<'_>) -> Result<RangeInclusive<Seq>>, wal: &Wal) {
        loop {
            let parts = if self.random.u8(..8) == 0 { self.random.u32(2..6) } else { 1 };
            let (incarnation, writer, call) = (self.incarnation, self.number, self.call);
            let payloads: Vec<_> =
                (0..parts).map(|part| Identity { incarnation, writer, call, part, parts }.payload()).collect();
            let batch: Vec<_> = payloads.iter().map(|payload| (KIND, &payload[..])).collect();
            let range = append(&batch).unwrap();
            Line::Acked { first: range.start().0, last: range.end().0, writer, call }.say();
            self.call += 1;
            if self.random.u8(..4) == 0 {
                Line::Anchor(wal.anchor()).say();
            }
            if writer == 0 && self.random.u8(..30) == 0 {
                let keep = range.end().0.saturating_sub(100);
                Line::Keeps(keep).say();
                wal.retain(Retention::default().with_keep_from(Seq(keep))).unwrap();
            }
        }
    }
}
