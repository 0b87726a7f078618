//! Creates and replaces.
//!
//! Every attempt is one transaction that compares the pointer and *the revision of the resource's last write*. An attempt that lands
//! after its caller gave up can therefore never undo a later write, and sending a replacement twice has the effect of sending it once.
//! The write's identity in the value shows which attempt landed. A create has no revision to compare: it is sent once, and
//! [`settle`](crate::settle) finds out whether an attempt without an answer landed. The whole argument: docs/decisions/0017.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Applied, ApplyOutcome, Document, Precondition, ResourceRef, Revision},
};

use crate::{
    call::{Call, Fate},
    client::positive,
    error::Recovery,
    keys::new_generation,
    known::Seen,
    settle::Sent,
    shared::Shared,
    value::{self, WriteId},
    view::{View, last_written, not_written_after, signed},
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.apply";

/// Most earlier values of a resource that are read back to find out what a replacement without an answer did.
const MAX_EARLIER: usize = 64;

/// A value that a write found.
pub(crate) struct Stored {
    pub(crate) revision: u64,
    /// Revision of the create.
    pub(crate) created: u64,
    document: Document,
    pub(crate) id: WriteId,
}

/// Next transaction of an apply.
enum Step {
    /// Read, then decide.
    Read,
    /// Keep the document, which is equal, if its revision is still this one.
    Keep(u64),
    /// Write the document, if the revision is still this one (0: there is none).
    Put(u64),
}

impl Shared {
    pub(crate) async fn apply(
        &self,
        reference: &ResourceRef,
        document: Document,
        precondition: Precondition,
    ) -> Result<Applied> {
        if document.bytes.len() > self.largest {
            let message = format!("the document has {} bytes, and {} is the most", document.bytes.len(), self.largest);
            return Err(self.refused(message, reference).with_context("limit", self.largest));
        }
        let id = WriteId::new();
        let value = value::encode(&document, id)
            .ok_or_else(|| self.refused("documents of this format have no form in etcd".to_owned(), reference))?;
        let mut call = Call::new(OPERATION, self.request_timeout);
        let mut step = first_step(precondition, self.known.get(reference), &document);
        // The refusal of an attempt by an alarm of the cluster, and what that attempt was to replace. The attempt may have landed all the
        // same; and what is there now may be equal, or break the precondition.
        let mut refusal = None;
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            let (generation, is_new) = match &view.generation {
                Some(generation) => (Arc::clone(generation), false),
                None => (new_generation().into(), true),
            };
            let key = self.keys.resource(&generation, reference);
            // A revision that the cluster had reached before the attempt was sent.
            let base = self.client.seen();
            let txn = self.attempt(&step, &view, is_new.then_some(&*generation), (&key, &value), base);
            let put = if let Step::Put(at) = step { Some(at) } else { None };
            (call.writes, call.once) = (put.is_some(), put == Some(0));
            let tried = self.client.try_txn(&mut call, txn).await;
            (call.writes, call.once) = (false, false);
            let mut answer = match (tried, put) {
                (Err(fault), Some(at)) if fault.recovery == Recovery::Alarm && !call.uncertain => {
                    let may_have_landed = fault.may_have_landed();
                    refusal = Some((at, fault.error.with_context("resource", reference)));
                    call.uncertain = may_have_landed;
                    step = Step::Read;
                    continue;
                }
                (Err(_), Some(0)) if call.uncertain => {
                    let sent = Sent { key: &key, generation: &generation, is_new, base, id };
                    match self.settle(&mut call, &sent).await? {
                        Fate::Landed(revision) => return Ok(self.applied(reference, document, 0, revision)),
                        Fate::Dead => call.uncertain = false,
                        Fate::Unknown => return Err(call.unknown().with_context("resource", reference)),
                    }
                    step = Step::Read;
                    continue;
                }
                (tried, _) => tried.map_err(|fault| fault.error.with_context("resource", reference))?,
            };
            match step {
                Step::Put(at) if answer.succeeded => {
                    if is_new {
                        self.set_view(View { pointer: answer.revision, generation: Some(generation) });
                    }
                    return Ok(self.applied(reference, document, at, answer.revision));
                }
                Step::Keep(at) if answer.succeeded => {
                    return Ok(Applied::new(ApplyOutcome::Unchanged, Revision(at), document.bytes));
                }
                _ => {}
            }
            let now = self.update_view(answer.one())?;
            let there = answer.one().map(|kv| self.stored(kv)).transpose()?;
            let same = now.generation.as_deref() == Some(&*generation);
            if let (true, Step::Put(at)) = (call.uncertain, &step) {
                let fate = match &there {
                    // The store was restored.
                    _ if !same => Fate::Unknown,
                    there => self.fate(&mut call, &key, *at, there.as_ref(), id).await?,
                };
                match fate {
                    Fate::Landed(revision) => return Ok(self.applied(reference, document, *at, revision)),
                    Fate::Dead => call.uncertain = false,
                    Fate::Unknown => return Err(call.unknown().with_context("resource", reference)),
                }
            }
            if now.generation.is_some() && !same {
                step = Step::Read;
                continue;
            }
            if let (true, Some((at, _))) = (call.uncertain, &refusal) {
                if let Fate::Landed(revision) = self.fate(&mut call, &key, *at, there.as_ref(), id).await? {
                    return Ok(self.applied(reference, document, *at, revision));
                }
                call.uncertain = false;
            }
            let current = there.as_ref().map(|there| there.revision);
            self.known.set(reference, there.as_ref().map(|there| Seen::new(there.revision, &there.document)));
            if !holds(precondition, current) {
                return Err(self.conflict(OPERATION, reference, current));
            }
            if there.is_some_and(|there| there.document == document) {
                return Ok(Applied::new(ApplyOutcome::Unchanged, Revision(current.unwrap_or(0)), document.bytes));
            }
            if let Some((_, refusal)) = refusal {
                return Err(refusal);
            }
            step = Step::Put(current.unwrap_or(0));
        }
    }

    /// The transaction of a step. `new`: the generation that it makes the first one of the store.
    fn attempt(
        &self,
        step: &Step,
        view: &View,
        new: Option<&str>,
        (key, value): (&[u8], &[u8]),
        base: u64,
    ) -> TxnRequest {
        let get = || [self.get_pointer(), RequestOp::get(key)];
        match *step {
            Step::Read => TxnRequest::of(get()),
            Step::Keep(at) => TxnRequest::when([self.is_live(view), last_written(key, at)]).or_else(get()),
            Step::Put(at) => {
                let pointer = new.map(|generation| RequestOp::put(self.keys.pointer(), generation.as_bytes()));
                let puts: Vec<RequestOp> = pointer.into_iter().chain([RequestOp::put(key, value)]).collect();
                let mut when = vec![self.is_live(view), last_written(key, at)];
                if at == 0 {
                    when.push(not_written_after(self.keys.settled(), base));
                }
                TxnRequest::when(when).and_then(puts).or_else(get())
            }
        }
    }

    fn applied(&self, reference: &ResourceRef, document: Document, before: u64, revision: u64) -> Applied {
        self.known.set(reference, Some(Seen::new(revision, &document)));
        let outcome = if before == 0 { ApplyOutcome::Created } else { ApplyOutcome::Changed };
        Applied::new(outcome, Revision(revision), document.bytes)
    }

    /// Outcome of an attempt to replace what had the revision `before`, or of a refused one to create it, given what is `there` now.
    async fn fate(
        &self,
        call: &mut Call,
        key: &[u8],
        before: u64,
        there: Option<&Stored>,
        id: WriteId,
    ) -> Result<Fate> {
        // The removed value may be this attempt's, or the one before; if there was nothing, the attempt may land yet.
        let Some(there) = there else { return Ok(Fate::Unknown) };
        if there.id == id {
            return Ok(Fate::Landed(there.revision));
        }
        // Only the first write after `before` can be this attempt's: read back, value by value, until that one.
        let mut later = there.revision;
        for _ in 0..MAX_EARLIER {
            let earlier = RangeRequest::key(key).at(signed(later.saturating_sub(1)));
            let earlier = TxnRequest::of([earlier.into()]);
            let Ok(mut answer) = self.client.try_txn(call, earlier).await else { return Ok(Fate::Unknown) };
            match answer.one().map(|kv| self.stored(kv)).transpose()? {
                Some(earlier) if earlier.revision == before => return Ok(Fate::Dead),
                Some(earlier) if earlier.id == id => return Ok(Fate::Landed(earlier.revision)),
                Some(earlier) if before > 0 && earlier.revision > before => later = earlier.revision,
                // If there was nothing, there may be nothing again: the attempt may land then.
                _ => break,
            }
        }
        Ok(Fate::Unknown)
    }

    pub(crate) fn stored(&self, kv: KeyValue) -> Result<Stored> {
        let (revision, created) = (positive(kv.mod_revision), positive(kv.create_revision));
        let (document, id) = value::decode(kv.value).map_err(|why| self.corrupt(&kv.key, why))?;
        Ok(Stored { revision, created, document, id })
    }

    fn refused(&self, message: String, reference: &ResourceRef) -> Error {
        Error::new(ErrorKind::InvalidInput, OPERATION, message)
            .with_context("store", self.client.name())
            .with_context("resource", reference)
    }

    pub(crate) fn conflict(&self, operation: &'static str, reference: &ResourceRef, current: Option<u64>) -> Error {
        let error = Error::new(ErrorKind::Conflict, operation, "the precondition does not hold")
            .with_context("store", self.client.name())
            .with_context("resource", reference);
        match current {
            Some(revision) => error.with_context("revision", revision),
            None => error.with_context("revision", "absent"),
        }
    }
}

