//! Which kinds of which namespaces there are.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use runtide_core::store::{Resource, ResourceRef, Selector};

use super::collection::Collection;

/// The scopes that have something in them, by [`ResourceRef::scope`].
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// For reads and writes of one resource: a tree would compare half a dozen keys for each.
    found: HashMap<Arc<str>, Arc<Scope>>,
    /// For listings.
    ordered: BTreeMap<Arc<str>, Arc<Scope>>,
}

/// A hash of a scope's key. Should two scopes have the same, watchers of one are woken for the other, and no more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScopeNumber(u64);

impl ScopeNumber {
    fn of(key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Of the only scope that a selector takes; `None` if it takes more.
    pub(super) fn only(selector: &Selector) -> Option<Self> {
        only(selector).map(|key| Self::of(&key))
    }
}

/// The key of the only scope that a selector takes.
fn only(selector: &Selector) -> Option<String> {
    let (group, kind, namespace) = (selector.group.as_ref()?, selector.kind.as_ref()?, selector.namespace.as_ref()?);
    Some(format!("{group}/{kind}/{namespace}/"))
}

/// One kind in one namespace, with a lock of its own.
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

    /// Looks at the resources in the order of their names.
    pub(super) fn in_order(&self, look: impl FnOnce(&Collection)) {
        for _ in 0..3 {
            let as_it_is = self.read();
            if as_it_is.is_in_order() {
                return look(&as_it_is);
            }
            drop(as_it_is);
            // Writers wait while the order is made, and not while somebody looks.
            self.write().put_in_order();
        }
        let mut ordered = self.write();
        ordered.put_in_order();
        look(&ordered);
    }
}

/// A tree that is made of resources as they come, in the order of their references.
#[derive(Debug, Default)]
pub(super) struct Growing {
    tree: Tree,
    /// Those of the scope that comes just now.
    same: Vec<Arc<Resource>>,
    count: u64,
}

impl Growing {
    pub(super) fn push(&mut self, resource: Arc<Resource>) {
        if self.same.last().is_some_and(|last| last.reference.scope() != resource.reference.scope()) {
            self.put_down();
        }
        self.count += 1;
        self.same.push(resource);
    }

    fn put_down(&mut self) {
        if let Some(first) = self.same.first() {
            let key = first.reference.scope().into();
            self.tree.insert(key, Collection::of(self.same.drain(..)));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn done(mut self) -> Tree {
        self.put_down();
        self.tree
    }
}

impl Tree {
    /// Of resources in the order of their references.
    pub(super) fn of(resources: Vec<Arc<Resource>>) -> Self {
        let mut growing = Growing::default();
        for resource in resources {
            growing.push(resource);
        }
        growing.done()
    }

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

    /// Lets go of a scope if there is nothing in it. Whoever writes holds the tree, so nobody is in it now.
    pub(super) fn tidy(&mut self, key: &str) {
        if self.found.get(key).is_some_and(|scope| scope.read().is_empty()) {
            self.found.remove(key);
            self.ordered.remove(key);
        }
    }

    /// What is in it, in order.
    pub(super) fn into_rows(self) -> Vec<Arc<Resource>> {
        let mut rows = Vec::new();
        for scope in self.ordered.into_values() {
            scope.in_order(|collection| rows.extend(collection.behind(None).cloned()));
        }
        rows
    }

    /// Those that may have selected resources behind a reference, in order.
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
