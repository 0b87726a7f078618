//! The resources of one kind in one namespace.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
};

use hashbrown::{HashTable, hash_table::Entry};
use runtide_core::store::{Resource, ResourceRef, Revision};

/// The resources of one kind in one namespace, by name.
///
/// A hash table finds a name with few cache misses, where a tree would compare a dozen names that are scattered over memory.
/// Only listings need an order: a listing sorts the names that were added since the last one, and merges them into the order.
#[derive(Debug, Default)]
pub(super) struct Collection {
    hasher: RandomState,
    index: HashTable<Indexed>,
    /// The same resources by slot; a resource keeps its slot until it is removed.
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

/// A name with its hash, which is computed once per operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    name: &'a str,
    hash: u32,
}

/// Index of a slot. 32 bits are enough: so many resources of one kind in one namespace would take a terabyte.
type Slot = u32;

/// An entry of the hash table: a resource, its slot and its hash. The resource is here as well as in its slot, since one more
/// dependent memory access would cost a quarter of a lookup; with the hash, the table grows without reading the names.
#[derive(Debug)]
struct Indexed {
    resource: Arc<Resource>,
    slot: Slot,
    hash: u32,
}

impl Indexed {
    fn is(&self, hash: u32, name: &str) -> bool {
        self.hash == hash && self.resource.reference.name() == name
    }

    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// Spreads a hash over 64 bits: the table takes its bucket from the low bits, and the tag that separates neighbours from the
/// high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Collection {
    /// A collection of resources that are given in the order of their names.
    pub(super) fn of(resources: impl ExactSizeIterator<Item = Arc<Resource>>) -> Self {
        Self::hashed_by(RandomState::new(), resources)
    }

    fn hashed_by(hasher: RandomState, resources: impl ExactSizeIterator<Item = Arc<Resource>>) -> Self {
        let count = resources.len();
        let (index, slots) = (HashTable::with_capacity(count), Vec::with_capacity(count));
        let mut collection = Self { hasher, index, slots, ..Self::default() };
        collection.order.reserve_exact(count);
        for resource in resources {
            collection.put(resource);
        }
        collection.sorted = collection.order.len();
        collection
    }

    fn hash(&self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        let [.., a, b, c, d] = (hash ^ (hash >> 32)).to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    pub(super) fn name<'a>(&self, name: &'a str) -> Name<'a> {
        Name { name, hash: self.hash(name) }
    }

    fn shown(&self, slot: Slot) -> Option<&Arc<Resource>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.find(self.name(name))
    }

    pub(super) fn find(&self, Name { name, hash }: Name<'_>) -> Option<&Arc<Resource>> {
        self.index.find(spread(hash), |entry| entry.is(hash, name)).map(|entry| &entry.resource)
    }

    /// Inserts or replaces a resource; returns the previous one.
    pub(super) fn put(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let hash = self.hash(resource.reference.name());
        self.put_hashed(hash, resource)
    }

    fn put_hashed(&mut self, hash: u32, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let name = resource.reference.name();
        let Self { index, slots, free, order, .. } = self;
        match index.entry(spread(hash), |entry| entry.is(hash, name), Indexed::spread) {
            Entry::Occupied(mut there) => {
                let there = there.get_mut();
                if let Some(slot) = slots.get_mut(there.slot as usize) {
                    *slot = Some(Arc::clone(&resource));
                }
                Some(mem::replace(&mut there.resource, resource))
            }
            Entry::Vacant(nothing) => {
                let slot = free.pop().unwrap_or_else(|| {
                    slots.push(None);
                    Slot::try_from(slots.len() - 1).unwrap_or(Slot::MAX)
                });
                if let Some(free) = slots.get_mut(slot as usize) {
                    *free = Some(Arc::clone(&resource));
                }
                order.push(slot);
                nothing.insert(Indexed { resource, slot, hash });
                None
            }
        }
    }

    #[cfg(test)]
    fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let hash = self.hash(name);
        self.take(Name { name, hash })
    }

    /// Inserts or replaces the resource of this name, or removes it (`None`); returns the previous one.
    pub(super) fn set(&mut self, name: Name<'_>, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        match resource {
            Some(resource) => self.put_hashed(name.hash, resource),
            None => self.take(name),
        }
    }

    fn take(&mut self, Name { name, hash }: Name<'_>) -> Option<Arc<Resource>> {
        let found = self.index.find_entry(spread(hash), |entry| entry.is(hash, name)).ok()?;
        let (Indexed { resource, slot, .. }, _) = found.remove();
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            *slot = None;
        }
        self.holes += 1;
        // Shrink after many removals.
        if self.slots.capacity() > 64 && self.index.len() < self.slots.capacity() / 4 {
            self.put_in_order();
            let resources: Vec<_> = self.behind(None).cloned().collect();
            let (prepared, hasher) = (mem::take(&mut self.prepared), self.hasher.clone());
            *self = Self { prepared, ..Self::hashed_by(hasher, resources.into_iter()) };
        } else if self.holes > self.index.len() {
            self.close_holes();
        }
        Some(resource)
    }

    /// Returns true if it has neither a resource nor a decided write.
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.prepared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
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

    /// The latest decided write of this name.
    pub(super) fn prepared(&self, name: Name<'_>) -> Option<&Prepared> {
        let pending = self.prepared.find(spread(name.hash), |pending| pending.is(name))?;
        Some(pending.later.back().unwrap_or(&pending.first))
    }

    pub(super) fn prepare(&mut self, name: Name<'_>, reference: &ResourceRef, prepared: Prepared) {
        match self.prepared.entry(spread(name.hash), |pending| pending.is(name), |pending| spread(pending.hash)) {
            Entry::Occupied(mut there) => there.get_mut().later.push_back(prepared),
            Entry::Vacant(nothing) => {
                let (reference, later) = (reference.clone(), VecDeque::new());
                nothing.insert(Pending { reference, hash: name.hash, first: prepared, later });
            }
        }
    }

    /// Removes a decided write that is published or taken back; returns it, if there was one of that revision.
    pub(super) fn settle(&mut self, name: Name<'_>, revision: Revision) -> Option<Prepared> {
        let mut found = self.prepared.find_entry(spread(name.hash), |pending| pending.is(name)).ok()?;
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
    fn is(&self, Name { name, hash }: Name<'_>) -> bool {
        self.hash == hash && self.reference.name() == name
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

    #[test]
    fn a_collection_behaves_as_a_sorted_map() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut collection, mut map) = (Collection::default(), BTreeMap::new());
            // Some seeds mostly add, others mostly remove; names come again and again.
            let (names, adds) = (rng.usize(1..400), rng.f64());
            for revision in 0..1_500 {
                let name = format!("n{}", rng.usize(..names));
                if rng.f64() < if revision < 500 { 0.9 } else { adds } {
                    let one = resource(&name, revision);
                    assert_eq!(collection.put(Arc::clone(&one)), map.insert(name, one));
                } else {
                    assert_eq!(collection.remove(&name), map.remove(&name));
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
                assert_eq!(collection.get(&name), map.get(&name));
                assert_eq!((collection.len(), collection.is_empty()), (map.len(), map.is_empty()));
                assert!(collection.slots.len() <= 4 * map.len().max(16) + 64, "the slots shrink");
            }
        }
    }
}
