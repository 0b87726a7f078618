//! Deletes, on a condition; and waiting until an object is gone.

use std::sync::Arc;

use runtide_core::{
    ErrorKind, Result,
    store::{Precondition, ResourceRef, Revision},
};
use serde::Serialize;

use super::{
    Shared,
    call::{Call, Failure},
    catalog::Kind,
    object::Object,
    options::Propagation,
    read::{At, PAGE, Query, Report, Scope, is_outage},
};

pub(super) const DELETE: &str = "k8s.store.delete";
const GONE: &str = "k8s.store.wait_until_gone";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions<'a> {
    kind: &'static str,
    api_version: &'static str,
    propagation_policy: &'static str,
    preconditions: Preconditions<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
}

impl Shared {
    pub(super) async fn delete(
        &self,
        reference: &ResourceRef,
        precondition: Precondition,
        propagation: Propagation,
    ) -> Result<Option<Revision>> {
        self.client.check_open(DELETE)?;
        let object = self.form.object(reference)?;
        let kind = self.kind(DELETE, &object, None).await?;
        let mut call = Call::new(DELETE, reference, self.limit());
        // The object that an attempt without an answer was about.
        let mut sent: Option<String> = None;
        loop {
            let look = match call.within(self.look(DELETE, &kind, &object)).await {
                Ok(look) => look,
                Err(error) if is_outage(&error) => {
                    call.wait(Some(error)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // An object that is gone may have been deleted by this call, or by another, also if the next one has its name by now.
            let is_it = |sent: &String| look.object.as_ref().is_some_and(|now| now.uid == *sent);
            if call.is_uncertain && !sent.as_ref().is_some_and(is_it) {
                return Err(call.unknown());
            }
            match self.check(DELETE, reference, &look, precondition, None, None) {
                Err(_) if call.is_uncertain => return Err(call.unknown()),
                checked => checked?,
            }
            let Some(now) = look.object else { return Ok(None) };
            if now.is_deleted {
                // Its deletion was accepted before, and goes on.
                return if call.is_uncertain { Err(call.unknown()) } else { Ok(Some(Revision(now.revision))) };
            }
            let was_uncertain = std::mem::replace(&mut call.is_uncertain, true);
            sent = Some(now.uid.clone());
            match call.within(self.send_delete(&kind, &object, &now, precondition, propagation)).await {
                Ok(()) => {
                    let found = call.within(self.deleted(&kind, &object, &now)).await;
                    return found
                        .map(|revision| Some(Revision(revision)))
                        .map_err(|error| call.unknown().with_source(error));
                }
                Err(failure) if failure.kind() == ErrorKind::Timeout && call.left().is_zero() => {
                    return Err(call.unknown());
                }
                Err(failure) => match Failure::of(&failure) {
                    Failure::Uncertain => call.wait(Some(failure)).await?,
                    Failure::Again => {
                        call.is_uncertain = was_uncertain;
                        call.wait(Some(failure)).await?;
                    }
                    // Another write came in between.
                    Failure::Final if matches!(failure.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                        call.is_uncertain = was_uncertain;
                        call.wait(None).await?;
                    }
                    // The earlier attempt may land yet.
                    Failure::Final if was_uncertain => return Err(call.unknown().with_source(failure)),
                    Failure::Final => return Err(failure.with_context("resource", reference)),
                },
            }
        }
    }

    async fn send_delete(
        &self,
        kind: &Kind,
        object: &ResourceRef,
        now: &Object,
        precondition: Precondition,
        propagation: Propagation,
    ) -> Result<()> {
        let is_exact = matches!(precondition, Precondition::Is(_));
        let options = DeleteOptions {
            kind: "DeleteOptions",
            api_version: "v1",
            propagation_policy: propagation.as_str(),
            preconditions: Preconditions {
                uid: &now.uid,
                resource_version: is_exact.then(|| now.revision.to_string()),
            },
        };
        let options = serde_json::to_vec(&options).map_err(|error| self.client.site(DELETE).undecodable(error))?;
        self.client.delete(DELETE, &kind.path_of(object), &options).await
    }

    /// The version of a deletion that was accepted: an answer to it has none.
    async fn deleted(&self, kind: &Arc<Kind>, object: &ResourceRef, before: &Object) -> Result<u64> {
        let window = self.client.config().deadline;
        loop {
            let found = self.report_after(DELETE, kind, object, before.revision, window, |report| match report {
                Report::Gone(gone) if gone.uid == before.uid => Some(gone.revision),
                Report::Shown(now, _) if now.uid == before.uid && now.is_deleted => Some(now.revision),
                _ => None,
            });
            let failure = match found.await {
                Ok(Some(revision)) => return Ok(revision),
                Ok(None) => continue,
                // A server that was started again reports nothing from before its start. etcd still has the states.
                Err(error) if error.kind() == ErrorKind::Expired => {
                    match self.first_without(kind, object, before).await {
                        Ok(revision) => return Ok(revision),
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            if !is_outage(&failure) {
                return Err(failure);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// The first version at which a deletion of the object is accepted, among the states that the server still has.
    ///
    /// # Errors
    /// `Expired` if it no longer has one that is needed.
    async fn first_without(&self, kind: &Arc<Kind>, object: &ResourceRef, before: &Object) -> Result<u64> {
        let scope = Scope { kind: Arc::clone(kind), namespace: object.namespace().map(str::to_owned) };
        let query = Query::named(object.name());
        let (mut there, mut gone) = (before.revision, self.look(DELETE, kind, object).await?.version);
        while gone.saturating_sub(there) > 1 {
            let middle = there + (gone - there) / 2;
            let listed = self.list_page(DELETE, &scope, &query, At::Exactly(middle), PAGE, None).await?;
            if listed.objects.iter().any(|one| one.uid == before.uid && !one.is_deleted) {
                there = middle;
            } else {
                gone = middle;
            }
        }
        Ok(gone)
    }

    /// Waits until the object that is there now is gone, or another one has its name.
    pub(super) async fn wait_until_gone(&self, reference: &ResourceRef) -> Result<()> {
        self.client.check_open(GONE)?;
        let object = self.form.object(reference)?;
        let kind = self.kind(GONE, &object, None).await?;
        let mut first: Option<Object> = None;
        let mut held: Vec<String> = Vec::new();
        let limit = self.limit();
        let waited = self.client.site(GONE).within(limit, async {
            loop {
                let look = match self.look(GONE, &kind, &object).await {
                    Err(error) if is_outage(&error) => {
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        continue;
                    }
                    // A kind that is no longer served has no objects.
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                    look => look?,
                };
                let Some(now) = look.object else { return Ok(()) };
                held.clone_from(&now.finalizers);
                let uid = first.get_or_insert(now).uid.clone();
                let window = self.client.config().window();
                let ended = self.report_after(GONE, &kind, &object, look.version, window, |report| match report {
                    Report::Gone(gone) => (gone.uid == uid).then_some(()),
                    Report::Shown(now, _) if now.uid == uid => {
                        held.clone_from(&now.finalizers);
                        None
                    }
                    Report::Shown(..) => Some(()),
                });
                match ended.await {
                    Ok(Some(())) => return Ok(()),
                    Ok(None) => {}
                    Err(error) if is_outage(&error) || error.kind() == ErrorKind::Expired => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        });
        waited.await.map_err(|error| {
            let error = error.with_context("resource", reference);
            if held.is_empty() { error } else { error.with_context("finalizers", held.join(", ")) }
        })
    }
}
