//! What the driver knows: rows by id, of which anybody can have a picture without copying them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{Instance, InstanceId};

/// A write copies the one shard it touches, if a picture still holds that shard: a 256th of the rows, as pointers.
const SHARDS: usize = 256;

/// Sorted by hash, then id.
type Shard = Arc<Vec<Row>>;

/// A row has its id's hash beside the pointer: a search that had to follow two pointers for each comparison would spend its
/// time waiting for memory.
#[derive(Debug, Clone)]
struct Row {
    hash: u64,
    instance: Arc<Instance>,
}

/// Rows by id.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    shards: Arc<Vec<Shard>>,
    len: usize,
}

/// The rows as they were at one moment, shared with the cache.
pub(super) type Picture = Cache;

impl Default for Cache {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Shard::default(); SHARDS]), len: 0 }
    }
}

fn hash_of(id: &InstanceId) -> u64 {
    let mut hasher = DefaultHasher::new(); // its keys are fixed: the order of rows repeats
    id.hash(&mut hasher);
    hasher.finish()
}

fn shard_of(hash: u64) -> usize {
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

fn find(rows: &[Row], hash: u64, id: &InstanceId) -> Result<usize, usize> {
    rows.binary_search_by(|row| row.hash.cmp(&hash).then_with(|| row.instance.id.cmp(id)))
}

impl Cache {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        let hash = hash_of(id);
        let rows = self.shards.get(shard_of(hash))?;
        rows.get(find(rows, hash, id).ok()?).map(|row| &row.instance)
    }

    /// Gives what stood there.
    pub(super) fn insert(&mut self, instance: Arc<Instance>) -> Option<Arc<Instance>> {
        let hash = hash_of(&instance.id);
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(hash))?;
        let rows = Arc::make_mut(shard);
        match find(rows, hash, &instance.id) {
            Ok(at) => rows.get_mut(at).map(|row| std::mem::replace(&mut row.instance, instance)),
            Err(at) => {
                rows.insert(at, Row { hash, instance });
                self.len += 1;
                None
            }
        }
    }

    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<Arc<Instance>> {
        let hash = hash_of(id);
        let at = find(self.shards.get(shard_of(hash))?, hash, id).ok()?;
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(hash))?;
        self.len -= 1;
        Some(Arc::make_mut(shard).remove(at).instance)
    }

    /// The rows as they are now: no row is copied.
    pub(super) fn picture(&self) -> Picture {
        self.clone()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.shards.iter().flat_map(|rows| rows.iter().map(|row| &row.instance))
    }

    /// The first row at or behind a place, and the place behind it: how a reader walks a picture at his own pace.
    pub(super) fn row_at(&self, place: Place) -> Option<(&Arc<Instance>, Place)> {
        let Place { mut shard, mut row } = place;
        loop {
            let rows = self.shards.get(shard)?;
            if let Some(found) = rows.get(row) {
                return Some((&found.instance, Place { shard, row: row + 1 }));
            }
            (shard, row) = (shard + 1, 0);
        }
    }
}

/// Where a reader of a picture stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    shard: usize,
    row: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InstanceKind, InstanceState};

    fn instance(n: usize) -> Arc<Instance> {
        Arc::new(Instance::new("b", format!("id-{n}"), "name", InstanceKind::Container, InstanceState::Running))
    }

    #[test]
    fn a_picture_stays_as_it_was() {
        let mut cache = Cache::default();
        for n in 0..1_000 {
            cache.insert(instance(n));
        }
        let picture = cache.picture();
        for n in 0..1_000 {
            assert!(cache.remove(&InstanceId::from(format!("id-{n}"))).is_some());
        }
        assert_eq!((cache.len(), cache.iter().count()), (0, 0));
        assert_eq!((picture.len(), picture.iter().count()), (1_000, 1_000));
        assert!(picture.get(&InstanceId::from("id-7")).is_some());
    }

    #[test]
    fn walking_by_place_meets_every_row_once() {
        let mut cache = Cache::default();
        for n in 0..1_000 {
            cache.insert(instance(n));
            cache.insert(instance(n));
        }
        let (mut place, mut ids) = (Place::default(), std::collections::BTreeSet::new());
        while let Some((row, next)) = cache.row_at(place) {
            assert!(ids.insert(row.id.clone()));
            place = next;
        }
        assert_eq!((ids.len(), cache.len()), (1_000, 1_000));
    }
}
