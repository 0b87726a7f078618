//! The resources of one kind in one namespace.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
};

use hashbrown::{HashTable, hash_table::Entry};
use runtide_core::store::{Document, Resource, ResourceRef, Revision};

/// The resources of one kind in one namespace, by name.
///
/// A hash of the name finds one with few touches of memory, where a tree would compare a dozen names that lie all over the
/// place. Listings want an order: it is made when one is asked for, and what comes later is put into it when the next one is.
#[derive(Debug, Default)]
pub(super) struct Collection {
    hasher: RandomState,
    places: HashTable<Place>,
    /// The same resources, each where it stays until it is removed.
    slots: Vec<Option<Arc<Resource>>>,
    /// Slots that can be taken: `order` does not have them.
    free: Vec<Slot>,
    /// All other slots. Up to `sorted` they are in the order of the names, and behind it in that in which they came.
    order: Vec<Slot>,
    sorted: usize,
    /// Slots in `order` in which nothing is any more.
    holes: usize,
    /// Decided and not yet shown, oldest first.
    prepared: HashMap<ResourceRef, VecDeque<Prepared>>,
}

/// What a decided write will make of a resource.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) revision: Revision,
    pub(super) document: Option<Document>,
}

/// The number of a slot. So many resources of one kind in one namespace would be a terabyte.
type Slot = u32;

/// A resource, and its slot. It is held here too, since a touch of memory that waits for another is a quarter of what finding
/// one takes; and its hash is here, so that the table grows without a look at the names.
#[derive(Debug)]
struct Place {
    resource: Arc<Resource>,
    slot: Slot,
    hash: u32,
}

impl Place {
    fn is(&self, hash: u32, name: &str) -> bool {
        self.hash == hash && self.resource.reference.name() == name
    }

    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// The table takes its place from the low bits, and tells neighbours apart by the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Collection {
    /// Of resources in the order of their names.
    pub(super) fn of(resources: impl ExactSizeIterator<Item = Arc<Resource>>) -> Self {
        let count = resources.len();
        let mut collection =
            Self { places: HashTable::with_capacity(count), slots: Vec::with_capacity(count), ..Self::default() };
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

    fn shown(&self, slot: Slot) -> Option<&Arc<Resource>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        let hash = self.hash(name);
        self.places.find(spread(hash), |place| place.is(hash, name)).map(|place| &place.resource)
    }

    /// Puts it in, and gives what was there before.
    pub(super) fn put(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let name = resource.reference.name();
        let hash = self.hash(name);
        let Self { places, slots, free, order, .. } = self;
        match places.entry(spread(hash), |place| place.is(hash, name), Place::spread) {
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
                nothing.insert(Place { resource, slot, hash });
                None
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let hash = self.hash(name);
        let found = self.places.find_entry(spread(hash), |place| place.is(hash, name)).ok()?;
        let (Place { resource, slot, .. }, _) = found.remove();
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            *slot = None;
        }
        self.holes += 1;
        // What once was large does not stay so.
        if self.slots.capacity() > 64 && self.places.len() < self.slots.capacity() / 4 {
            self.put_in_order();
            let resources: Vec<_> = self.behind(None).cloned().collect();
            let prepared = mem::take(&mut self.prepared);
            *self = Self { prepared, ..Self::of(resources.into_iter()) };
        } else if self.holes > self.places.len() {
            self.close_holes();
        }
        Some(resource)
    }

    /// Whether nothing is in it, nor about to be.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.prepared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.sorted == self.order.len() && self.holes == 0
    }

    /// Puts what came since the last time into the order.
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

    /// Those behind a name, in order, if they are in order.
    pub(super) fn behind(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<Resource>> {
        let from = name.map_or(0, |name| {
            self.order.partition_point(|slot| self.shown(*slot).is_some_and(|one| one.reference.name() <= name))
        });
        self.order.get(from..).unwrap_or_default().iter().filter_map(|slot| self.shown(*slot))
    }

    /// What the latest decided write will make of it.
    pub(super) fn prepared(&self, reference: &ResourceRef) -> Option<&Prepared> {
        if self.prepared.is_empty() { None } else { self.prepared.get(reference)?.back() }
    }

    pub(super) fn prepare(&mut self, reference: &ResourceRef, prepared: Prepared) {
        self.prepared.entry(reference.clone()).or_default().push_back(prepared);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn resource(name: &str, revision: u64) -> Arc<Resource> {
        let reference = ResourceRef::new("apps", "Deployment", "shop", name).unwrap();
        Arc::new(Resource::new(reference, Document::json("{}"), Revision(revision)))
    }

    #[test]
    fn it_is_a_sorted_map() {
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
                assert!(collection.slots.len() <= 4 * map.len().max(16) + 64, "it does not stay large");
            }
        }
    }
}
