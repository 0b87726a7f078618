//! Snapshots: Runtide's own, and etcd's.

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Revision, StoreSnapshotSeal, StoreSnapshotWriter},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    call::Call,
    client::positive,
    error::text,
    keys::{self, KeyRange},
    read::PAGE,
    shared::Shared,
    wire::{RangeRequest, RequestOp, TxnRequest},
};

const SNAPSHOT: &str = "etcd.snapshot";
const MAINTENANCE: &str = "etcd.maintenance_snapshot";

impl Shared {
    pub(crate) async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        let mut call = Call::new(SNAPSHOT, self.request_timeout);
        let (generation, revision, count) = loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            let count = view.generation.iter().map(|name| {
                let KeyRange { from, to } = self.keys.generation(name);
                RangeRequest::between(from, to).count_only().into()
            });
            let count: Vec<RequestOp> = count.collect();
            let txn = TxnRequest::when([self.is_live(&view)]).and_then(count).or_else([self.get_pointer()]);
            let mut answer = self.client.txn(&mut call, txn).await?;
            if answer.succeeded {
                let revision = answer.revision;
                break (view.generation, revision, positive(answer.range().count));
            }
            self.update_view(answer.one())?;
        };
        let mut writer = StoreSnapshotWriter::begin(out, Revision(revision), count);
        if let Some(generation) = generation {
            let mut range = self.keys.generation(&generation);
            loop {
                let mut call = Call::new(SNAPSHOT, self.request_timeout);
                let part = self.part(&mut call, &range, revision, PAGE).await?;
                if let Some(last) = part.kvs.last() {
                    range.from = keys::after(&last.key);
                }
                for kv in part.kvs {
                    writer.put(&self.resource(kv)?).await?;
                }
                if !part.more {
                    break;
                }
            }
        }
        writer.seal().await
    }

    pub(crate) async fn maintenance_snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        let mut call = Call::new(MAINTENANCE, self.request_timeout);
        let opened = self.client.with_retries(&mut call, |connection| async move { connection.snapshot().await });
        let mut stream = opened.await.map_err(|fault| fault.error)?;
        let mut written = 0;
        loop {
            // The whole snapshot has no deadline, so each message has one.
            let next = timeout(self.request_timeout, stream.message()).await;
            let next = next.map_err(|_| broken("the snapshot stalled"))?;
            let broke_off =
                |status| broken(&format!("the snapshot broke off: {}", text(&status))).with_causes_of(&status);
            let chunk = next.map_err(broke_off)?;
            let Some(chunk) = chunk else { break };
            out.write_all(&chunk.blob).await.map_err(|error| {
                Error::new(ErrorKind::of_disk(&error), MAINTENANCE, "the snapshot cannot be written").with_source(error)
            })?;
            written += u64::try_from(chunk.blob.len()).unwrap_or(0);
            if chunk.remaining_bytes == 0 && chunk.blob.is_empty() {
                break;
            }
        }
        out.flush().await.map_err(|error| {
            Error::new(ErrorKind::of_disk(&error), MAINTENANCE, "the snapshot cannot be written").with_source(error)
        })?;
        Ok(written)
    }
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, MAINTENANCE, message)
}
