//! Outcome of creates without an answer.
//!
//! The absence of a key has no revision: a create that is sent again, or that lands late, would succeed once more after a delete by
//! another client, and bring back what was deleted. So each create has the condition that the key `settled` was not written since a
//! revision that its sender had seen. To settle it, that key is written, and the resource and the receipts of the deletes are read, in
//! one transaction: from there on the attempt cannot land, and the history shows whether it did.

use runtide_core::Result;

use crate::{
    call::{Call, Fate, MAX_RECEIPTS},
    client::positive,
    shared::Shared,
    value::WriteId,
    view::signed,
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest},
};

/// A create that was sent, and got no answer.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) generation: &'a str,
    /// It would have made the store's first generation.
    pub(crate) is_new: bool,
    /// A revision that the cluster had reached before.
    pub(crate) base: u64,
    pub(crate) id: WriteId,
}

impl Shared {
    /// Makes sure that a create cannot land any more, and finds out whether it did.
    ///
    /// # Errors
    /// `Timeout`, `outcome=unknown`, if the cluster does not answer.
    pub(crate) async fn settle(&self, call: &mut Call, sent: &Sent<'_>) -> Result<Fate> {
        let txn = TxnRequest::of([
            RequestOp::put(self.keys.settled(), sent.id.bytes()),
            self.get_pointer(),
            RequestOp::get(sent.key),
            RequestOp::get(self.keys.receipt()),
        ]);
        let mut answer = self.client.txn(call, txn).await?;
        if answer.revision <= sent.base {
            // The cluster was set back to a backup: its revisions do not say what came first.
            return Ok(Fate::Unknown);
        }
        answer.range();
        let pointer = answer.one();
        let is_first = pointer.as_ref().is_some_and(|kv| kv.create_revision == kv.mod_revision);
        let now = self.update_view(pointer)?;
        let (there, receipt) = (answer.one(), answer.one());
        match now.generation {
            Some(generation) if *generation == *sent.generation => self.history(call, sent, there, receipt).await,
            // Another client made the first generation.
            Some(_) if sent.is_new && is_first => Ok(Fate::Dead),
            // The store was restored, perhaps after the create had landed.
            Some(_) => Ok(Fate::Unknown),
            None => Ok(Fate::Dead),
        }
    }

    /// Finds a create in the history of its resource: the present one, and those that were removed since it was sent.
    async fn history(
        &self,
        call: &mut Call,
        sent: &Sent<'_>,
        there: Option<KeyValue>,
        newest: Option<KeyValue>,
    ) -> Result<Fate> {
        let mut life = there;
        let mut receipt = newest;
        for _ in 0..MAX_RECEIPTS {
            if let Some(kv) = life
                && let Some(fate) = self.fate_in(call, sent, kv).await?
            {
                return Ok(fate);
            }
            let Some(delete) = receipt.map(|kv| positive(kv.mod_revision)).filter(|delete| *delete > sent.base) else {
                return Ok(Fate::Dead);
            };
            let before = signed(delete.saturating_sub(1));
            let state = [RangeRequest::key(sent.key).at(before), RangeRequest::key(self.keys.receipt()).at(before)];
            // The history may be compacted.
            let Ok(mut answer) = self.client.try_txn(call, TxnRequest::of(state.map(RequestOp::from))).await else {
                return Ok(Fate::Unknown);
            };
            (life, receipt) = (answer.one(), answer.one());
        }
        Ok(Fate::Unknown)
    }

    /// Fate of a create by one life of its resource, from a create to a delete; `None` if it may belong to an earlier one.
    async fn fate_in(&self, call: &mut Call, sent: &Sent<'_>, kv: KeyValue) -> Result<Option<Fate>> {
        let there = self.stored(kv)?;
        if there.id == sent.id {
            return Ok(Some(Fate::Landed(there.revision)));
        }
        if there.created <= sent.base {
            // It was there all the time.
            return Ok(Some(Fate::Dead));
        }
        if there.created == there.revision {
            return Ok(None);
        }
        let first = RangeRequest::key(sent.key).at(signed(there.created));
        let Ok(mut answer) = self.client.try_txn(call, TxnRequest::of([first.into()])).await else {
            return Ok(Some(Fate::Unknown));
        };
        let first = answer.one().map(|kv| self.stored(kv)).transpose()?;
        Ok(match first {
            Some(first) if first.id == sent.id => Some(Fate::Landed(first.revision)),
            Some(_) => None,
            None => Some(Fate::Unknown),
        })
    }
}
