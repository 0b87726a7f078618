//! One ring for all subscribers: entries are numbered without gaps, and a subscriber is a number.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::SystemTime};

use super::cache::View;
use crate::{
    event::{Epoch, Gap, ResumeToken, RuntimeEvent},
    instance::Instance,
};

/// What the ring holds.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// One event, and the instance as it was before, so that a filter sees what leaves it.
    Event { event: Arc<RuntimeEvent>, before: Option<Arc<Instance>> },
    /// A bracket for everyone. Its `ResyncEnd` has the entry's number.
    Bracket(Bracket),
}

/// A bracket to be read by a subscriber at his own pace.
#[derive(Debug, Clone)]
pub(super) struct Bracket {
    pub(super) gap: Gap,
    /// The bracket's own numbering.
    pub(super) epoch: Epoch,
    /// Where the runtime's history goes on after it.
    pub(super) native: Option<ResumeToken>,
    pub(super) observed_at: SystemTime,
    /// `None`: a later bracket took its place, and whoever comes here has lost his.
    pub(super) view: Option<View>,
    /// Whether the rows are in full detail.
    pub(super) full: bool,
}

/// A bounded history.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// The number of the front entry.
    first: u64,
    capacity: usize,
    /// The one bracket whose view is kept.
    bracket: Option<u64>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), first: 1, capacity: capacity.max(1), bracket: None }
    }

    /// The number of the oldest entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next entry will have.
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

    /// Lets go of what so many new entries push out.
    ///
    /// An event that is thousands of events old is in no processor cache any more, and freeing it waits for memory once per
    /// pointer: in a profile of `benches/docker_path.rs` that was a fifth of what an event costs on its way from the socket.
    /// Touching all of them first, one layer after the other, lets the processor wait for many at a time.
    pub(super) fn make_room(&mut self, coming: usize) {
        let excess = (self.entries.len() + coming).saturating_sub(self.capacity).min(self.entries.len());
        let events = || {
            self.entries.range(..excess).filter_map(|entry| match entry {
                Entry::Event { event, .. } => Some(event),
                Entry::Bracket(_) => None,
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
        if matches!(entry, Entry::Bracket(_)) {
            self.release_bracket();
            self.bracket = Some(self.next());
        }
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
    }

    /// The number of the bracket whose view is kept.
    pub(super) fn bracket(&self) -> Option<u64> {
        self.bracket
    }

    /// Gives the view back: views keep old rows alive, so only the last bracket has one, and only while somebody may
    /// still come to it.
    pub(super) fn release_bracket(&mut self) {
        let Some(seq) = self.bracket.take() else { return };
        let at = seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(Entry::Bracket(bracket)) = at.and_then(|at| self.entries.get_mut(at)) {
            bracket.view = None;
        }
    }
}
