//! Removes.
//!
//! As in [`apply`](crate::apply), an attempt compares when the resource was last written. A key that is gone has no room for a
//! mark, so the transaction leaves it in a key of its own, the receipt, which is the same for all deletes of a store.

use runtide_core::{
    Result,
    store::{Precondition, ResourceRef, Revision},
};

use crate::{
    apply::{Fate, holds},
    call::Call,
    client::positive,
    store::Inner,
    value::Mark,
    view::{signed, written},
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.delete";

/// How many later deletes are looked past to find the receipt of ours.
const TIMEOUT: usize = 64;

impl Inner {
    pub(crate) async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        let mut call = Call::new(OPERATION, self.request_timeout);
        let mark = Mark::new();
        let mut guess = match precondition {
            Precondition::Is(Revision(at)) => Some(at).filter(|at| *at > 0),
            Precondition::None => self.known.get(reference).map(|seen| seen.revision),
            _ => None,
        };
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            // Where nothing was ever written the name of the generation does not matter.
            let generation = view.generation.clone().unwrap_or_else(|| "none".into());
            let key = self.keys.resource(&generation, reference);
            let look = || {
                let receipt = RequestOp::get(self.keys.receipt());
                [self.get_pointer(), RangeRequest::key(key.clone()).keys_only().into(), receipt]
            };
            let txn = match guess {
                None => TxnRequest::of(look()),
                Some(at) => {
                    let remove = RequestOp::delete(key.clone());
                    let sign = RequestOp::put(self.keys.receipt(), mark.bytes());
                    TxnRequest::when([self.is(&view), written(key.clone(), at)])
                        .and_then([remove, sign])
                        .or_else(look())
                }
            };
            call.writes = guess.is_some();
            let tried = self.client.try_txn(&mut call, txn).await;
            call.writes = false;
            let mut answer = tried.map_err(|fault| fault.error.with_context("resource", reference))?;
            if guess.is_some() && answer.held {
                self.known.set(reference, None);
                return Ok(Some(Revision(answer.revision)));
            }
            let now = self.see(answer.one())?;
            let current = answer.one().map(|kv| positive(kv.mod_revision));
            if let (true, Some(at)) = (call.maybe, guess) {
                match self.receipt(&mut call, answer.one(), at, mark).await {
                    Fate::Landed(revision) => {
                        self.known.set(reference, None);
                        return Ok(Some(Revision(revision)));
                    }
                    // What it compared can never be true again.
                    Fate::Dead => call.maybe = false,
                    Fate::Unknown => return Err(call.unknown().with_context("resource", reference)),
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

    /// Whether our mark is among the receipts that were signed after `before`.
    async fn receipt(&self, call: &mut Call, newest: Option<KeyValue>, before: u64, mark: Mark) -> Fate {
        let mut receipt = newest;
        for _ in 0..TIMEOUT {
            let Some(signed_by) = receipt else { return Fate::Dead };
            let revision = positive(signed_by.mod_revision);
            if Mark::of(&signed_by.value) == Some(mark) {
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
