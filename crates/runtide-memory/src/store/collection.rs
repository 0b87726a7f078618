//! The resources of one kind in one namespace.

use std::{collections::VecDeque, mem, sync::Arc};

use hashbrown::{HashTable, hash_table::Entry};
use runtide_core::store::{Resource, ResourceRef, Revision};

use super::index::{Index, Key, Slot, spread};

/// The resources of one kind in one namespace, in the order of their names, and the decided writes to them.
///
/// The [`Index`] finds a resource, and only listings need an order: a listing sorts the names that were added since the last
/// one, and merges them into the order.
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// The resources by slot; a resource keeps its slot until it is removed.
    slots: Vec<Option<Arc<Resource>>>,
    /// Free slots: none of them is in `order`.
    free: Vec<Slot>,
    /// All other slots: the first `sorted` of them ordered by name, the rest in the order in which they were added.
    order: Vec<Slot>,
    sorted: usize,
    /// Number of slots in `order` whose resource was removed.
    holes: usize,
    /// Writes that are decided and not yet published.
    prepared: HashTable<Pending>,
}

/// A resource as a decided write will leave it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) revision: Revision,
    /// The resource as it will be published; `None` for a delete.
    pub(super) resource: Option<Arc<Resource>>,
}

/// The decided writes of one resource, oldest first. Mostly there is only one, which needs no allocation.
#[derive(Debug)]
struct Pending {
    reference: ResourceRef,
    hash: u32,
    first: Prepared,
    later: VecDeque<Prepared>,
}

impl Collection {
    /// A collection of resources in the order of their names, which the index has with these slots.
    pub(super) fn of(slots: Vec<Option<Arc<Resource>>>) -> Self {
        let order: Vec<Slot> = (0..).take(slots.len()).collect();
        Self { sorted: order.len(), slots, order, ..Self::default() }
    }

    fn shown(&self, slot: Slot) -> Option<&Arc<Resource>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Inserts or replaces the resource of this key, or removes it (`None`); returns the previous one.
    pub(super) fn set(
        &mut self,
        index: &Index,
        key: Key<'_>,
        resource: Option<Arc<Resource>>,
    ) -> Option<Arc<Resource>> {
        match resource {
            Some(resource) => self.put(index, key, resource),
            None => self.take(index, key),
        }
    }

    fn put(&mut self, index: &Index, key: Key<'_>, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let Self { slots, free, order, .. } = self;
        let (slot, before) = index.put(key, Arc::clone(&resource), || {
            let slot = free.pop().unwrap_or_else(|| {
                slots.push(None);
                // The memory for so many slots is used up long before.
                Slot::try_from(slots.len() - 1).unwrap_or(Slot::MAX)
            });
            order.push(slot);
            slot
        });
        if let Some(slot) = slots.get_mut(slot as usize) {
            *slot = Some(resource);
        }
        before
    }

