//! The API server as a store: [`KubeStore`].

mod apply;
mod call;
mod catalog;
mod delete;
mod form;
mod object;
mod options;
mod pages;
mod read;
mod restore;
mod watch;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, Result,
    store::{
        Applied, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision, Selector,
        StoreBackend, StoreSnapshotSeal, StoreStats, StoreStream, StoreWatchOptions,
    },
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{
    catalog::Catalog,
    read::{At, Query},
};
pub use self::{
    form::{KubeForm, Objects},
    options::{Kinds, KubeStoreOptions, Propagation},
};
use crate::{
    client::Client,
    config::{Config, Namespaces},
};

const GET: &str = "k8s.store.get";
const STATS: &str = "k8s.store.stats";

/// The objects of a cluster as declared resources. A clone is the same store.
///
/// # Behavior
/// * A resource is the object that its reference names: of any group and kind that the server serves, also one that came after the store
///   was made. A kind that is in namespaces needs one in the reference ([`reference`](Self::reference) fills it in as kubectl does).
/// * `apply` is server-side apply under [`KubeStoreOptions::field_manager`]: fields that an earlier apply had and this one has not are
///   removed, and those of other managers stay. A field that another manager owns with another value is a `Conflict` whose context names
///   it (`fields`), unless [`KubeStoreOptions::force`] is set. `Unchanged` is the server's word. A `uid` or `resourceVersion` in the
///   document is a condition too.
/// * A body is the object as the server has it, in JSON, without what is the server's own: `status`, and of its metadata
///   `managedFields`, `resourceVersion`, `uid`, `creationTimestamp`, `deletionTimestamp`, `deletionGracePeriodSeconds`, `generation` and
///   `selfLink`. It has the defaults that the server filled in, and fields of other managers. [`live`](Self::live) has all of it.
/// * A revision is the object's `resourceVersion`, and the store's is etcd's. The status of an object is a part of it: a change of it has a
///   revision, and a watcher gets `Modified` with an equal body.
/// * A delete returns once the server has accepted it; [`wait_until_gone`](Self::wait_until_gone) waits for finalizers. Until then the
///   object is there.
/// * All pages of a listing show one version. That is one point in time for kinds that the API server keeps in one etcd, as it does unless
///   it is told otherwise.
/// * A watch of one kind is in the order of its changes. With several kinds each has its own order, and only a `Bookmark`'s revision is a
///   position to go on from. A kind that comes or goes is a `Reset`, at most half a minute later.
/// * A snapshot has all kinds of the store, [`KubeStoreOptions::kinds`], secrets included. A restore is one apply for each resource, and not
///   atomic: it is tried out first, so that what the server refuses is refused before anything is changed. It deletes only what this field
///   manager had applied. Watchers get the changes one by one, and no `Reset`.
///
/// # Errors
/// The server's refusals, with its own message: `NotFound` for an unknown kind and a missing namespace, `InvalidInput` for a version that is
/// not served, an unknown or immutable field and a body that is too long, `PermissionDenied` for a missing right and an exceeded quota,
/// `RateLimited` with the pause that it asked for. A write without an answer is looked up in the server's history; where that does not tell,
/// it is `Timeout` with `outcome=unknown`, and a create is never sent twice.
///
/// ```no_run
/// # async fn example() -> runtide_core::Result<()> {
/// use runtide_core::store::{Document, Precondition, StoreBackend};
/// use runtide_k8s::{Config, KubeStore, KubeStoreOptions};
///
/// let store = KubeStore::new(Config::from_env()?, KubeStoreOptions::default().with_field_manager("shop"))?;
/// let map = Document::json(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "b"}}"#);
/// let reference = store.reference(&map).await?;
/// store.apply(&reference, map, Precondition::Absent).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct KubeStore(Arc<Shared>);

/// State that the clones share.
pub(crate) struct Shared {
    client: Client,
    name: String,
    options: KubeStoreOptions,
    form: Box<dyn KubeForm>,
    catalog: Catalog,
    subscribers: Arc<AtomicU64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.client.close();
    }
}

impl Shared {
    /// Longest time of one call with all its attempts: each has the deadline of a request.
    fn limit(&self) -> Duration {
        self.client.config().deadline.saturating_mul(2)
    }

    /// The namespace of a document that names none.
    fn namespace(&self) -> &str {
        match &self.client.config().namespaces {
            Namespaces::Only(names) => names.first().map_or("default", String::as_str),
            Namespaces::All => "default",
        }
    }

    async fn get(&self, reference: &ResourceRef) -> Result<Option<object::Object>> {
        self.client.check_open(GET)?;
        let object = self.form.object(reference)?;
        let kind = self.kind(GET, &object, None).await?;
        match self.look(GET, &kind, &object).await {
            // The kind is served in another form now, or no longer: it is asked for again.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let kind = self.kind(GET, &object, None).await?;
                Ok(self.look(GET, &kind, &object).await?.object)
            }
            look => Ok(look?.object),
        }
    }
}

impl KubeStore {
    /// Makes a store of objects. The first call connects, reads the files of the access, and runs its plugin.
    ///
    /// # Errors
    /// `InvalidInput` with the reason, if the configuration can never work.
    pub fn new(config: Config, options: KubeStoreOptions) -> Result<Self> {
        Self::with_form(config, options, Objects)
    }

