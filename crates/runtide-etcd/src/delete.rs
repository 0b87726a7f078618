//! Removes.
//!
//! As in [`apply`](crate::apply), an attempt compares the revision of the resource's last write. A key that is gone cannot hold the
//! identity of the delete, so the transaction puts it into another key, the receipt, which all deletes of a store share.

use runtide_core::{
    Result,
    store::{Precondition, ResourceRef, Revision},
};

use crate::{
    apply::holds,
    call::{Call, Fate, MAX_RECEIPTS},
    client::positive,
    error::Recovery,
    shared::Shared,
    value::WriteId,
    view::{last_written, signed},
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.delete";

impl Shared {
    pub(crate) async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        let mut call = Call::new(OPERATION, self.request_timeout);
        let id = WriteId::new();
        let mut guess = match precondition {
            Precondition::Is(Revision(at)) => Some(at).filter(|at| *at > 0),
            Precondition::None => self.known.get(reference).map(|seen| seen.revision),
            _ => None,
        };
        // A receipt takes space. Where a cluster without space refuses it, the delete goes without, and without an answer its
        // outcome cannot be found out.
        let mut is_signed = true;
        // Revision that a refused attempt was to remove. The attempt may have landed all the same.
        let mut refused = None;
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            // In a store that was never written any name of a generation will do.
            let generation = view.generation.clone().unwrap_or_else(|| "none".into());
            let key = self.keys.resource(&generation, reference);
            let read = || {
                let receipt = RequestOp::get(self.keys.receipt());
                [self.get_pointer(), RangeRequest::key(key.clone()).keys_only().into(), receipt]
            };
            let txn = match guess {
                None => TxnRequest::of(read()),
                Some(at) => {
                    let remove = RequestOp::delete(key.clone());
                    let sign = is_signed.then(|| RequestOp::put(self.keys.receipt(), id.bytes()));
                    let all: Vec<RequestOp> = std::iter::once(remove).chain(sign).collect();
                    TxnRequest::when([self.is_live(&view), last_written(key.clone(), at)]).and_then(all).or_else(read())
                }
            };
            call.writes = guess.is_some();
            let tried = self.client.try_txn(&mut call, txn).await;
            call.writes = false;
            let mut answer = match tried {
                Err(fault) if fault.recovery == Recovery::Alarm && !call.uncertain && guess.is_some() && is_signed => {
                    is_signed = false;
                    call.uncertain = fault.may_have_landed();
                    refused = guess.take().filter(|_| call.uncertain);
                    continue;
                }
                tried => tried.map_err(|fault| fault.error.with_context("resource", reference))?,
            };
            if guess.is_some() && answer.succeeded {
                self.known.set(reference, None);
                return Ok(Some(Revision(answer.revision)));
            }
            let now = self.update_view(answer.one())?;
            let (there, receipt) = (answer.one(), answer.one());
            let current = there.as_ref().map(|kv| positive(kv.mod_revision));
            let refused = refused.take();
            if let (true, Some(at)) = (call.uncertain, refused.or(guess)) {
                let fate = match &there {
                    // It has been there all the time.
                    Some(kv) if refused.is_some() && positive(kv.create_revision) <= at => Fate::Dead,
                    _ if refused.is_some() || is_signed => self.receipt(&mut call, receipt, at, id).await,
                    _ => Fate::Unknown,
                };
                match fate {
                    Fate::Landed(revision) => {
                        self.known.set(reference, None);
                        return Ok(Some(Revision(revision)));
                    }
                    // Its comparison can never hold again.
                    Fate::Dead => call.uncertain = false,
                    Fate::Unknown => {
                        self.known.set(reference, None);
                        return Err(call.unknown().with_context("resource", reference));
                    }
                }
            }
            if now.generation.is_some() && now.generation != view.generation {
                guess = None;
                continue;
            }
            if !holds(precondition, current) {
                return Err(self.conflict(OPERATION, reference, current));
            }
            match current {
                None => {
                    self.known.set(reference, None);
                    return Ok(None);
                }
                Some(at) => guess = Some(at),
            }
        }
    }

    /// Outcome of a delete, by the receipts that were written after `before`.
    async fn receipt(&self, call: &mut Call, newest: Option<KeyValue>, before: u64, id: WriteId) -> Fate {
        let mut receipt = newest;
        for _ in 0..MAX_RECEIPTS {
            let Some(signed_by) = receipt else { return Fate::Dead };
            let revision = positive(signed_by.mod_revision);
            if WriteId::of(&signed_by.value) == Some(id) {
                return Fate::Landed(revision);
            }
            if revision <= before {
                return Fate::Dead;
            }
            let earlier = RangeRequest::key(self.keys.receipt()).at(signed(revision.saturating_sub(1)));
            let earlier = TxnRequest::of([earlier.into()]);
            let Ok(mut answer) = self.client.try_txn(call, earlier).await else { return Fate::Unknown };
            receipt = answer.one();
        }
        Fate::Unknown
    }
}
