//! The history of one resource, read from the log.

use std::{collections::VecDeque, sync::Arc};

use runtide_core::store::{Resource, ResourceRef, Revision, StoreEvent};

use super::format::{self, Entry};
use crate::blocking::{BlockingStep, STRETCH};
use runtide_core::{
    Error, ErrorKind, Result,
    wal::{Seq, WalReader},
};

/// Folds the records of the log into the events of one resource. Pure.
struct EventFold {
    reference: ResourceRef,
    /// True once a record has shown whether the resource exists. From then on the parts of checkpoints are ignored: they only
    /// repeat what is known, and a write that comes before a part is younger than the part.
    known: bool,
    /// Revision of the resource; `None` while it is absent or not known.
    present: Option<Revision>,
    /// Revision from which on the history is complete; `None` until it is known.
    floor: Option<Revision>,
    /// Highest revision that was read.
    highest: Revision,
    inside: Inside,
}

/// The sequence of records that the next one belongs to.
enum Inside {
    /// Single writes; a part that comes here belongs to a checkpoint or a restore whose beginning was dropped.
    Nothing,
    /// The parts of a checkpoint.
    Checkpoint,
    /// The parts of a restore: its revision, and the resource, if it was among the parts.
    Restore(Revision, Option<Arc<Resource>>),
}

impl EventFold {
    /// `whole`: the log still has its first record.
    fn new(reference: ResourceRef, whole: bool) -> Self {
        let floor = whole.then_some(Revision(0));
        Self { reference, known: whole, present: None, floor, highest: Revision(0), inside: Inside::Nothing }
    }

    fn take(&mut self, entry: Entry, out: &mut VecDeque<StoreEvent>) {
        match entry {
            Entry::Written(planned) => {
                self.highest = self.highest.max(planned.revision);
                if matches!(self.inside, Inside::Restore(..)) {
                    // No write comes between the parts of a restore: a crash cut this one short.
                    self.inside = Inside::Nothing;
                }
                if planned.reference == self.reference {
                    let fresh = planned
                        .document
                        .map(|document| Arc::new(Resource::new(planned.reference, document, planned.revision)));
                    self.becomes(fresh, planned.revision, out);
                }
            }
            Entry::Begin { revision, restore, .. } => {
                self.highest = self.highest.max(revision);
                self.inside = if restore { Inside::Restore(revision, None) } else { Inside::Checkpoint };
            }
            Entry::Part(resource) if resource.reference == self.reference => match &mut self.inside {
                Inside::Restore(_, makes) => *makes = Some(Arc::new(resource)),
                Inside::Checkpoint if !self.known => {
                    let revision = resource.revision;
                    self.becomes(Some(Arc::new(resource)), revision, out);
                }
                Inside::Checkpoint | Inside::Nothing => {}
            },
            Entry::Part(_) => {}
            Entry::End { .. } => match std::mem::replace(&mut self.inside, Inside::Nothing) {
                // A write before this end may precede a part that is older than it: the history is complete only from here on.
                Inside::Checkpoint => {
                    self.known = true;
                    self.floor.get_or_insert(self.highest);
                }
                Inside::Restore(revision, makes) => {
                    self.floor.get_or_insert(revision);
                    if makes.is_some() || self.present.is_some() {
                        self.becomes(makes, revision, out);
                    }
                    self.known = true;
                }
                Inside::Nothing => {}
            },
        }
    }

    /// Emits the event that leads to the present state `now`.
    fn becomes(&mut self, now: Option<Arc<Resource>>, revision: Revision, out: &mut VecDeque<StoreEvent>) {
        self.known = true;
        let before = std::mem::replace(&mut self.present, now.is_some().then_some(revision));
        out.push_back(match (before, now) {
            (None, Some(resource)) => StoreEvent::Added(resource),
            (Some(_), Some(resource)) => StoreEvent::Modified(resource),
            (_, None) => StoreEvent::Deleted { reference: self.reference.clone(), revision },
        });
    }
}

/// The reader and the state of the fold, which move to a blocking thread and back.
pub(super) struct Reading {
    reader: WalReader,
    head: Seq,
    fold: EventFold,
}

impl Reading {
    pub(super) fn new(reader: WalReader, head: Seq, reference: ResourceRef) -> Self {
        let whole = reader.next_seq() <= Seq(1);
        Self { reader, head, fold: EventFold::new(reference, whole) }
    }

