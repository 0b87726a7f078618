//! Server-side apply, on a condition.
//!
//! Every attempt names the version of the object that it was decided on, or one that no object can have, so that it can only create it. An
//! attempt that lands after its caller gave up can therefore never undo a later write, and to send a replacement twice has the effect of
//! sending it once. A create is sent once. What an attempt without an answer did is read from the server's history.

use std::{sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Applied, ApplyOutcome, Document, Precondition, ResourceRef, Revision},
};
use serde_json::{Map, Value};

use super::{
    Shared,
    call::{Call, Failure},
    catalog::Kind,
    form::{Declared, declared},
    object::{Author, Object},
    read::{Look, Report, is_outage},
};
use crate::{list::with_query, status::FIELDS};

pub(super) const APPLY: &str = "k8s.store.apply";

/// A version that no object has: etcd's first revision is its empty state.
const NONE: &str = "1";
/// Time for which a create without an answer is waited for.
const SETTLE: Duration = Duration::from_secs(2);

/// Subject of an apply.
pub(super) struct Write {
    pub(super) kind: Arc<Kind>,
    pub(super) object: ResourceRef,
    pub(super) declared: Declared,
    pub(super) force: bool,
    pub(super) is_dry: bool,
}

/// An attempt without an answer: the object that it was to replace, if there was one, and a version from before it was sent.
struct Pending {
    before: Option<Object>,
    since: u64,
}

/// Outcome of an attempt without an answer.
enum Fate {
    /// It landed, at this version.
    Landed(u64),
    /// It has not landed, and cannot land any more.
    Dead,
    /// It has not landed, and may be sent again.
    Open,
    Unknown,
}

/// The object after an apply.
pub(super) struct Written {
    pub(super) outcome: ApplyOutcome,
    pub(super) revision: u64,
}

impl Shared {
    pub(super) async fn apply(
        &self,
        reference: &ResourceRef,
        document: Document,
        precondition: Precondition,
        force: bool,
    ) -> Result<Applied> {
        self.client.check_open(APPLY)?;
        let object = self.form.object(reference)?;
        let declared = declared(&object, &self.form.write(reference, &document)?)?;
        let kind = self.kind(APPLY, &object, declared.version.as_deref()).await?;
        let write = Write { kind, object, declared, force, is_dry: false };
        let done = self.write(reference, &write, precondition).await?;
        Ok(Applied::new(done.outcome, Revision(done.revision), document.bytes))
    }

