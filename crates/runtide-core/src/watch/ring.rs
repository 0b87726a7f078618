//! One ring for all subscribers: entries are numbered without gaps, and a subscriber is a number.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::SystemTime};

use super::cache::View;
use crate::{
    completeness::Completeness,
    event::{Epoch, Gap, ResumeToken, RuntimeEvent},
    instance::Instance,
};

/// Entry of the ring.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// One event, and the instance as it was before, so that a filter recognizes an instance that ceases to match.
    Event { event: Arc<RuntimeEvent>, before: Option<Arc<Instance>> },
    /// A resync for every subscriber. Its `ResyncEnd` has the entry's number. Boxed, since each entry would be as large, and thousands
    /// of them are written and read again in turn.
    Resync(Box<Resync>),
}

/// A resync, which each subscriber reads at its own pace.
#[derive(Debug, Clone)]
pub(super) struct Resync {
    pub(super) gap: Gap,
    /// Epoch of its cursors.
    pub(super) epoch: Epoch,
    /// Resume token of its rows.
    pub(super) native: Option<ResumeToken>,
    pub(super) observed_at: SystemTime,
    /// `None`: a later resync replaced it, and a subscriber that comes here has lost its position.
    pub(super) view: Option<View>,
    /// True if the rows are in full detail.
    pub(super) full: bool,
    /// Completeness of the rows.
    pub(super) completeness: Completeness,
}

/// A bounded history.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// Number of the front entry.
    first: u64,
    capacity: usize,
    /// Number of the one resync whose view is kept.
    resync: Option<u64>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), first: 1, capacity: capacity.max(1), resync: None }
    }

    /// Number of the oldest entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The entries from a number on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skip..)
    }

    /// The entries before a number.
    pub(super) fn until(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let count = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(..count)
    }

    /// Drops the entries for which `coming` new ones leave no room.
    ///
    /// An event that is thousands of events old is in no processor cache any more, and freeing it waits for memory once per
    /// pointer: in a profile of `benches/docker_path.rs` that was a fifth of what an event costs on its way from the socket.
    /// Touching all of them first, one layer after the other, lets the processor wait for many at a time.
    pub(super) fn make_room(&mut self, coming: usize) {
        let excess = (self.entries.len() + coming).saturating_sub(self.capacity).min(self.entries.len());
        let events = || {
            self.entries.range(..excess).filter_map(|entry| match entry {
                Entry::Event { event, .. } => Some(event),
                Entry::Resync(_) => None,
            })
        };
        let instances = || events().filter_map(|event| event.instance());
        black_box(events().map(Arc::strong_count).sum::<usize>());
        black_box(instances().map(Arc::strong_count).sum::<usize>());
        black_box(instances().filter_map(|instance| instance.name.as_bytes().first()).fold(0, |all, byte| all ^ byte));
        self.entries.drain(..excess);
        self.first += excess as u64;
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if matches!(entry, Entry::Resync(_)) {
            self.release_resync();
            self.resync = Some(self.next());
        }
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
    }

    /// Number of the resync whose view is kept.
    pub(super) fn resync(&self) -> Option<u64> {
        self.resync
    }

    /// Releases the view. Views keep old rows alive, so that only the last resync has one, and only while a subscriber may
    /// still reach it.
    pub(super) fn release_resync(&mut self) {
        let Some(seq) = self.resync.take() else { return };
        let at = seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(Entry::Resync(resync)) = at.and_then(|at| self.entries.get_mut(at)) {
            resync.view = None;
        }
    }
}
