//! Cache of revisions and digests that this client last saw. An entry saves a round trip; only a transaction that compares the
//! revision relies on it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use runtide_core::{
    backend::lock,
    store::{Digest, Document, ResourceFormat, ResourceRef},
};

/// A resource as it was seen, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    format: ResourceFormat,
    digest: Digest,
}

impl Seen {
    pub(crate) fn new(revision: u64, document: &Document) -> Self {
        Self { revision, format: document.format, digest: Digest::of(&document.bytes) }
    }

    /// The document is the same, byte for byte.
    pub(crate) fn is(&self, document: &Document) -> bool {
        self.format == document.format && self.digest == Digest::of(&document.bytes)
    }
}

/// The resources that were seen last; the oldest entry is evicted first.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    seen: HashMap<ResourceRef, Seen>,
    order: VecDeque<ResourceRef>,
}

impl Known {
    /// Most entries; a few hundred KiB.
    const MOST: usize = 4096;

    pub(crate) fn get(&self, reference: &ResourceRef) -> Option<Seen> {
        lock(&self.0).seen.get(reference).copied()
    }

    pub(crate) fn clear(&self) {
        *lock(&self.0) = Table::default();
    }

    pub(crate) fn set(&self, reference: &ResourceRef, seen: Option<Seen>) {
        let mut table = lock(&self.0);
        let Some(seen) = seen else {
            // Its entry in the order stays until it is the oldest.
            table.seen.remove(reference);
            return;
        };
        if table.seen.insert(reference.clone(), seen).is_none() {
            table.order.push_back(reference.clone());
            while table.order.len() > Self::MOST {
                let Some(oldest) = table.order.pop_front() else { break };
                table.seen.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_last_revisions_and_is_bounded() {
        let known = Known::default();
        let name = |n: usize| ResourceRef::new("", "K", None, &format!("n{n}")).unwrap();
        let seen = Seen::new(7, &Document::json("{}"));
        for n in 0..3 * Known::MOST {
            known.set(&name(n), Some(seen));
            if n % 3 == 0 {
                known.set(&name(n), None);
            }
        }
        assert_eq!(known.get(&name(3 * Known::MOST - 1)), Some(seen));
        assert_eq!(known.get(&name(0)), None);
        let table = known.0.lock().unwrap();
        assert!(table.order.len() <= Known::MOST && table.seen.len() <= Known::MOST);
        drop(table);
        known.clear();
        assert_eq!(known.get(&name(3 * Known::MOST - 1)), None);
    }

    #[test]
    fn the_format_counts_too() {
        let seen = Seen::new(7, &Document::json("{}"));
        assert!(seen.is(&Document::json("{}")) && !seen.is(&Document::yaml("{}")) && !seen.is(&Document::json("{ }")));
    }
}
