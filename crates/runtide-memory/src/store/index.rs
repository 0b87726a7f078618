//! The resources of all scopes by reference, for reads and writes of one resource.

use std::{
    array, fmt,
    hash::{BuildHasher, RandomState},
    hint::black_box,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use hashbrown::{HashTable, hash_table::Entry};
use runtide_core::store::Resource;

/// Number of shards, and the bits of a hash that choose one.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;

/// Number of resources that are read ahead of the first one when all are dropped.
const AHEAD: usize = 32;

/// Index of a slot in a [`Collection`](super::collection::Collection). 32 bits are enough: so many resources of one kind in one
/// namespace would take a terabyte.
pub(super) type Slot = u32;

/// The resources of all scopes by reference.
///
/// A get takes one hash and the lock of one shard, which no writer holds for longer than the replacement of one entry: writers
/// decide under the lock of their scope, and take the shard's inside of it. No other lock is taken while a shard's is held.
pub(super) struct Index {
    hasher: RandomState,
    shards: Box<[Shard; SHARDS]>,
}

/// A part of the index. Aligned, so that the locks of two shards never share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<HashTable<Indexed>>);

impl Shard {
    /// The table of a shard that is not shared.
    fn table(&mut self) -> &mut HashTable<Indexed> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a reference with its hash, which is computed once per operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) text: &'a str,
    pub(super) hash: u32,
}

impl Key<'_> {
    /// The hash spread over 64 bits: a table takes its bucket from the low bits, and the tag that separates neighbours from the
    /// high ones.
    pub(super) fn spread(self) -> u64 {
        spread(self.hash)
    }
}

pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The shard of a hash.
fn shard_of(hash: u32) -> usize {
    (hash >> (u32::BITS - SHARD_BITS)) as usize
}

/// A resource, its slot in the collection of its scope, and its hash.
///
/// A get of a large store waits for memory and for nothing else, so that each dependent access more would cost a quarter of it:
/// the resource and the text of its reference are here as well as in its slot. With the hash, the table grows without reading either.
/// Of 32 bytes, so that none lies in two cache lines.
#[derive(Debug)]
struct Indexed {
    text: Arc<str>,
    resource: Arc<Resource>,
    slot: Slot,
    hash: u32,
}

impl Indexed {
    fn new(resource: Arc<Resource>, slot: Slot, hash: u32) -> Self {
        Self { text: Arc::clone(resource.reference.shared()), resource, slot, hash }
    }

    fn is(&self, key: Key<'_>) -> bool {
        self.hash == key.hash && {
            // Reads the count that the caller is about to change, and the end of the resource: the CPU overlaps these accesses
            // with that of the text, whereas the change of a count waits for all accesses before it.
            black_box((Arc::strong_count(&self.resource), self.resource.document.bytes.len()));
            *self.text == *key.text
        }
    }

    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// Fills an empty index with resources that all differ.
///
/// One after the other in the order of their names, each would wait for the memory of another shard. So they are sorted by shard
/// first, and then each shard is filled while it is in the cache.
#[derive(Debug)]
pub(super) struct Filling {
    index: Index,
    parts: Vec<Vec<Indexed>>,
}

impl Filling {
    pub(super) fn new(index: Index) -> Self {
        Self { index, parts: (0..SHARDS).map(|_| Vec::new()).collect() }
    }

    pub(super) fn push(&mut self, resource: &Arc<Resource>, slot: Slot) {
        let Key { hash, .. } = self.index.key(resource.reference.as_str());
        if let Some(part) = self.parts.get_mut(shard_of(hash)) {
            part.push(Indexed::new(Arc::clone(resource), slot, hash));
        }
    }

    pub(super) fn done(mut self) -> Index {
        for (shard, part) in self.index.shards.iter_mut().zip(self.parts) {
            let table = shard.table();
            table.reserve(part.len(), Indexed::spread);
            for entry in part {
                table.insert_unique(entry.spread(), entry, Indexed::spread);
            }
        }
        self.index
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::hashed_by(RandomState::new())
    }
}

impl Index {
    fn hashed_by(hasher: RandomState) -> Self {
        Self { hasher, shards: Box::new(array::from_fn(|_| Shard::default())) }
    }

