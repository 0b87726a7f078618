//! Restores: writes a new generation, and makes it the live one in a single transaction.
//!
//! No reader sees the new generation before. Each chunk compares the pointer and the marker of its restore, so that a chunk that
//! lands late changes nothing that is live, and so that of two restores at once the second to end fails.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Resource, Revision, StoreSnapshotReader},
};
use tokio::io::AsyncRead;

use crate::{
    call::Call,
    error::Recovery,
    keys::{self, KeyRange},
    shared::Shared,
    value::{self, WriteId},
    view::{View, signed},
    wire::{Compare, CompareResult, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.restore";

/// Operations in a transaction: members take 128 by default.
const CHUNK: usize = 100;

/// Bytes of a snapshot that are read before anything is written.
const BUFFER: usize = 8 << 20;

/// Keys that are removed at a time, so that no transaction blocks the members for long.
const SWEEP: i64 = 1000;

/// A restore under way.
struct Restore<'a> {
    shared: &'a Shared,
    generation: Arc<str>,
    /// Its marker, and some of its keys, may be in etcd.
    begun: bool,
}

impl Restore<'_> {
    async fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let marker = RequestOp::put(self.shared.keys.restoring(&self.generation), Vec::new());
        self.shared.client.txn(&mut self.shared.call(), TxnRequest::of([marker])).await.map(drop)
    }

    /// Writes all resources of the snapshot, and verifies its seal. A snapshot that fits into the buffer is verified before its first
    /// resource is written.
    async fn fill(&mut self, reader: &mut StoreSnapshotReader<'_>) -> Result<()> {
        let mut buffered: Vec<Vec<RequestOp>> = Vec::new();
        let (mut puts, mut bytes, mut all) = (Vec::with_capacity(CHUNK), 0, 0);
        while let Some(resource) = reader.next().await? {
            let (key, value) = self.shared.put(&self.generation, &resource)?;
            let size = key.len() + value.len() + 32;
            if puts.len() == CHUNK || !puts.is_empty() && bytes + size > self.shared.largest {
                buffered.push(std::mem::take(&mut puts));
                bytes = 0;
            }
            bytes += size;
            all += size;
            puts.push(RequestOp::put(key, value));
            if all > BUFFER {
                self.write(&mut buffered).await?;
                all = bytes;
            }
        }
        if !puts.is_empty() {
            buffered.push(puts);
        }
        self.write(&mut buffered).await
    }

    async fn write(&mut self, buffered: &mut Vec<Vec<RequestOp>>) -> Result<()> {
        for chunk in buffered.drain(..) {
            self.begin().await?;
            self.shared.write_chunk(&self.generation, chunk).await?;
        }
        Ok(())
    }
}