    fn take(&mut self, index: &Index, key: Key<'_>) -> Option<Arc<Resource>> {
        let (slot, resource) = index.take(key)?;
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            *slot = None;
        }
        self.holes += 1;
        if self.slots.capacity() > 64 && self.len() < self.slots.capacity() / 4 {
            self.shrink(index);
        } else if self.holes > self.len() {
            self.close_holes();
        }
        Some(resource)
    }

    fn shrink(&mut self, index: &Index) {
        self.put_in_order();
        let slots: Vec<_> = self.behind(None).cloned().map(Some).collect();
        self.order = (0..).take(slots.len()).collect();
        for (resource, slot) in slots.iter().flatten().zip(&self.order) {
            index.renumber(index.key(resource.reference.as_str()), *slot);
        }
        self.sorted = slots.len();
        (self.slots, self.free) = (slots, Vec::new());
    }

    /// Returns true if it has neither a resource nor a decided write.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.prepared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len() - self.holes
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.sorted == self.order.len() && self.holes == 0
    }

    /// Sorts the resources that were added since the last call, and merges them into the order.
    pub(super) fn put_in_order(&mut self) {
        self.close_holes();
        let name = |slot: &Slot| self.shown(*slot).map(|one| one.reference.name());
        let (sorted, came) = self.order.split_at(self.sorted);
        let mut came: Vec<_> = came.iter().map(|slot| (name(slot), *slot)).collect();
        came.sort_unstable();
        let mut order = Vec::with_capacity(self.order.capacity());
        let mut rest = sorted;
        for (of, slot) in came {
            let (before, behind) = rest.split_at(rest.partition_point(|slot| name(slot) < of));
            order.extend_from_slice(before);
            order.push(slot);
            rest = behind;
        }
        order.extend_from_slice(rest);
        self.sorted = order.len();
        self.order = order;
    }

    fn close_holes(&mut self) {
        if mem::take(&mut self.holes) == 0 {
            return;
        }
        let Self { slots, free, order, sorted, .. } = self;
        let (mut at, mut kept) = (0, 0);
        order.retain(|slot| {
            let is_there = slots.get(*slot as usize).is_some_and(Option::is_some);
            if is_there {
                kept += usize::from(at < *sorted);
            } else {
                free.push(*slot);
            }
            at += 1;
            is_there
        });
        *sorted = kept;
    }

    /// The resources after a name. In the order of their names only if [`Self::is_in_order`].
    pub(super) fn behind(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<Resource>> {
        let from = name.map_or(0, |name| {
            self.order.partition_point(|slot| self.shown(*slot).is_some_and(|one| one.reference.name() <= name))
        });
        self.order.get(from..).unwrap_or_default().iter().filter_map(|slot| self.shown(*slot))
    }

    /// The latest decided write of this key.
    pub(super) fn prepared(&self, key: Key<'_>) -> Option<&Prepared> {
        let pending = self.prepared.find(key.spread(), |pending| pending.is(key))?;
        Some(pending.later.back().unwrap_or(&pending.first))
    }

    pub(super) fn prepare(&mut self, key: Key<'_>, reference: &ResourceRef, prepared: Prepared) {
        match self.prepared.entry(key.spread(), |pending| pending.is(key), |pending| spread(pending.hash)) {
            Entry::Occupied(mut there) => there.get_mut().later.push_back(prepared),
            Entry::Vacant(nothing) => {
                let (reference, later) = (reference.clone(), VecDeque::new());
                nothing.insert(Pending { reference, hash: key.hash, first: prepared, later });
            }
        }
    }

    /// Removes a decided write that is published or taken back; returns it, if there was one of that revision.
    pub(super) fn settle(&mut self, key: Key<'_>, revision: Revision) -> Option<Prepared> {
        let mut found = self.prepared.find_entry(key.spread(), |pending| pending.is(key)).ok()?;
        let Pending { first, later, .. } = found.get_mut();
        if first.revision != revision {
            let at = later.iter().position(|one| one.revision == revision)?;
            return later.remove(at);
        }
        match later.pop_front() {
            Some(next) => Some(mem::replace(first, next)),
            None => Some(found.remove().0.first),
        }
    }
}

impl Pending {
    fn is(&self, key: Key<'_>) -> bool {
        self.hash == key.hash && self.reference.as_str() == key.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtide_core::store::Document;
    use std::collections::BTreeMap;

    fn resource(name: &str, revision: u64) -> Arc<Resource> {
        let reference = ResourceRef::new("apps", "Deployment", "shop", name).unwrap();
        Arc::new(Resource::new(reference, Document::json("{}"), Revision(revision)))
    }

    fn text(name: &str) -> String {
        format!("apps/Deployment/shop/{name}")
    }

    #[test]
    fn a_collection_behaves_as_a_sorted_map() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (index, mut collection, mut map) = (Index::default(), Collection::default(), BTreeMap::new());
            // Some seeds mostly add, others mostly remove; names come again and again.
            let (names, adds) = (rng.usize(1..400), rng.f64());
            for revision in 0..1_500 {
                let name = format!("n{}", rng.usize(..names));
                if rng.f64() < if revision < 500 { 0.9 } else { adds } {
                    let one = resource(&name, revision);
                    let text = one.reference.to_string();
                    assert_eq!(collection.put(&index, index.key(&text), Arc::clone(&one)), map.insert(name, one));
                } else {
                    assert_eq!(collection.take(&index, index.key(&text(&name))), map.remove(&name));
                }
                if rng.u8(..) < 8 {
                    collection.put_in_order();
                    assert!(collection.is_in_order());
                }
                if collection.is_in_order() {
                    assert!(collection.behind(None).eq(map.values()));
                    let name = format!("n{}", rng.usize(..names));
                    let behind = map.iter().filter(|(other, _)| **other > name).map(|(_, one)| one);
                    assert!(collection.behind(Some(&name)).eq(behind));
                }
                let name = format!("n{}", rng.usize(..names));
                assert_eq!(index.get(index.key(&text(&name))).as_ref(), map.get(&name));
                assert_eq!((collection.len(), collection.is_empty()), (map.len(), map.is_empty()));
                assert!(collection.slots.len() <= 4 * map.len().max(16) + 64, "the slots shrink");
            }
        }
    }
}
