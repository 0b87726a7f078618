//! Namespace and name of each pod that was seen: the API finds a pod by these, and an id is its uid.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use runtide_core::backend::lock;

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// Pods by their uid.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<HashMap<Arc<str>, Address>>);

impl Index {
    pub(crate) fn get(&self, uid: &str) -> Option<Address> {
        lock(&self.0).get(uid).cloned()
    }

    pub(crate) fn insert(&self, uid: &str, namespace: &str, name: &str) {
        let mut known = lock(&self.0);
        if !known.get(uid).is_some_and(|address| &*address.name == name && &*address.namespace == namespace) {
            known.insert(uid.into(), Address { namespace: namespace.into(), name: name.into() });
        }
    }

    pub(crate) fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Forgets the pods that a complete listing did not show.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.0).retain(|uid, _| is_there(uid));
    }
}
