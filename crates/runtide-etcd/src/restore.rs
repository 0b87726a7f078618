//! Replaces everything: writes a new generation beside the one that is live, and makes it the live one in one transaction.
//!
//! What is written meanwhile is seen by nobody. Each chunk compares the pointer and the mark of this restore, so that one
//! that lands late changes nothing that is live, and so that of two restores at once the second to end fails.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Resource, Revision, StoreSnapshotReader},
};
use tokio::io::AsyncRead;

use crate::{
    call::Call,
    keys::{self, KeyRange},
    store::Inner,
    value::{self, Mark},
    view::{View, signed},
    wire::{Compare, CompareResult, RangeRequest, RequestOp, TxnRequest},
};

const OPERATION: &str = "etcd.restore";

/// Operations in a transaction: members take 128 unless told otherwise.
const CHUNK: usize = 100;

/// Bytes that are read ahead of what is written.
const HELD: usize = 8 << 20;

/// Keys that are removed at a time, so that no single transaction holds the members up.
const SWEEP: i64 = 1000;

/// A restore under way.
struct Restored<'a> {
    inner: &'a Inner,
    generation: Arc<str>,
    /// Something of it may be in etcd.
    begun: bool,
}

impl Restored<'_> {
    async fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let mark = RequestOp::put(self.inner.keys.restoring(&self.generation), Vec::new());
        self.inner.client.txn(&mut self.inner.call(), TxnRequest::of([mark])).await.map(drop)
    }

    /// Writes all that the snapshot has. Nothing is believed before its seal was found to be right, which is when this ends. Of
    /// a snapshot that fits into what is held here, nothing is written before that.
    async fn fill(&mut self, reader: &mut StoreSnapshotReader<'_>) -> Result<()> {
        let mut held: Vec<Vec<RequestOp>> = Vec::new();
        let (mut puts, mut bytes, mut all) = (Vec::with_capacity(CHUNK), 0, 0);
        while let Some(resource) = reader.next().await? {
            let (key, value) = self.inner.put(&self.generation, &resource)?;
            let size = key.len() + value.len() + 32;
            if puts.len() == CHUNK || !puts.is_empty() && bytes + size > self.inner.largest {
                held.push(std::mem::take(&mut puts));
                bytes = 0;
            }
            bytes += size;
            all += size;
            puts.push(RequestOp::put(key, value));
            if all > HELD {
                self.write(&mut held).await?;
                all = bytes;
            }
        }
        if !puts.is_empty() {
            held.push(puts);
        }
        self.write(&mut held).await
    }

    async fn write(&mut self, held: &mut Vec<Vec<RequestOp>>) -> Result<()> {
        for chunk in held.drain(..) {
            self.begin().await?;
            self.inner.write_chunk(&self.generation, chunk).await?;
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut restored = Restored { inner: self, generation: keys::new_generation().into(), begun: false };
        let outcome = async {
            restored.fill(&mut reader).await?;
            restored.begin().await?;
            self.flip(&restored.generation).await
        };
        match outcome.await {
            Ok(revision) => {
                // What is left is swept by the next restore.
                if let Err(error) = self.sweep(revision.0).await {
                    tracing::warn!(store = self.client.name(), %error, "what was replaced is not removed yet");
                }
                Ok(revision)
            }
            // It may be live: then it must not be touched.
            Err(error) if error.context().iter().any(|(key, _)| *key == "outcome") => Err(error),
            Err(error) => {
                if restored.begun
                    && let Err(error) = self.discard(&restored.generation, u64::MAX).await
                {
                    tracing::warn!(store = self.client.name(), %error, "a restore that failed is not removed yet");
                }
                Err(error)
            }
        }
    }

    fn call(&self) -> Call {
        Call::new(OPERATION, self.request_timeout)
    }

    /// That nobody has swept this restore away.
    fn goes_on(&self, generation: &str) -> Compare {
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
        let value = value::encode(document, Mark::new())
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
            // A chunk that lands after the flip would undo what was written since.
            let txn = TxnRequest::when([self.is(&view), self.goes_on(generation)]).and_then(puts.clone());
            let mut answer = self.client.txn(&mut call, txn.or_else(self.look(generation))).await?;
            if answer.held {
                return Ok(());
            }
            self.see(answer.one())?;
            if answer.one().is_none() {
                return Err(self.overtaken());
            }
        }
    }

    fn look(&self, generation: &str) -> [RequestOp; 2] {
        [self.get_pointer(), RequestOp::get(self.keys.restoring(generation))]
    }

    fn overtaken(&self) -> Error {
        Error::new(ErrorKind::Conflict, OPERATION, "another restore ended first, and swept this one away")
            .with_context("store", self.client.name())
    }

    /// Makes it the live one.
    async fn flip(&self, generation: &Arc<str>) -> Result<Revision> {
        let mut call = self.call();
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            let live = RequestOp::put(self.keys.pointer(), generation.as_bytes());
            let done = RequestOp::delete(self.keys.restoring(generation));
            let txn = TxnRequest::when([self.is(&view), self.goes_on(generation)]).and_then([live, done]);
            call.writes = true;
            let answer = self.client.txn(&mut call, txn.or_else(self.look(generation))).await;
            call.writes = false;
            let mut answer = answer?;
            if answer.held {
                self.believe(View { pointer: answer.revision, generation: Some(Arc::clone(generation)) });
                return Ok(Revision(answer.revision));
            }
            let now = self.see(answer.one())?;
            if now.generation.as_ref() == Some(generation) {
                // An attempt without an answer did it.
                return Ok(Revision(now.pointer));
            }
            if answer.one().is_none() {
                // Either somebody swept it away, or it was live for a moment, and another restore is now.
                return Err(if call.maybe { call.unknown() } else { self.overtaken() });
            }
            call.maybe = false;
        }
    }

    /// Removes every generation that is not live, and with it every restore that began before this one ended.
    async fn sweep(&self, ended: u64) -> Result<()> {
        let KeyRange { mut from, to } = self.keys.data();
        loop {
            let mut call = self.call();
            let first = RangeRequest::between(from.clone(), to.clone()).limit(1).keys_only();
            let txn = TxnRequest::of([self.get_pointer(), first.into()]);
            let mut answer = self.client.txn(&mut call, txn).await?;
            let live = self.see(answer.one())?.generation;
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
        if !self.client.txn(&mut self.call(), stop).await?.held {
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
            // Never what is live, whatever happened since it was looked at.
            let live = Compare::value(self.keys.pointer(), CompareResult::NotEqual, generation);
            self.client.txn(&mut call, TxnRequest::when([live]).and_then([remove])).await?;
            if !range.more {
                return Ok(());
            }
            from = next;
        }
    }
}
