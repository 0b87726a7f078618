//! Creates and replaces.
//!
//! Every attempt is one transaction that compares the pointer and *when the resource was last written*. A late landing of an
//! attempt that nobody waits for any more can therefore never undo what came after it, and asking twice is as good as once.
//! Which of the two landed is told by the mark in the value. The whole argument: docs/decisions/0017.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Applied, ApplyOutcome, Document, Precondition, ResourceRef, Revision},
};

use crate::{
    call::Call,
    client::positive,
    keys::new_generation,
    known::Seen,
    store::Inner,
    value::{self, Mark},
    view::{View, signed, written},
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.apply";

/// What a value is, as far as a write cares.
struct There {
    revision: u64,
    document: Document,
    mark: Mark,
}

/// What became of an attempt that got no answer.
pub(crate) enum Fate {
    /// It landed, at this revision.
    Landed(u64),
    /// It has not landed, and cannot any more.
    Dead,
    /// It cannot be told.
    Unknown,
}

/// What is tried next.
enum Step {
    /// Read, and decide.
    Look,
    /// It is there already, if it is as it was at this revision.
    Keep(u64),
    /// Write it, if it is as it was at this revision (0: not there).
    Put(u64),
}

impl Inner {
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
        let mark = Mark::new();
        let value = value::encode(&document, mark)
            .ok_or_else(|| self.refused("documents of this format have no form in etcd".to_owned(), reference))?;
        let mut call = Call::new(OPERATION, self.request_timeout);
        let mut step = first_step(precondition, self.known.get(reference), &document);
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
            let get = || [self.get_pointer(), RequestOp::get(key.clone())];
            let txn = match step {
                Step::Look => TxnRequest::of(get()),
                Step::Keep(at) => TxnRequest::when([self.is(&view), written(key.clone(), at)]).or_else(get()),
                Step::Put(at) => {
                    let mut puts = Vec::with_capacity(2);
                    if is_new {
                        puts.push(RequestOp::put(self.keys.pointer(), generation.as_bytes()));
                    }
                    puts.push(RequestOp::put(key.clone(), value.clone()));
                    TxnRequest::when([self.is(&view), written(key.clone(), at)]).and_then(puts).or_else(get())
                }
            };
            call.writes = matches!(step, Step::Put(_));
            let tried = self.client.try_txn(&mut call, txn).await;
            call.writes = false;
            let mut answer = tried.map_err(|fault| fault.error.with_context("resource", reference))?;
            match step {
                Step::Put(at) if answer.held => {
                    if is_new {
                        self.believe(View { pointer: answer.revision, generation: Some(generation) });
                    }
                    return Ok(self.applied(reference, document, at, answer.revision));
                }
                Step::Keep(at) if answer.held => {
                    return Ok(Applied::new(ApplyOutcome::Unchanged, Revision(at), document.bytes));
                }
                _ => {}
            }
            let now = self.see(answer.one())?;
            let there = answer.one().map(|kv| self.there(kv)).transpose()?;
            let same = now.generation.as_deref() == Some(&*generation);
            if let (true, Step::Put(at)) = (call.maybe, &step) {
                let fate = match &there {
                    // Restored meanwhile, or made by somebody else before us: with a generation of our own it would be there.
                    _ if !same && is_new => Fate::Dead,
                    _ if !same => Fate::Unknown,
                    there => self.fate(&mut call, &key, *at, there.as_ref(), mark).await?,
                };
                match fate {
                    Fate::Landed(revision) => return Ok(self.applied(reference, document, *at, revision)),
                    Fate::Dead => call.maybe = false,
                    Fate::Unknown => return Err(call.unknown().with_context("resource", reference)),
                }
            }
            if now.generation.is_some() && !same {
                step = Step::Look;
                continue;
            }
            let current = there.as_ref().map(|there| there.revision);
            self.known.set(reference, there.as_ref().map(|there| Seen::new(there.revision, &there.document)));
            if !holds(precondition, current) {
                return Err(self.conflict(OPERATION, reference, current));
            }
            if there.is_some_and(|there| there.document == document) {
                return Ok(Applied::new(ApplyOutcome::Unchanged, Revision(current.unwrap_or(0)), document.bytes));
            }
            step = Step::Put(current.unwrap_or(0));
        }
    }

    fn applied(&self, reference: &ResourceRef, document: Document, before: u64, revision: u64) -> Applied {
        self.known.set(reference, Some(Seen::new(revision, &document)));
        let outcome = if before == 0 { ApplyOutcome::Created } else { ApplyOutcome::Changed };
        Applied::new(outcome, Revision(revision), document.bytes)
    }

    /// What became of an attempt to write over what was there at `before`, now that `there` is there.
    async fn fate(&self, call: &mut Call, key: &[u8], before: u64, there: Option<&There>, mark: Mark) -> Result<Fate> {
        match there {
            Some(there) if there.mark == mark => Ok(Fate::Landed(there.revision)),
            // Nothing was there, and nothing may be there again: the attempt may land then.
            _ if before == 0 => Ok(Fate::Unknown),
            // Whether it was ours that was removed?
            None => Ok(Fate::Unknown),
            Some(there) => {
                // What was there just before? Only the first write after `before` can be ours.
                let earlier = RangeRequest::key(key).at(signed(there.revision.saturating_sub(1)));
                let earlier = TxnRequest::of([earlier.into()]);
                let Ok(mut answer) = self.client.try_txn(call, earlier).await else { return Ok(Fate::Unknown) };
                match answer.one().map(|kv| self.there(kv)).transpose()? {
                    Some(earlier) if earlier.revision == before => Ok(Fate::Dead),
                    Some(earlier) if earlier.mark == mark => Ok(Fate::Landed(earlier.revision)),
                    _ => Ok(Fate::Unknown),
                }
            }
        }
    }

    fn there(&self, kv: KeyValue) -> Result<There> {
        let revision = positive(kv.mod_revision);
        let (document, mark) = value::decode(kv.value).map_err(|why| self.corrupt(&kv.key, why))?;
        Ok(There { revision, document, mark })
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

/// A guess saves a round trip; where it is wrong, the transaction says what is right.
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
        // What is there may be just this, and then nothing is written.
        _ => Step::Look,
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
        // etcd compares 0 with a key that is not there, and finds them equal.
        let step = first_step(Precondition::Is(Revision(0)), None, &Document::json("{}"));
        assert!(matches!(step, Step::Look));
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
        assert!(matches!(first(Precondition::Is(Revision(6)), "[]"), Step::Look));
        assert!(matches!(first(Precondition::Absent, "{}"), Step::Put(0)));
    }
}