    /// The resource at a revision; blocks.
    pub(super) fn at(mut self, revision: Revision) -> Result<Option<Arc<Resource>>> {
        let (mut found, mut out, mut more) = (None, VecDeque::new(), true);
        while more {
            more = self.stretch(&mut out)?;
            for event in out.drain(..) {
                match event {
                    later if later.revision() > revision => {}
                    StoreEvent::Added(resource) | StoreEvent::Modified(resource) => found = Some(resource),
                    _ => found = None,
                }
            }
        }
        match self.fold.floor {
            Some(floor) if floor <= revision => Ok(found),
            floor => {
                let error = Error::new(ErrorKind::Expired, "store.at", "the log does not reach back to that revision");
                Err(error.with_context("revision", revision).with_context("oldest", floor.unwrap_or_default()))
            }
        }
    }
}

impl BlockingStep for Reading {
    type Item = StoreEvent;

    fn stretch(&mut self, out: &mut VecDeque<StoreEvent>) -> Result<bool> {
        for _ in 0..STRETCH {
            match self.reader.next_ref()? {
                Some(record) if record.seq <= self.head => self.fold.take(format::read(&record)?.1, out),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::store::{Document, Planned, PlannedChange};

    use super::*;

    fn named(name: &str) -> ResourceRef {
        ResourceRef::new("", "Pod", "shop", name).unwrap()
    }

    fn written(name: &str, revision: u64) -> Entry {
        let document = Some(Document::json(revision.to_string()));
        Entry::Written(Planned::new(named(name), document, PlannedChange::Replace, Revision(revision)))
    }

    fn deleted(name: &str, revision: u64) -> Entry {
        Entry::Written(Planned::new(named(name), None, PlannedChange::Delete, Revision(revision)))
    }

    fn part(name: &str, revision: u64) -> Entry {
        Entry::Part(Resource::new(named(name), Document::json(revision.to_string()), Revision(revision)))
    }

    fn begin(revision: u64, restore: bool) -> Entry {
        Entry::Begin { revision: Revision(revision), count: 1, restore }
    }

    const END: Entry = Entry::End { count: 1 };

    /// The history of `z`: the revisions of its events, negative for deletions, and the floor.
    fn folded(whole: bool, entries: impl IntoIterator<Item = Entry>) -> (Vec<i64>, Option<u64>) {
        let (mut fold, mut out) = (EventFold::new(named("z"), whole), VecDeque::new());
        entries.into_iter().for_each(|entry| fold.take(entry, &mut out));
        let signed = |event: &StoreEvent| {
            let revision = i64::try_from(event.revision().0).unwrap();
            if matches!(event, StoreEvent::Deleted { .. }) { -revision } else { revision }
        };
        (out.iter().map(signed).collect(), fold.floor.map(|floor| floor.0))
    }

    #[test]
    fn a_part_that_is_older_than_a_write_before_it_is_ignored() {
        let entries = [written("z", 50), begin(100, false), deleted("z", 101), part("z", 50), END, written("z", 110)];
        assert_eq!(folded(true, entries), (vec![50, -101, 110], Some(0)));
    }

    #[test]
    fn a_cut_log_claims_no_revision_that_it_does_not_cover() {
        // A checkpoint without an end proves nothing about the resources that it does not contain.
        assert_eq!(folded(false, [begin(100, false), part("a", 1), written("z", 120)]), (vec![120], None));
        // A write before the part: the state before the write is not known.
        let entries = [begin(100, false), written("z", 101), part("z", 50), END];
        assert_eq!(folded(false, entries), (vec![101], Some(101)));
        // Parts of an unfinished restore whose beginning was dropped do not count.
        let entries = [part("z", 90), written("a", 91), begin(100, false), part("z", 50), END];
        assert_eq!(folded(false, entries), (vec![50], Some(100)));
        assert_eq!(folded(false, [begin(100, false), part("z", 50), END]), (vec![50], Some(100)));
    }

    #[test]
    fn a_restore_counts_if_it_is_whole() {
        let entries = [written("z", 5), begin(9, true), part("a", 9), END, begin(20, true), part("z", 20), END];
        assert_eq!(folded(true, entries), (vec![5, -9, 20], Some(0)));
        let cut =
            [written("z", 5), begin(9, true), part("a", 9), written("a", 10), begin(11, false), part("z", 5), END];
        assert_eq!(folded(true, cut), (vec![5], Some(0)));
        assert_eq!(folded(false, [begin(9, true), part("z", 9), END]), (vec![9], Some(9)));
    }
}
