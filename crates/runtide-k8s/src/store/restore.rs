//! Snapshots, of all kinds at one version; and restoring them, one apply after the other.

use std::{collections::HashSet, sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{
        Precondition, Resource, ResourceRef, Revision, Selector, StoreSnapshotReader, StoreSnapshotSeal,
        StoreSnapshotWriter,
    },
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    Shared,
    apply::{Write, is_foreign},
    form::declared,
    read::{At, PAGE, Query},
};

const SNAPSHOT: &str = "k8s.store.snapshot";
const RESTORE: &str = "k8s.store.restore";

/// Pause before a kind that was just declared is asked for again.
const SERVED_SOON: Duration = Duration::from_millis(200);
/// Most refusals that an error names.
const MOST_NAMED: usize = 16;

/// Kinds that others need before they can be applied, in this order.
const FIRST: [(&str, &str); 2] = [("", "Namespace"), ("apiextensions.k8s.io", "CustomResourceDefinition")];

fn rank(object: &ResourceRef) -> usize {
    FIRST.iter().position(|kind| *kind == (object.group(), object.kind())).unwrap_or(FIRST.len())
}

/// A resource that is to be restored.
struct Planned {
    resource: Arc<Resource>,
    object: ResourceRef,
}

impl Shared {
    pub(super) async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.client.check_open(SNAPSHOT)?;
        let selector = Selector::all();
        let narrowed = self.form.narrow(&selector);
        let (scopes, query) = (self.scopes(SNAPSHOT, &narrowed).await?, Query::of(&narrowed));
        let (version, mut items) = self.everything(SNAPSHOT, &selector, &scopes, &query, At::Latest).await?;
        items.sort_by(|one, other| one.reference.cmp(&other.reference));
        let mut writer = StoreSnapshotWriter::begin(out, Revision(version), items.len() as u64);
        for resource in &items {
            writer.put(resource).await?;
        }
        writer.seal().await
    }

    pub(super) async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        self.client.check_open(RESTORE)?;
        // All of it is read and verified before anything is changed.
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut planned = Vec::new();
        while let Some(resource) = reader.next().await? {
            let object = self.form.object(&resource.reference)?;
            planned.push(Planned { resource, object });
        }
        planned.sort_by(|one, other| (rank(&one.object), &one.object).cmp(&(rank(&other.object), &other.object)));
        self.try_out(&planned).await?;
        for one in &planned {
            self.restore_one(one, false).await?;
        }
        self.delete_others(&planned).await?;
        let narrowed = self.form.narrow(&Selector::all());
        let scopes = self.scopes(RESTORE, &narrowed).await?;
        Ok(Revision(self.present(RESTORE, &scopes, &Query::of(&narrowed)).await?))
    }

    /// Has the server judge every apply without carrying it out. What cannot be judged yet, since its kind or its namespace is in the
    /// snapshot itself, is not.
    async fn try_out(&self, planned: &[Planned]) -> Result<()> {
        let (mut refused, mut first) = (Vec::new(), None);
        for one in planned {
            match self.restore_one(one, true).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_foreign(&error) || error.kind() == ErrorKind::InvalidInput => {
                    refused.push(one.resource.reference.to_string());
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(first) = first else { return Ok(()) };
        let count = refused.len();
        refused.truncate(MOST_NAMED);
        let message = format!("{count} resources would be refused, and nothing was changed: {}", first.message());
        let mut error = Error::new(first.kind(), RESTORE, message).with_context("resources", refused.join(", "));
        if let Some(fields) = first.fact(crate::status::FIELDS) {
            error = error.with_context(crate::status::FIELDS, fields);
        }
        Err(error)
    }

    async fn restore_one(&self, one: &Planned, is_dry: bool) -> Result<()> {
        let reference = &one.resource.reference;
        let mut declared = declared(&one.object, &self.form.write(reference, one.resource.written())?)?;
        // They are those of the objects from before, and so are the owners, which have other uids now (trap K26).
        (declared.uid, declared.revision) = (None, None);
        declared.body.remove("status");
        if let Some(Value::Object(metadata)) = declared.body.get_mut("metadata") {
            metadata.remove("ownerReferences");
        }
        let end = Instant::now() + self.limit();
        loop {
            let kind = match self.kind(RESTORE, &one.object, declared.version.as_deref()).await {
                // A kind that was declared a moment ago is served soon (trap K23).
                Err(error) if error.kind() == ErrorKind::NotFound && !is_dry && Instant::now() < end => {
                    tokio::time::sleep(SERVED_SOON).await;
                    continue;
                }
                kind => kind?,
            };
            let write = Write {
                kind,
                object: one.object.clone(),
                declared: declared.clone(),
                force: self.options.force,
                is_dry,
            };
            match self.write(reference, &write, Precondition::None).await {
                Err(error) if error.kind() == ErrorKind::NotFound && !is_dry && Instant::now() < end => {
                    tokio::time::sleep(SERVED_SOON).await;
                }
                done => return done.map(drop),
            }
        }
    }

    /// Deletes what this field manager applied and the snapshot does not have.
    async fn delete_others(&self, planned: &[Planned]) -> Result<()> {
        let kept: HashSet<&ResourceRef> = planned.iter().map(|one| &one.object).collect();
        let narrowed = self.form.narrow(&Selector::all());
        let query = Query::of(&narrowed);
        let mut others = Vec::new();
        for scope in self.scopes(RESTORE, &narrowed).await? {
            let (mut next, mut version) = (None, None);
            loop {
                let at = version.map_or(At::Latest, At::Exactly);
                let listed = self.list_page(RESTORE, &scope, &query, at, PAGE, next.as_deref()).await?;
                version.get_or_insert(listed.version);
                let ours = listed.objects.into_iter().filter(|object| {
                    object.applied_by(&self.options.field_manager).is_some()
                        && !object.is_deleted
                        && !kept.contains(&object.reference)
                });
                others.extend(ours.filter_map(|object| Some(object.resource(&*self.form)?.reference.clone())));
                next = listed.next;
                if next.is_none() {
                    break;
                }
            }
        }
        for reference in others {
            match self.delete(&reference, Precondition::None, self.options.propagation).await {
                // A kind may have gone with its declaration.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}
