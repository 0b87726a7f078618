//! Which kinds of which namespaces there are.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use runtide_core::{Resource, ResourceRef, Selector};

use super::shelf::Shelf;

/// The scopes that have something in them, by [`ResourceRef::scope`].
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// For reads and writes of one resource: a tree would compare half a dozen keys for each.
    found: HashMap<Arc<str>, Arc<Scope>>,
    /// For listings.
    ordered: BTreeMap<Arc<str>, Arc<Scope>>,
}

/// One kind in one namespace, with a lock of its own.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) key: Arc<str>,
    shelf: RwLock<Shelf>,
}

impl Scope {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the resources in the order of their names.
    pub(super) fn in_order(&self, look: impl FnOnce(&Shelf)) {
        let as_it_is = self.read();
        if as_it_is.is_in_order() {
            return look(&as_it_is);
        }
        drop(as_it_is);
        let mut ordered = self.write();
        ordered.put_in_order();
        look(&ordered);
    }
}

impl Tree {
    /// Of resources in the order of their references.
    pub(super) fn of(resources: Vec<Arc<Resource>>) -> Self {
        let mut tree = Self::default();
        let mut resources = resources.into_iter().peekable();
        while let Some(first) = resources.next() {
            let mut same = vec![first];
            let scope = |one: &Arc<Resource>| one.reference.scope().to_owned();
            let key: Arc<str> = same.first().map(scope).unwrap_or_default().into();
            while let Some(next) = resources.next_if(|next| next.reference.scope() == &*key) {
                same.push(next);
            }
            tree.insert(key, Shelf::of(same.into_iter()));
        }
        tree
    }

    fn insert(&mut self, key: Arc<str>, shelf: Shelf) {
        let scope = Arc::new(Scope { key: Arc::clone(&key), shelf: RwLock::new(shelf) });
        self.ordered.insert(Arc::clone(&key), Arc::clone(&scope));
        self.found.insert(key, scope);
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Scope>> {
        self.found.get(key)
    }

    pub(super) fn make(&mut self, key: &str) {
        if !self.found.contains_key(key) {
            self.insert(key.into(), Shelf::default());
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
            scope.in_order(|shelf| rows.extend(shelf.behind(None).cloned()));
        }
        rows
    }

    /// Those that may have selected resources behind a reference, in order.
    pub(super) fn scopes(&self, selector: &Selector, behind: Option<&ResourceRef>) -> Vec<Arc<Scope>> {
        if let (Some(group), Some(kind), Some(namespace)) = (&selector.group, &selector.kind, &selector.namespace) {
            let key = format!("{group}/{kind}/{namespace}/");
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
