//! The store that a reflector of kube's keeps.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex},
};

use kube::{
    Resource,
    core::ObjectMeta,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use runtide_benches::store::{Contender, KIND, Object};

/// A resource whose body is kept as it came, which is less than to read it into a type.
#[derive(Clone, Debug)]
pub struct Held {
    metadata: ObjectMeta,
    body: Vec<u8>,
}

impl Resource for Held {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.1.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        KIND.0.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "deployments".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// One that was found.
#[derive(Debug)]
pub struct Found(Arc<Held>);

impl AsRef<[u8]> for Found {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

/// The store that a reflector of kube's keeps.
pub struct Reflector {
    store: Store<Held>,
    writer: Mutex<Writer<Held>>,
}

impl fmt::Debug for Reflector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflector").finish_non_exhaustive()
    }
}

impl Contender for Reflector {
    const NAME: &'static str = "kube reflector";
    const NOTE: &'static str = "A cache: its only writer copies the events of a watch. One lock for everything, which a listing \
                                walks. It has no revisions of its own, and no snapshots.";
    const SNAPSHOTS: bool = false;
    const LISTS: usize = 5;

    type Key = ObjectRef<Held>;
    type Namespace = String;
    type Body = Event<Held>;
    type Found = Found;

    fn new() -> Self {
        let (store, mut writer) = kube::runtime::reflector::store();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        Self { store, writer: Mutex::new(writer) }
    }

    fn key(namespace: &str, name: &str) -> ObjectRef<Held> {
        ObjectRef::new(name).within(namespace)
    }

    fn namespace(namespace: &str) -> String {
        namespace.to_owned()
    }

    fn body(object: Object) -> Event<Held> {
        let metadata =
            ObjectMeta { name: Some(object.name), namespace: Some(object.namespace), ..ObjectMeta::default() };
        Event::Apply(Held { metadata, body: object.body })
    }

    async fn apply(&self, _: &ObjectRef<Held>, body: Event<Held>) {
        self.writer.lock().expect("no panic").apply_watcher_event(&body);
    }

    async fn get(&self, key: &ObjectRef<Held>) -> Option<Found> {
        self.store.get(key).map(Found)
    }

    async fn list(&self, namespace: &String) -> Vec<Found> {
        let of = |held: &Held| held.metadata.namespace.as_ref() == Some(namespace);
        self.store.state_filter(of).into_iter().map(Found).collect()
    }

    async fn count(&self) -> usize {
        self.store.len()
    }
}