    /// The same, with another form of the resources in the cluster.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_form(config: Config, options: KubeStoreOptions, form: impl KubeForm) -> Result<Self> {
        options.validate()?;
        let client = Client::new(config)?;
        let name = client.id().to_string();
        let shared = Shared {
            client,
            name,
            options,
            form: Box::new(form),
            catalog: Catalog::default(),
            subscribers: Arc::default(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The reference of a document, as kubectl reads it: a kind that is in namespaces, and names none, is in the one of the configuration,
    /// else in `default`.
    ///
    /// # Errors
    /// As [`ResourceRef::from_document`]; `NotFound` for a kind that the server does not serve.
    pub async fn reference(&self, document: &Document) -> Result<ResourceRef> {
        const REFERENCE: &str = "k8s.store.reference";
        self.0.client.check_open(REFERENCE)?;
        let named = ResourceRef::from_document(document)?;
        let kind = self.0.catalog.find(&self.0.client, REFERENCE, &named, None).await?;
        if kind.is_namespaced && named.namespace().is_none() {
            return ResourceRef::new(named.group(), named.kind(), self.0.namespace(), named.name());
        }
        Ok(named)
    }

    /// As [`apply`](StoreBackend::apply), and takes fields that other managers own from them: `kubectl apply --server-side
    /// --force-conflicts`.
    ///
    /// # Errors
    /// As [`apply`](StoreBackend::apply), but for the fields of other managers.
    ///
    /// # Cancel safety
    /// A dropped call may still happen, whole.
    pub async fn apply_by_force(
        &self,
        reference: &ResourceRef,
        document: Document,
        precondition: Precondition,
    ) -> Result<Applied> {
        self.0.apply(reference, document, precondition, true).await
    }

    /// As [`delete`](StoreBackend::delete), with another fate of what the object owns than the options say.
    ///
    /// # Errors
    /// As [`delete`](StoreBackend::delete).
    ///
    /// # Cancel safety
    /// A dropped call may still happen, whole.
    pub async fn delete_with(
        &self,
        reference: &ResourceRef,
        precondition: Precondition,
        propagation: Propagation,
    ) -> Result<Option<Revision>> {
        self.0.delete(reference, precondition, propagation).await
    }

    /// Waits until the object that is there now is gone: until its finalizers are done. Returns at once if it is absent; another object
    /// that comes under its name is not waited for. It asks for no deletion.
    ///
    /// # Errors
    /// `Timeout` after twice the configuration's deadline, with the `finalizers` that hold it; otherwise as [`get`](StoreBackend::get).
    ///
    /// # Cancel safety
    /// Can be dropped at any time.
    pub async fn wait_until_gone(&self, reference: &ResourceRef) -> Result<()> {
        self.0.wait_until_gone(reference).await
    }

    /// The object as the server shows it, with its status and all of its metadata but `managedFields`; `None` if it is absent.
    ///
    /// # Errors
    /// As [`get`](StoreBackend::get).
    pub async fn live(&self, reference: &ResourceRef) -> Result<Option<Document>> {
        let object = self.0.get(reference).await?;
        Ok(object.map(|mut object| {
            if let Some(Value::Object(metadata)) = object.body.get_mut("metadata") {
                metadata.remove("managedFields");
            }
            Document::json(Value::Object(object.body).to_string())
        }))
    }

    /// Forgets which kinds the server serves: the next call asks again. A kind that is unknown is asked for again by itself.
    pub fn rediscover(&self) {
        self.0.catalog.clear();
    }

    /// Ends the calls that are under way, and every watch; later ones are `Cancelled`.
    pub fn close(&self) {
        self.0.client.close();
    }
}

#[async_trait]
impl StoreBackend for KubeStore {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        self.0.apply(reference, document, precondition, self.0.options.force).await
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        let object = self.0.get(reference).await?;
        match (object.and_then(|object| object.resource(&*self.0.form)), format) {
            (Some(resource), Some(format)) => resource.convert(format).map(Some),
            (resource, _) => Ok(resource),
        }
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        self.0.list(selector, options).await
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        self.0.delete(reference, precondition, self.0.options.propagation).await
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        watch::open(&self.0, selector, options).await
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.0.snapshot(out).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        self.0.restore(from).await
    }

    /// The server does not say how far its history reaches: `oldest` is the present revision.
    async fn stats(&self) -> Result<StoreStats> {
        let shared = &self.0;
        shared.client.check_open(STATS)?;
        let narrowed = shared.form.narrow(&Selector::all());
        let (scopes, query) = (shared.scopes(STATS, &narrowed).await?, Query::of(&narrowed));
        let (mut count, mut version) = (0_u64, None);
        for scope in &scopes {
            let at = version.map_or(At::Latest, At::Exactly);
            let mut listed = shared.list_page(STATS, scope, &query, at, 1, None).await?;
            version.get_or_insert(listed.version);
            loop {
                count += listed.objects.len() as u64;
                let Some(next) = listed.next else { break };
                if let Some(rest) = listed.rest {
                    count += rest;
                    break;
                }
                listed = shared.list_page(STATS, scope, &query, at, read::PAGE, Some(&next)).await?;
            }
        }
        let version = match version {
            Some(version) => version,
            None => shared.present(STATS, &[], &query).await?,
        };
        let subscribers = shared.subscribers.load(Ordering::Relaxed);
        Ok(StoreStats::new(count, subscribers, Revision(version), Revision(version)))
    }
}

impl fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KubeStore").field(&self.name()).finish()
    }
}
