//! Replay: fills the store from the log when it is opened.

use std::sync::Arc;

use runtide_core::store::{LocalStore, Planned, Resource, Revision, StoreImage};

use super::format::{self, Entry};
use runtide_core::{
    Error, ErrorKind, Result,
    wal::{ReadFrom, Seq, Wal},
};

/// Number of writes that are published together during the replay.
const TOGETHER: usize = 1_024;

/// The result of a replay.
pub(super) struct Replayed {
    /// Replay position: number of the first record that the last whole checkpoint does not contain; 0 if there is none.
    pub(super) checkpoint: Seq,
    /// Number of records after the end of the last whole checkpoint or restore.
    pub(super) since: u64,
    /// Last revision in the log; `None` if the log is empty.
    pub(super) last: Option<Revision>,
}

/// Loads the last whole checkpoint into the store, and publishes the writes after it.
pub(super) fn replay<S: LocalStore>(wal: &Wal, store: &S) -> Result<Replayed> {
    let mut checkpoint = Seq(0);
    if let Some(newest) = wal.reader(ReadFrom::Seq(wal.anchor().seq.max(Seq(1))))?.next_ref()? {
        checkpoint = format::read(&newest)?.0;
    }
    let from = if checkpoint == Seq(0) { ReadFrom::Start } else { ReadFrom::Seq(checkpoint) };
    let mut reader = wal.reader(from)?;
    let whole = reader.next_seq() <= Seq(1);
    let mut reading = Reading { store, whole, image: None, later: Vec::new(), begun: false, last: None };
    let (mut since, mut read) = (0, Seq(0));
    while let Some(record) = reader.next_ref()? {
        read = record.seq;
        let counts = reading.take(format::read(&record)?.1).map_err(|error| error.with_context("seq", read))?;
        since = if counts { 0 } else { since + 1 };
    }
    if read != wal.anchor().seq {
        return Err(broken("the log ends before what it acknowledged"));
    }
    if !reading.begun && !whole {
        return Err(broken("the log does not reach back to a whole checkpoint, nor to its beginning"));
    }
    if !reading.begun {
        // A new log. The resources that the store had are not in it and would be lost on the next opening: start empty.
        store.load(StoreImage::new(store.image().revision, Vec::new()));
    }
    reading.show();
    Ok(Replayed { checkpoint, since, last: reading.last })
}

struct Reading<'a, S> {
    store: &'a S,
    /// True if the log still has its first record.
    whole: bool,
    /// The unfinished checkpoint from which the store begins, or an unfinished restore.
    image: Option<Whole>,
    /// Writes that are not published yet.
    later: Vec<Planned>,
    /// True once the store has a base to which writes apply: later checkpoints repeat what it has, and are skipped.
    begun: bool,
    /// Last revision that was read.
    last: Option<Revision>,
}

/// A checkpoint or a restore that is being read, with the number of resources that its beginning announced.
struct Whole {
    image: StoreImage,
    count: u64,
    restore: bool,
}

impl<S: LocalStore> Reading<'_, S> {
    /// Applies a record; returns true if it ended a checkpoint or a restore that was loaded.
    fn take(&mut self, entry: Entry) -> Result<bool> {
        match entry {
            Entry::Written(planned) => {
                // No write comes between the parts of a restore: a crash cut this one short.
                self.image.take_if(|whole| whole.restore);
                if self.last.is_some_and(|last| planned.revision <= last) {
                    return Err(broken("the revisions do not rise"));
                }
                if !self.begun && self.image.is_none() && self.whole {
                    let before = Revision(planned.revision.0.saturating_sub(1));
                    self.store.load(StoreImage::new(before, Vec::new()));
                    self.begun = true;
                }
                self.last = Some(planned.revision);
                self.later.push(planned);
                if self.begun && self.image.is_none() && self.later.len() >= TOGETHER {
                    self.show();
                }
            }
            Entry::Begin { revision, count, restore } => {
                let image = StoreImage::new(revision, Vec::new());
                self.image = (restore || !self.begun).then_some(Whole { image, count, restore });
            }
            Entry::Part(resource) => {
                if let Some(whole) = &mut self.image {
                    whole.image.resources.push(Arc::new(resource));
                }
            }
            Entry::End { count } => {
                let Some(Whole { mut image, count: announced, .. }) = self.image.take() else { return Ok(false) };
                if image.resources.len() as u64 != announced || count != announced {
                    return Err(broken("a checkpoint does not have the number of resources that it announced"));
                }
                if !image.resources.is_sorted_by(|one, other| one.reference < other.reference) {
                    return Err(broken("the resources of a checkpoint are not in order"));
                }
                let revision = image.revision;
                image.resources.shrink_to_fit();
                // Keep the writes that came while the checkpoint was written; a restore replaces all writes before it.
                self.later.retain(|planned| planned.revision > revision);
                self.store.load(image);
                self.begun = true;
                self.last = self.last.max(Some(revision));
                self.show();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn show(&mut self) {
        if self.begun {
            self.store.publish(std::mem::take(&mut self.later));
        }
    }
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "store.open", message)
}

/// The resources, each with this revision.
pub(super) fn stamped(mut resources: Vec<Arc<Resource>>, revision: Revision) -> Vec<Arc<Resource>> {
    for resource in &mut resources {
        Arc::make_mut(resource).revision = revision;
    }
    resources
}