impl Shared {
    pub(crate) async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut restored = Restore { shared: self, generation: keys::new_generation().into(), begun: false };
        let outcome = async {
            restored.fill(&mut reader).await?;
            restored.begin().await?;
            self.flip(&restored.generation).await
        };
        match outcome.await {
            Ok(revision) => {
                // The next restore sweeps what is left.
                if let Err(error) = self.sweep(revision.0).await {
                    tracing::warn!(store = self.client.name(), %error, "the replaced generation is not removed yet");
                }
                Ok(revision)
            }
            // Its outcome is unknown, so the generation may be live, and must stay.
            Err(error) if error.context().iter().any(|(key, _)| *key == "outcome") => Err(error),
            Err(error) => {
                if restored.begun
                    && let Err(error) = self.discard(&restored.generation, u64::MAX).await
                {
                    tracing::warn!(store = self.client.name(), %error, "a failed restore is not removed yet");
                }
                Err(error)
            }
        }
    }

    fn call(&self) -> Call {
        Call::new(OPERATION, self.request_timeout)
    }

    /// Condition that this restore has not been swept away.
    fn is_under_way(&self, generation: &str) -> Compare {
        Compare::create_revision(self.keys.restoring(generation), CompareResult::Greater, 0)
    }

    fn put(&self, generation: &str, resource: &Resource) -> Result<(Vec<u8>, Vec<u8>)> {
        let document = resource.written();
        let refused = |message: String| {
            Error::new(ErrorKind::InvalidInput, OPERATION, message)
                .with_context("store", self.client.name())
                .with_context("resource", &resource.reference)
        };
        if document.bytes.len() > self.largest {
            let message = format!("a document has {} bytes, and {} is the most", document.bytes.len(), self.largest);
            return Err(refused(message).with_context("limit", self.largest));
        }
        let value = value::encode(document, WriteId::new())
            .ok_or_else(|| refused("documents of this format have no form in etcd".to_owned()))?;
        Ok((self.keys.resource(generation, &resource.reference), value))
    }

    async fn write_chunk(&self, generation: &str, puts: Vec<RequestOp>) -> Result<()> {
        let mut call = self.call();
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            // Without the comparison, a chunk that lands after the flip would undo later writes.
            let txn = TxnRequest::when([self.is_live(&view), self.is_under_way(generation)]).and_then(puts.clone());
            let mut answer = self.client.txn(&mut call, txn.or_else(self.read_state(generation))).await?;
            if answer.succeeded {
                return Ok(());
            }
            self.update_view(answer.one())?;
            if answer.one().is_none() {
                return Err(self.overtaken());
            }
        }
    }

    fn read_state(&self, generation: &str) -> [RequestOp; 2] {
        [self.get_pointer(), RequestOp::get(self.keys.restoring(generation))]
    }

    fn overtaken(&self) -> Error {
        Error::new(ErrorKind::Conflict, OPERATION, "another restore ended first, and removed this one")
            .with_context("store", self.client.name())
    }

    /// Makes the generation the live one.
    async fn flip(&self, generation: &Arc<str>) -> Result<Revision> {
        let mut call = self.call();
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            let live = RequestOp::put(self.keys.pointer(), generation.as_bytes());
            let done = RequestOp::delete(self.keys.restoring(generation));
            let txn = TxnRequest::when([self.is_live(&view), self.is_under_way(generation)]).and_then([live, done]);
            call.writes = true;
            let tried = self.client.try_txn(&mut call, txn.or_else(self.read_state(generation))).await;
            call.writes = false;
            let mut answer = match tried {
                Err(fault) if fault.recovery == Recovery::Alarm && !call.uncertain => {
                    call.uncertain = fault.may_have_landed();
                    return self.flipped(&mut call, generation, fault.error).await;
                }
                tried => tried.map_err(|fault| fault.error)?,
            };
            if answer.succeeded {
                self.set_view(View { pointer: answer.revision, generation: Some(Arc::clone(generation)) });
                return Ok(Revision(answer.revision));
            }
            let now = self.update_view(answer.one())?;
            if now.generation.as_ref() == Some(generation) {
                // An earlier attempt, whose response was lost, did it.
                return Ok(Revision(now.pointer));
            }
            if answer.one().is_none() {
                // Another restore swept the marker away, or replaced this generation after it had been live.
                return Err(if call.uncertain { call.unknown() } else { self.overtaken() });
            }
            call.uncertain = false;
        }
    }

    /// Outcome of a flip that an alarm of the cluster refused: it may have landed all the same.
    async fn flipped(&self, call: &mut Call, generation: &Arc<str>, refusal: Error) -> Result<Revision> {
        let mut answer = self.client.txn(call, TxnRequest::of([self.get_pointer()])).await?;
        let now = self.update_view(answer.one())?;
        if now.generation.as_ref() == Some(generation) { Ok(Revision(now.pointer)) } else { Err(refusal) }
    }

    /// Removes every generation that is not live, and every restore that began before this one ended.
    async fn sweep(&self, ended: u64) -> Result<()> {
        let KeyRange { mut from, to } = self.keys.data();
        loop {
            let mut call = self.call();
            let first = RangeRequest::between(from.clone(), to.clone()).limit(1).keys_only();
            let txn = TxnRequest::of([self.get_pointer(), first.into()]);
            let mut answer = self.client.txn(&mut call, txn).await?;
            let live = self.update_view(answer.one())?.generation;
            let Some(first) = answer.one() else { return Ok(()) };
            let Some((generation, _)) = self.keys.parse(&first.key) else {
                from = keys::after(&first.key);
                continue;
            };
            if Some(generation) != live.as_deref() {
                self.discard(generation, ended).await?;
            }
            from = self.keys.generation(generation).to;
        }
    }

    /// Removes a generation that is not live, unless its restore began after this revision.
    async fn discard(&self, generation: &str, ended: u64) -> Result<()> {
        let marker = self.keys.restoring(generation);
        let before = Compare::create_revision(marker.clone(), CompareResult::Less, signed(ended.saturating_add(1)));
        let stop = TxnRequest::when([before]).and_then([RequestOp::delete(marker)]);
        if !self.client.txn(&mut self.call(), stop).await?.succeeded {
            return Ok(());
        }
        let KeyRange { mut from, to } = self.keys.generation(generation);
        loop {
            let mut call = self.call();
            let some = RangeRequest::between(from.clone(), to.clone()).limit(SWEEP).keys_only();
            let mut answer = self.client.txn(&mut call, TxnRequest::of([some.into()])).await?;
            let range = answer.range();
            let Some(last) = range.kvs.last() else { return Ok(()) };
            let next = keys::after(&last.key);
            let remove = RequestOp::delete_between(from, next.clone());
            // The generation may have become live since it was read: then nothing is removed.
            let live = Compare::value(self.keys.pointer(), CompareResult::NotEqual, generation);
            self.client.txn(&mut call, TxnRequest::when([live]).and_then([remove])).await?;
            if !range.more {
                return Ok(());
            }
            from = next;
        }
    }
}