/// First transaction, by a guess that saves a round trip; a wrong guess costs one, as the transaction returns the current value.
fn first_step(precondition: Precondition, seen: Option<Seen>, document: &Document) -> Step {
    match (precondition, seen) {
        (Precondition::Absent, _) | (Precondition::None, None) => Step::Put(0),
        (Precondition::None, Some(seen)) if seen.is(document) => Step::Keep(seen.revision),
        (Precondition::None, Some(seen)) => Step::Put(seen.revision),
        (Precondition::Is(Revision(at)), Some(seen)) if seen.revision == at => {
            if seen.is(document) {
                Step::Keep(at)
            } else {
                Step::Put(at)
            }
        }
        // The current value may be equal, and then nothing is written.
        _ => Step::Read,
    }
}

pub(crate) fn holds(precondition: Precondition, current: Option<u64>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::Is(Revision(at)) => current == Some(at),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_zero_is_not_absence() {
        // etcd takes the revision of a missing key for 0.
        let step = first_step(Precondition::Is(Revision(0)), None, &Document::json("{}"));
        assert!(matches!(step, Step::Read));
        assert!(!holds(Precondition::Is(Revision(0)), None));
    }

    #[test]
    fn a_guess_is_used_only_where_it_fits() {
        let seen = Some(Seen::new(7, &Document::json("{}")));
        let first = |precondition, text: &'static str| first_step(precondition, seen, &Document::json(text));
        assert!(matches!(first(Precondition::None, "{}"), Step::Keep(7)));
        assert!(matches!(first(Precondition::None, "[]"), Step::Put(7)));
        assert!(matches!(first(Precondition::Is(Revision(7)), "[]"), Step::Put(7)));
        assert!(matches!(first(Precondition::Is(Revision(7)), "{}"), Step::Keep(7)));
        assert!(matches!(first(Precondition::Is(Revision(6)), "[]"), Step::Read));
        assert!(matches!(first(Precondition::Absent, "{}"), Step::Put(0)));
    }
}
