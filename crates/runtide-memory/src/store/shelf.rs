//! The resources of one kind in one namespace.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use indexmap::{Equivalent, IndexSet};
use runtide_core::{Document, Resource, ResourceRef, Revision};

/// The resources of one kind in one namespace, by name.
///
/// A hash of the name finds one with few touches of memory, where a tree would compare a dozen names that lie all over the
/// place. Listings want an order: it is made when one is asked for, and stays until something is added or removed.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    resources: IndexSet<Entry>,
    /// Whether `resources` are not in the order of their names.
    mixed: bool,
    /// Decided and not yet shown, oldest first.
    prepared: HashMap<ResourceRef, Vec<Prepared>>,
}

/// What a decided write will make of a resource.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) revision: Revision,
    pub(super) document: Option<Document>,
}

#[derive(Debug)]
struct Entry(Arc<Resource>);

impl Entry {
    fn name(&self) -> &str {
        self.0.reference.name()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

#[derive(Hash)]
struct Name<'a>(&'a str);

impl Equivalent<Entry> for Name<'_> {
    fn equivalent(&self, entry: &Entry) -> bool {
        self.0 == entry.name()
    }
}

impl Shelf {
    /// Of resources in the order of their names.
    pub(super) fn of(resources: impl ExactSizeIterator<Item = Arc<Resource>>) -> Self {
        let mut shelf = Self { resources: IndexSet::with_capacity(resources.len()), ..Self::default() };
        shelf.resources.extend(resources.map(Entry));
        shelf
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&Name(name)).map(|entry| &entry.0)
    }

    /// Puts it in, and gives what was there before.
    pub(super) fn put(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let last = self.resources.last().map(Entry::name);
        let behind = last.is_none_or(|last| last < resource.reference.name());
        let (_, before) = self.resources.replace_full(Entry(resource));
        self.mixed |= before.is_none() && !behind;
        before.map(|entry| entry.0)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let (at, entry) = self.resources.swap_remove_full(&Name(name))?;
        // The last one took its place.
        self.mixed |= at < self.resources.len();
        // What once was large does not stay so.
        if self.resources.capacity() > 64 && self.resources.len() < self.resources.capacity() / 4 {
            self.resources.shrink_to(self.resources.len() * 2);
        }
        Some(entry.0)
    }

    /// Whether nothing is in it, nor about to be.
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.prepared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.resources.len()
    }

    pub(super) fn is_in_order(&self) -> bool {
        !self.mixed
    }

    pub(super) fn put_in_order(&mut self) {
        if std::mem::take(&mut self.mixed) {
            // Stable: fast on what is nearly in order already.
            self.resources.sort_by(|one, other| one.name().cmp(other.name()));
        }
    }

    /// Those behind a name, in order, if they are in order.
    pub(super) fn behind(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<Resource>> {
        let from = name.map_or(0, |name| {
            let (mut low, mut high) = (0, self.resources.len());
            while low < high {
                let middle = low.midpoint(high);
                if self.resources.get_index(middle).is_some_and(|entry| entry.name() <= name) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        });
        self.resources.get_range(from..).into_iter().flatten().map(|entry| &entry.0)
    }

    /// What the latest decided write will make of it.
    pub(super) fn prepared(&self, reference: &ResourceRef) -> Option<&Prepared> {
        if self.prepared.is_empty() { None } else { self.prepared.get(reference)?.last() }
    }

    pub(super) fn prepare(&mut self, reference: &ResourceRef, prepared: Prepared) {
        self.prepared.entry(reference.clone()).or_default().push(prepared);
    }

    /// A decided write is shown or taken back; whether it was there.
    pub(super) fn settle(&mut self, reference: &ResourceRef, revision: Revision) -> bool {
        let Some(all) = self.prepared.get_mut(reference) else { return false };
        let Some(at) = all.iter().position(|one| one.revision == revision) else { return false };
        all.remove(at);
        if all.is_empty() {
            self.prepared.remove(reference);
        }
        true
    }
}
