//! The index of scopes: one for each kind in each namespace that has resources.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use runtide_core::store::{Resource, ResourceRef, Selector};

use super::{
    collection::Collection,
    index::{Filling, Index, Slot},
};

/// The scopes that have resources, by [`ResourceRef::scope`].
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// For reads and writes of one resource, for each of which an ordered map would compare half a dozen keys.
    found: HashMap<Arc<str>, Arc<Scope>>,
    /// The same scopes in the order of their keys, for listings.
    ordered: BTreeMap<Arc<str>, Arc<Scope>>,
}

/// Hash of a scope's key. If two scopes collide, the watchers of one are also woken for the other, which is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScopeNumber(u64);

impl ScopeNumber {
    fn of(key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The number of the only scope that a selector takes; `None` if it takes more.
    pub(super) fn only(selector: &Selector) -> Option<Self> {
        only(selector).map(|key| Self::of(&key))
    }
}

/// The key of the only scope that a selector takes; `None` if it takes more.
fn only(selector: &Selector) -> Option<String> {
    let (group, kind, namespace) = (selector.group.as_ref()?, selector.kind.as_ref()?, selector.namespace.as_ref()?);
    Some(format!("{group}/{kind}/{namespace}/"))
}

/// One kind in one namespace, with its own lock.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) key: Arc<str>,
    pub(super) number: ScopeNumber,
    collection: RwLock<Collection>,
}

impl Scope {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Collection> {
        self.collection.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Collection> {
        self.collection.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `read` with the collection, sorted by name.
    pub(super) fn in_order(&self, read: impl FnOnce(&Collection)) {
        for _ in 0..3 {
            let collection = self.read();
            if collection.is_in_order() {
                return read(&collection);
            }
            drop(collection);
            // Writers wait for the sort, and not for the reader.
            self.write().put_in_order();
        }
        let mut ordered = self.write();
        ordered.put_in_order();
        read(&ordered);
    }
}

/// Builds a tree and its index from resources that come in the order of their references, each once.
#[derive(Debug)]
pub(super) struct Growing {
    tree: Tree,
    index: Filling,
    /// The resources of the present scope, until the next one begins, by slot.
    same: Vec<Option<Arc<Resource>>>,
    count: u64,
}

impl Growing {
    /// `index`: the one that is to be replaced.
    pub(super) fn new(index: &Index) -> Self {
        Self { tree: Tree::default(), index: Filling::new(index.like()), same: Vec::new(), count: 0 }
    }

    pub(super) fn of(index: &Index, resources: Vec<Arc<Resource>>) -> Self {
        let mut growing = Self::new(index);
        for resource in resources {
            growing.push(resource);
        }
        growing
    }

    pub(super) fn push(&mut self, resource: Arc<Resource>) {
        if self
            .same
            .last()
            .and_then(Option::as_ref)
            .is_some_and(|last| last.reference.scope() != resource.reference.scope())
        {
            self.finish_scope();
        }
        // The memory for more slots than that is used up long before.
        let slot = Slot::try_from(self.same.len()).unwrap_or(Slot::MAX);
        // While it is in the L1 cache.
        self.index.push(&resource, slot);
        self.count += 1;
        self.same.push(Some(resource));
    }

    fn finish_scope(&mut self) {
        if let Some(Some(first)) = self.same.first() {
            let key = first.reference.scope().into();
            // A copy, which has no more capacity than it needs.
            self.tree.insert(key, Collection::of(self.same.drain(..).collect()));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn done(mut self) -> (Tree, Index) {
        self.finish_scope();
        (self.tree, self.index.done())
    }
}

impl Tree {
    fn insert(&mut self, key: Arc<str>, resources: Collection) {
        let (number, resources) = (ScopeNumber::of(&key), RwLock::new(resources));
        let scope = Arc::new(Scope { key: Arc::clone(&key), number, collection: resources });
        self.ordered.insert(Arc::clone(&key), Arc::clone(&scope));
        self.found.insert(key, scope);
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Scope>> {
        self.found.get(key)
    }

    pub(super) fn make(&mut self, key: &str) {
        if !self.found.contains_key(key) {
            self.insert(key.into(), Collection::default());
        }
    }

    /// Removes a scope if it is empty. No writer is in it: each write holds the tree's lock for reading.
    pub(super) fn tidy(&mut self, key: &str) {
        if self.found.get(key).is_some_and(|scope| scope.read().is_empty()) {
            self.found.remove(key);
            self.ordered.remove(key);
        }
    }

    /// The resources in the order of their references.
    pub(super) fn into_rows(self) -> Vec<Arc<Resource>> {
        let mut rows = Vec::new();
        for scope in self.ordered.into_values() {
            scope.in_order(|collection| rows.extend(collection.behind(None).cloned()));
        }
        rows
    }

    /// The scopes that may have selected resources after a reference, in the order of their keys.
    pub(super) fn scopes(&self, selector: &Selector, behind: Option<&ResourceRef>) -> Vec<Arc<Scope>> {
        if let Some(key) = only(selector) {
            let scope =
                self.found.get(key.as_str()).filter(|_| behind.is_none_or(|behind| behind.scope() <= key.as_str()));
            return scope.into_iter().cloned().collect();
        }
        let is = |wanted: Option<&String>, part: &str| wanted.is_none_or(|wanted| wanted == part);
        let from = behind.map_or("", ResourceRef::scope);
        self.ordered
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .filter(|(key, _)| {
                let mut parts = key.split('/');
                let mut part = || parts.next().unwrap_or_default();
                is(selector.group.as_ref(), part())
                    && is(selector.kind.as_ref(), part())
                    && is(selector.namespace.as_ref(), part())
            })
            .map(|(_, scope)| Arc::clone(scope))
            .collect()
    }
}
