//! The life of one resource, read from the log.

use std::{collections::VecDeque, sync::Arc};

use super::{
    super::{Resource, ResourceRef, Revision, StoreEvent},
    format::{self, Entry},
};
use crate::{
    Error, ErrorKind, Result,
    journal::blocking::{STRETCH, Stretch},
    wal::{Seq, WalReader},
};

/// Which records belong to one life. Pure.
struct Sieve {
    reference: ResourceRef,
    /// It is there, since this revision.
    there: Option<Revision>,
    /// From this revision on the log tells all of it; none as long as it is not known.
    floor: Option<Revision>,
    /// A restore, and what it makes of the resource.
    restore: Option<(Revision, Option<Arc<Resource>>)>,
}

impl Sieve {
    /// `whole`: the log is there from its first record on.
    fn new(reference: ResourceRef, whole: bool) -> Self {
        Self { reference, there: None, floor: whole.then_some(Revision(0)), restore: None }
    }

    fn take(&mut self, entry: Entry, out: &mut VecDeque<StoreEvent>) {
        match entry {
            Entry::Written(planned) if planned.reference == self.reference => {
                let (reference, revision) = (planned.reference, planned.revision);
                let before = std::mem::replace(&mut self.there, planned.document.is_some().then_some(revision));
                let fresh = planned.document.map(|document| Resource::new(reference.clone(), document, revision));
                out.push_back(match (before, fresh.map(Arc::new)) {
                    (None, Some(resource)) => StoreEvent::Added(resource),
                    (Some(_), Some(resource)) => StoreEvent::Modified(resource),
                    (_, None) => StoreEvent::Deleted { reference, revision },
                });
            }
            Entry::Begin { revision, restore, .. } => {
                self.restore = restore.then_some((revision, None));
                if !restore {
                    self.floor.get_or_insert(revision);
                }
            }
            Entry::Part(resource) if resource.reference == self.reference => {
                if let Some((_, makes)) = &mut self.restore {
                    *makes = Some(Arc::new(resource));
                } else if self.there.is_none_or(|there| there < resource.revision) {
                    // The log does not reach back to where it was written.
                    self.there = Some(resource.revision);
                    out.push_back(StoreEvent::Added(Arc::new(resource)));
                }
            }
            Entry::Written(_) | Entry::Part(_) => {}
            Entry::End { .. } => {
                let Some((revision, makes)) = self.restore.take() else { return };
                self.floor.get_or_insert(revision);
                match (makes, self.there.take()) {
                    (Some(resource), there) => {
                        self.there = Some(revision);
                        out.push_back(match there {
                            Some(_) => StoreEvent::Modified(resource),
                            None => StoreEvent::Added(resource),
                        });
                    }
                    (None, Some(_)) => {
                        out.push_back(StoreEvent::Deleted { reference: self.reference.clone(), revision });
                    }
                    (None, None) => {}
                }
            }
        }
    }
}

/// What is carried to the thread that may block, and back.
pub(super) struct Reading {
    reader: WalReader,
    head: Seq,
    sieve: Sieve,
}

impl Reading {
    pub(super) fn new(reader: WalReader, head: Seq, reference: ResourceRef) -> Self {
        let whole = reader.next_seq() <= Seq(1);
        Self { reader, head, sieve: Sieve::new(reference, whole) }
    }

    /// What it was at a revision; blocks.
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
        match self.sieve.floor {
            Some(floor) if floor <= revision => Ok(found),
            floor => {
                let error = Error::new(ErrorKind::Expired, "store.at", "the log does not reach back to that revision");
                Err(error.with_context("revision", revision).with_context("oldest", floor.unwrap_or_default()))
            }
        }
    }
}

impl Stretch for Reading {
    type Item = StoreEvent;

    fn stretch(&mut self, out: &mut VecDeque<StoreEvent>) -> Result<bool> {
        for _ in 0..STRETCH {
            match self.reader.next_ref()? {
                Some(record) if record.seq <= self.head => self.sieve.take(format::read(&record)?.1, out),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