    /// An empty index with the same hashes, which can replace this one.
    pub(super) fn like(&self) -> Self {
        Self::hashed_by(self.hasher.clone())
    }

    pub(super) fn key<'a>(&self, text: &'a str) -> Key<'a> {
        let hash = self.hasher.hash_one(text);
        let [.., a, b, c, d] = (hash ^ (hash >> 32)).to_be_bytes();
        Key { text, hash: u32::from_be_bytes([a, b, c, d]) }
    }

    fn shard(&self, key: Key<'_>) -> &RwLock<HashTable<Indexed>> {
        let [first, ..] = &*self.shards;
        &self.shards.get(shard_of(key.hash)).unwrap_or(first).0
    }

    fn write<T>(&self, key: Key<'_>, write: impl FnOnce(&mut HashTable<Indexed>) -> T) -> T {
        write(&mut self.shard(key).write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `read` with the resource, while its shard is locked.
    pub(super) fn with<T>(&self, key: Key<'_>, read: impl FnOnce(Option<&Arc<Resource>>) -> T) -> T {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        read(shard.find(key.spread(), |entry| entry.is(key)).map(|entry| &entry.resource))
    }

    pub(super) fn get(&self, key: Key<'_>) -> Option<Arc<Resource>> {
        self.with(key, |found| Some(Arc::clone(found?)))
    }

    /// Replaces a resource, or inserts it with a new slot; returns its slot and the previous resource.
    pub(super) fn put(
        &self,
        key: Key<'_>,
        resource: Arc<Resource>,
        slot: impl FnOnce() -> Slot,
    ) -> (Slot, Option<Arc<Resource>>) {
        self.write(key, |table| match table.entry(key.spread(), |entry| entry.is(key), Indexed::spread) {
            Entry::Occupied(mut there) => {
                // With its own text, which the caller made with the resource: mostly both are in one page of memory.
                let there = there.get_mut();
                let before = mem::replace(there, Indexed::new(resource, there.slot, key.hash));
                (before.slot, Some(before.resource))
            }
            Entry::Vacant(nothing) => {
                let slot = slot();
                nothing.insert(Indexed::new(resource, slot, key.hash));
                (slot, None)
            }
        })
    }

    /// Removes a resource; returns its slot and the resource.
    pub(super) fn take(&self, key: Key<'_>) -> Option<(Slot, Arc<Resource>)> {
        self.write(key, |table| {
            let found = table.find_entry(key.spread(), |entry| entry.is(key)).ok()?;
            let (Indexed { resource, slot, .. }, _) = found.remove();
            if table.capacity() > 64 && table.len() < table.capacity() / 4 {
                table.shrink_to(table.len() * 2, Indexed::spread);
            }
            Some((slot, resource))
        })
    }

    /// Changes the slot of a resource.
    pub(super) fn renumber(&self, key: Key<'_>, slot: Slot) {
        self.write(key, |table| {
            if let Some(entry) = table.find_mut(key.spread(), |entry| entry.is(key)) {
                entry.slot = slot;
            }
        });
    }

    /// Drops the content. In the order of the hashes each resource is far from the one before, and the change of a count waits for
    /// all accesses before it: reading a few resources ahead lets these accesses overlap.
    pub(super) fn free(mut self) {
        let mut near = Vec::with_capacity(AHEAD);
        for shard in &mut *self.shards {
            let mut entries = mem::take(shard.table()).into_iter();
            loop {
                near.extend(entries.by_ref().take(AHEAD));
                if near.is_empty() {
                    break;
                }
                for Indexed { text, resource, .. } in &near {
                    black_box((text.as_bytes().first(), Arc::strong_count(resource)));
                }
                near.clear();
            }
        }
    }

    /// Exchanges the content of two indexes of the same hashes. Of this one, no reader sees a part of each content.
    pub(super) fn swap(&self, other: &mut Self) {
        let mut locked: Vec<_> =
            self.shards.iter().map(|shard| shard.0.write().unwrap_or_else(PoisonError::into_inner)).collect();
        for (shard, other) in locked.iter_mut().zip(&mut *other.shards) {
            mem::swap(&mut **shard, other.table());
        }
    }
}