    /// Carries out an apply.
    pub(super) async fn write(
        &self,
        reference: &ResourceRef,
        write: &Write,
        precondition: Precondition,
    ) -> Result<Written> {
        let mut call = Call::new(APPLY, reference, self.limit());
        let mut pending: Option<Pending> = None;
        loop {
            let looked = call.within(self.look(APPLY, &write.kind, &write.object)).await;
            let look = match looked {
                Ok(look) => look,
                Err(error) if is_outage(&error) => {
                    call.wait(Some(error)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(sent) = &pending {
                match call.within(self.fate(write, sent, &look)).await? {
                    Fate::Landed(revision) => {
                        let outcome = if sent.before.is_some() { ApplyOutcome::Changed } else { ApplyOutcome::Created };
                        return Ok(Written { outcome, revision });
                    }
                    Fate::Dead => (pending, call.is_uncertain) = (None, false),
                    Fate::Open => {}
                    Fate::Unknown => return Err(call.unknown()),
                }
            }
            self.check(APPLY, reference, &look, precondition, write.declared.revision, write.declared.uid.as_deref())?;
            let is_resent = pending.is_some();
            if let Some(now) = look.object.as_ref().filter(|_| !is_resent && !write.is_dry) {
                match call.within(self.is_there(write, now)).await {
                    Ok(true) => return Ok(Written { outcome: ApplyOutcome::Unchanged, revision: now.revision }),
                    Ok(false) => {}
                    Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                    Err(error) => {
                        call.wait(Some(error)).await?;
                        continue;
                    }
                }
            }
            // From here on the call may be given up by its caller, too.
            call.is_uncertain = true;
            let attempt = call.within(self.attempt(write, look.object.as_ref())).await;
            let failure = match attempt {
                Ok((is_new, after)) => return Ok(written(is_new && look.object.is_none(), &look, &after)),
                Err(failure) => failure,
            };
            if failure.kind() == ErrorKind::Timeout && call.left().is_zero() {
                return Err(call.unknown());
            }
            match Failure::of(&failure) {
                Failure::Uncertain => {
                    pending.get_or_insert(Pending { before: look.object, since: look.version });
                    call.wait(Some(failure)).await?;
                    continue;
                }
                Failure::Again => {
                    call.is_uncertain = is_resent;
                    call.wait(Some(failure)).await?;
                    continue;
                }
                Failure::Final => call.is_uncertain = is_resent,
            }
            // Another write came in between, unless fields are what the refusal is about.
            if failure.kind() == ErrorKind::Conflict && failure.fact(FIELDS).is_none() && !write.is_dry {
                call.wait(None).await?;
                continue;
            }
            let failure = failure.with_context("resource", reference);
            // It cannot land after this: the earlier attempt was on the same condition.
            return Err(if is_resent { call.unknown().with_source(failure) } else { failure });
        }
    }

    /// Asks the server if an apply would change nothing. A server of 1.20 writes an object again, with another version, for an apply that
    /// has a condition and changes nothing else: so this one is tried out, without the condition.
    async fn is_there(&self, write: &Write, now: &Object) -> Result<bool> {
        if now.applied_by(&self.options.field_manager).is_none() {
            return Ok(false);
        }
        match self.send(write, write.declared.body.clone(), true).await {
            Ok((is_new, after)) => Ok(!is_new && after.is_same(now)),
            // Without an answer nothing is known: to write on would make another version of an object that is there already.
            Err(error) if error.kind() == ErrorKind::Cancelled || Failure::of(&error) != Failure::Final => Err(error),
            // It is refused, or cannot be tried out: the apply itself gets the answer that counts.
            Err(_) => Ok(false),
        }
    }

    /// Sends the object once, on its condition; `true` if that created it, and what it is then.
    async fn attempt(&self, write: &Write, before: Option<&Object>) -> Result<(bool, Object)> {
        let mut body = write.declared.body.clone();
        if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
            condition(metadata, before, write.declared.uid.as_deref());
        }
        self.send(write, body, write.is_dry).await
    }

    async fn send(&self, write: &Write, mut body: Map<String, Value>, is_dry: bool) -> Result<(bool, Object)> {
        let site = self.client.site(APPLY);
        body.entry("apiVersion").or_insert_with(|| write.kind.api_version().into());
        let body = serde_json::to_vec(&body).map_err(|error| site.undecodable(error))?;
        let mut query = vec![("fieldManager", self.options.field_manager.as_str())];
        if write.force {
            query.push(("force", "true"));
        }
        if is_dry {
            query.push(("dryRun", "All"));
        }
        let path = with_query(write.kind.path_of(&write.object), &query);
        let (is_new, answer) = self.client.apply(APPLY, &path, &body).await?;
        let object = Object::of(&write.kind, &answer);
        let object =
            object.map_err(|why| site.error(ErrorKind::Protocol, format!("the answer is no object: {why}")))?;
        Ok((is_new, object))
    }

    /// Finds out what an attempt without an answer did.
    async fn fate(&self, write: &Write, sent: &Pending, look: &Look) -> Result<Fate> {
        let (manager, declared) = (&self.options.field_manager, &write.declared.body);
        if let Some(before) = &sent.before {
            // To send it again has the effect of sending it once: the condition is the same.
            if look.object.as_ref().is_some_and(|now| now.uid == before.uid && now.revision == before.revision) {
                return Ok(Fate::Open);
            }
        }
        let since = sent.before.as_ref().map_or(sent.since, |before| before.revision);
        let window =
            if look.object.is_some() || sent.before.is_some() { self.client.config().deadline } else { SETTLE };
        // Only the first change after it was sent can be this attempt's.
        let first = self.report_after(APPLY, &write.kind, &write.object, since, window, |report| {
            let Report::Shown(after, _) = report else { return Some(Fate::Dead).filter(|_| sent.before.is_some()) };
            let author = after.author_since(sent.before.as_ref(), manager);
            let (has_all, was_there) =
                (after.has(declared), sent.before.as_ref().is_some_and(|before| before.has(declared)));
            Some(match (author, has_all) {
                (Author::This, true) => Fate::Landed(after.revision),
                (Author::Unclear, true) if !was_there => Fate::Landed(after.revision),
                // Another one created it: this one may land once that is gone.
                (Author::Other, _) if sent.before.is_some() => Fate::Dead,
                // The server writes some values in another form: it may be this one all the same.
                _ => Fate::Unknown,
            })
        });
        match first.await {
            Ok(fate) => Ok(fate.unwrap_or(Fate::Unknown)),
            Err(error) if is_outage(&error) => Ok(Fate::Unknown),
            Err(error) if error.kind() == ErrorKind::Expired => Ok(Fate::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Refuses a write whose condition does not hold.
    pub(super) fn check(
        &self,
        operation: &'static str,
        reference: &ResourceRef,
        look: &Look,
        precondition: Precondition,
        own_revision: Option<u64>,
        own_uid: Option<&str>,
    ) -> Result<()> {
        let now = look.object.as_ref();
        let current = now.map(|now| now.revision);
        let holds = match precondition {
            Precondition::Absent => current.is_none(),
            Precondition::Is(revision) => current == Some(revision.0),
            _ => true,
        };
        let is_it = own_revision.is_none_or(|own| current == Some(own))
            && own_uid.is_none_or(|uid| now.is_some_and(|now| now.uid == uid));
        if holds && is_it {
            return Ok(());
        }
        let found = current.map_or_else(|| "absent".to_owned(), |revision| revision.to_string());
        let error = self.client.site(operation).error(ErrorKind::Conflict, "the precondition does not hold");
        Err(error.with_context("resource", reference).with_context("revision", found))
    }
}

/// Adds the condition on which an attempt is made.
fn condition(metadata: &mut Map<String, Value>, before: Option<&Object>, uid: Option<&str>) {
    let version = before.map_or_else(|| NONE.to_owned(), |before| before.revision.to_string());
    metadata.insert("resourceVersion".to_owned(), version.into());
    // Without its uid an object that is gone would be created again (trap K25).
    let uid = before.map(|before| before.uid.as_str()).filter(|uid| !uid.is_empty()).or(uid);
    if let Some(uid) = uid {
        metadata.insert("uid".to_owned(), uid.into());
    }
}

fn written(is_new: bool, look: &Look, after: &Object) -> Written {
    let before = look.object.as_ref().map(|before| before.revision);
    let outcome = if is_new {
        ApplyOutcome::Created
    } else if before == Some(after.revision) {
        ApplyOutcome::Unchanged
    } else {
        ApplyOutcome::Changed
    };
    Written { outcome, revision: after.revision }
}

/// The error of a write that other managers' fields stand against.
pub(super) fn is_foreign(error: &Error) -> bool {
    error.kind() == ErrorKind::Conflict && error.fact(FIELDS).is_some()
}
