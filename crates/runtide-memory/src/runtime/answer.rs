//! Answers to listings and inspections: the records, less what the faults take away.

use std::sync::Arc;

use runtide_core::InstanceId;

use super::{MemoryRuntime, Record, State};

/// One instance on the wire.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Record(Arc<Record>),
    /// Nothing but its id can be read.
    Garbled(InstanceId),
}

/// A listing on the wire.
#[derive(Clone, Debug)]
pub(crate) struct RawListing {
    pub(crate) items: Vec<Item>,
    /// There was more.
    pub(crate) cut: bool,
}

impl MemoryRuntime {
    /// Every record, past the wire and the faults, in order of id.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.with(|state| state.records.values().cloned().collect())
    }
}

impl State {
    pub(crate) fn listing(&self) -> RawListing {
        let most = self.faults.truncate_list.unwrap_or(usize::MAX);
        let items: Vec<Item> = self.records.keys().filter_map(|id| self.item(id)).take(most).collect();
        let cut = self.faults.truncate_list.is_some();
        RawListing { items, cut }
    }

    /// `None`: it is not there.
    pub(crate) fn item(&self, id: &InstanceId) -> Option<Item> {
        let record = self.records.get(id).filter(|_| !self.faults.hide.contains(id))?;
        let garbled = self.faults.bad_items.contains(id);
        Some(if garbled { Item::Garbled(id.clone()) } else { Item::Record(Arc::clone(record)) })
    }
}
