//! The driver's rows by id. A view of them is taken without copying a row.

use std::{
    cmp::Ordering,
    hash::{DefaultHasher, Hash, Hasher},
    iter::Peekable,
    slice,
    sync::Arc,
};

use crate::instance::{Instance, InstanceId};

/// A write copies the one shard it touches, if a view still holds that shard: a 256th of the rows, as pointers.
const SHARDS: usize = 256;

/// Sorted by hash, then id.
type Shard = Arc<Vec<Row>>;

/// A row has its id's hash next to the pointer: a search that follows two pointers for each comparison spends its time
/// waiting for memory.
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
pub(super) type View = Cache;

impl Row {
    fn new(instance: Arc<Instance>) -> Self {
        Self { hash: hash_of(&instance.id), instance }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.instance.id.cmp(&other.instance.id))
    }
}

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

    /// Returns the row that it replaces.
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

    /// Each row with the other's row of the same id, side by side: no search, as both have the same order.
    pub(super) fn join<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a Arc<Instance>, Option<&'a Arc<Instance>>)> {
        self.shards.iter().zip(other.shards.iter()).flat_map(|(mine, theirs)| {
            let mut theirs = theirs.iter().peekable();
            mine.iter().map(move |row| (&row.instance, matching(&mut theirs, row)))
        })
    }

    /// The same, to change the rows; their ids must stay.
    pub(super) fn join_mut(&mut self, other: &Self, mut change: impl FnMut(&mut Arc<Instance>, &Arc<Instance>)) {
        for (mine, theirs) in Arc::make_mut(&mut self.shards).iter_mut().zip(other.shards.iter()) {
            let mut theirs = theirs.iter().peekable();
            for row in Arc::make_mut(mine) {
                if let Some(other) = matching(&mut theirs, row) {
                    change(&mut row.instance, other);
                }
            }
        }
    }

    /// The rows as they are now: no row is copied.
    pub(super) fn view(&self) -> View {
        self.clone()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.shards.iter().flat_map(|rows| rows.iter().map(|row| &row.instance))
    }

    /// The first row at or after a position, and the position after it, so that a reader walks a view at its own pace.
    pub(super) fn row_at(&self, position: RowPosition) -> Option<(&Arc<Instance>, RowPosition)> {
        let RowPosition { mut shard, mut row } = position;
        loop {
            let rows = self.shards.get(shard)?;
            if let Some(found) = rows.get(row) {
                return Some((&found.instance, RowPosition { shard, row: row + 1 }));
            }
            (shard, row) = (shard + 1, 0);
        }
    }
}

/// The row of the same id among others in the same order; those before it are skipped.
fn matching<'a>(others: &mut Peekable<slice::Iter<'a, Row>>, row: &Row) -> Option<&'a Arc<Instance>> {
    while others.next_if(|other| other.order(row) == Ordering::Less).is_some() {}
    others.next_if(|other| other.order(row) == Ordering::Equal).map(|other| &other.instance)
}

/// If an id comes twice, the last row counts.
impl FromIterator<Arc<Instance>> for Cache {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        let mut shards: Vec<Vec<Row>> = vec![Vec::new(); SHARDS];
        for row in instances.into_iter().map(Row::new) {
            if let Some(shard) = shards.get_mut(shard_of(row.hash)) {
                shard.push(row);
            }
        }
        for shard in &mut shards {
            shard.sort_by(Row::order);
            shard.dedup_by(|later, earlier| {
                let same = later.order(earlier) == Ordering::Equal;
                if same {
                    std::mem::swap(later, earlier);
                }
                same
            });
        }
        let len = shards.iter().map(Vec::len).sum();
        Self { shards: Arc::new(shards.into_iter().map(Arc::new).collect()), len }
    }
}

/// Position of a reader in a view.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowPosition {
    shard: usize,
    row: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{InstanceKind, InstanceState};

    fn instance(n: usize) -> Arc<Instance> {
        Arc::new(Instance::new("b", format!("id-{n}"), "name", InstanceKind::Container, InstanceState::Running))
    }

    #[test]
    fn a_view_stays_as_it_was() {
        let mut cache = Cache::default();
        for n in 0..1_000 {
            cache.insert(instance(n));
        }
        let view = cache.view();
        for n in 0..1_000 {
            assert!(cache.remove(&InstanceId::from(format!("id-{n}"))).is_some());
        }
        assert_eq!((cache.len(), cache.iter().count()), (0, 0));
        assert_eq!((view.len(), view.iter().count()), (1_000, 1_000));
        assert!(view.get(&InstanceId::from("id-7")).is_some());
    }

    #[test]
    fn rows_made_in_one_go_are_those_made_one_by_one() {
        let mut one_by_one = Cache::default();
        for n in (0..500).chain(200..300) {
            one_by_one.insert(instance(n));
        }
        let at_once: Cache = (0..500).chain(200..300).map(instance).collect();
        assert_eq!(at_once.len(), 500);
        assert!(at_once.iter().eq(one_by_one.iter()), "the same rows in the same order");
        let last = Arc::new(Instance { name: "last".into(), ..Instance::clone(&instance(3)) });
        let twice: Cache = [instance(3), instance(4), Arc::clone(&last)].into_iter().collect();
        assert_eq!((twice.len(), twice.get(&last.id)), (2, Some(&last)));
    }

    #[test]
    fn side_by_side_each_row_meets_its_own() {
        let (evens, mut threes) =
            ((0..600).step_by(2).map(instance), (0..600).step_by(3).map(instance).collect::<Cache>());
        let evens: Cache = evens.collect();
        for (row, other) in threes.join(&evens) {
            assert_eq!(other, evens.get(&row.id));
        }
        assert_eq!(threes.join(&evens).filter(|(_, other)| other.is_some()).count(), 100);
        threes.join_mut(&evens, |row, _| Arc::make_mut(row).generation = 7);
        assert_eq!(threes.iter().filter(|row| row.generation == 7).count(), 100);
    }

    #[test]
    fn iterating_by_position_meets_every_row_once() {
        let mut cache = Cache::default();
        for n in 0..1_000 {
            cache.insert(instance(n));
            cache.insert(instance(n));
        }
        let (mut position, mut ids) = (RowPosition::default(), std::collections::BTreeSet::new());
        while let Some((row, next)) = cache.row_at(position) {
            assert!(ids.insert(row.id.clone()));
            position = next;
        }
        assert_eq!((ids.len(), cache.len()), (1_000, 1_000));
    }
}
