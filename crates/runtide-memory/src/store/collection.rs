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
    /// Decided and not yet shown.
    prepared: HashTable<Pending>,
}

/// What a decided write will make of a resource.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) revision: Revision,
    /// As it will be shown; none for a delete.
    pub(super) resource: Option<Arc<Resource>>,
}

/// The decided writes of one resource, oldest first: mostly one, which takes no memory of its own.
#[derive(Debug)]
struct Pending {
    reference: ResourceRef,
    hash: u32,
    first: Prepared,
    later: VecDeque<Prepared>,
}

/// A name, hashed once for all that is done with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    name: &'a str,
    hash: u32,
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
        Self::hashed_by(RandomState::new(), resources)
    }

    fn hashed_by(hasher: RandomState, resources: impl ExactSizeIterator<Item = Arc<Resource>>) -> Self {
        let count = resources.len();
        let (places, slots) = (HashTable::with_capacity(count), Vec::with_capacity(count));
        let mut collection = Self { hasher, places, slots, ..Self::default() };
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
        self.places.find(spread(hash), |place| place.is(hash, name)).map(|place| &place.resource)
    }

    /// Puts it in, and gives what was there before.
    pub(super) fn put(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let hash = self.hash(resource.reference.name());
        self.put_hashed(hash, resource)
    }

    fn put_hashed(&mut self, hash: u32, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let name = resource.reference.name();
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

    #[cfg(test)]
    fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let hash = self.hash(name);
        self.take(Name { name, hash })
    }

    /// Puts a resource in that has this name, or takes away the one that has; gives what was there before.
    pub(super) fn set(&mut self, name: Name<'_>, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        match resource {
            Some(resource) => self.put_hashed(name.hash, resource),
            None => self.take(name),
        }
    }

    fn take(&mut self, Name { name, hash }: Name<'_>) -> Option<Arc<Resource>> {
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
            let (prepared, hasher) = (mem::take(&mut self.prepared), self.hasher.clone());
            *self = Self { prepared, ..Self::hashed_by(hasher, resources.into_iter()) };
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

    /// A decided write is shown or taken back; what it makes of the resource, if it was there.
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
