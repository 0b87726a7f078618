//! [`OperationLog`]: opening, writing, checkpoints.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use serde::Serialize;

use super::{
    handle::{Held, Operation},
    open_operations::{Entry, OpenOperations},
    record::{OperationRecord, OwnerId, Stage},
    undo::Undo,
};
use crate::{
    JournalOptions,
    blocking::run_blocking,
    format::{self, Journal},
};
use runtide_core::{
    Error, ErrorKind, Result,
    backend::lock,
    manager::OperationId,
    wal::{Seq, Wal},
};

/// The size of a segment unless told: operations are few and small.
const SEGMENT_BYTES: std::num::NonZeroU64 = std::num::NonZeroU64::new(1 << 20).unwrap();

/// Operations in a log, so that a crash leaves nothing behind.
///
/// An operation is a row of steps that all happen or are all undone. Before each step acts, what takes it back is in the log,
/// durably; after a crash, [`recover`](Self::recover) finds what was in flight and undoes it. What it makes carries the labels
/// [`OWNER_LABEL`](super::OWNER_LABEL) and [`OPERATION_LABEL`](super::OPERATION_LABEL).
///
/// Clones are the same log. The log's lock is the owner's lease: who can open it owns what is in flight in it, and no other
/// process recovers an owner that lives.
///
/// # Behavior
/// * Memory, and what opening reads, grow with what is in flight, not with what was ever done: after a checkpoint (every
///   4,096 records unless told) what is finished may go, by whole segments of 1 MiB unless told.
/// * After a failed write every call returns that failure, until the log is opened again.
///
/// ```
/// use runtide_journal::{JournalOptions, OperationLog, Stage, Undo, UndoAction};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let log = OperationLog::open(dir.path(), "shop".into(), JournalOptions::default())?;
/// let mut operation = log.submit("volume.make", &"data").await?;
/// operation.enter(Stage::Validated).await?;
/// operation.enter(Stage::Started).await?;
/// operation.will(Undo::new("docker:local", UndoAction::RemoveVolume, "data").made_by(operation.id())).await?;
/// // … the volume is made here, with `log.labels(operation.id())` on it …
/// operation.enter(Stage::Completed).await?;
/// assert!(log.in_flight().is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct OperationLog {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    wal: Wal,
    owner: OwnerId,
    options: JournalOptions,
    /// Who writes; held while the disk works.
    pen: Mutex<Pen>,
    /// Never held while the disk works.
    pub(super) open_operations: Mutex<OpenOperations>,
}

#[derive(Debug)]
struct Pen {
    checkpoint: Seq,
    since: u64,
}

impl OperationLog {
    /// Opens, or makes, the log in a folder; blocks while it reads what came after the last checkpoint.
    ///
    /// # Errors
    /// `Conflict` while somebody else has it open; `InvalidInput` if the folder holds another log; `Unsupported` for a log of
    /// another format version; as [`Wal::open`](runtide_core::wal::Wal::open).
    pub fn open(dir: &Path, owner: OwnerId, options: JournalOptions) -> Result<Self> {
        let mut options = options;
        options.wal.segment_bytes.get_or_insert(SEGMENT_BYTES);
        let wal = Wal::open(dir, options.wal.clone())?;
        let (checkpoint, records) = format::replay(Journal::Operations, &wal)?;
        let (mut open_operations, mut since) = (OpenOperations::default(), 0);
        for record in records {
            if let Some(entry) = format::decode::<Entry>(Journal::Operations, &record?)? {
                open_operations.apply(entry);
            }
            since += 1;
        }
        let (pen, open_operations) = (Mutex::new(Pen { checkpoint, since }), Mutex::new(open_operations));
        Ok(Self { inner: Arc::new(Inner { wal, owner, options, pen, open_operations }) })
    }

    /// Whose log it is.
    pub fn owner(&self) -> &OwnerId {
        &self.inner.owner
    }

    /// The labels of what an operation makes.
    pub fn labels(&self, operation: &OperationId) -> [(&'static str, String); 2] {
        [(super::OWNER_LABEL, self.owner().to_string()), (super::OPERATION_LABEL, operation.to_string())]
    }

    /// Everything that is not finished, oldest first.
    pub fn in_flight(&self) -> Vec<OperationRecord> {
        lock(&self.inner.open_operations).open().cloned().collect()
    }

    /// Begins an operation: durable when it returns. The `request` is for people and for who recovers; it is stored as it
    /// is, so keep secrets out of it.
    ///
    /// # Errors
    /// `InvalidInput` if the request cannot be written as JSON; as an append to the log.
    ///
    /// # Cancel safety
    /// Dropped, the operation may be in the log: `recover` takes it for what it is, an operation that did nothing.
    pub async fn submit(&self, name: &str, request: &(impl Serialize + Sync + ?Sized)) -> Result<Operation> {
        let request = serde_json::to_value(request).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "operations.submit", "the request cannot be written as JSON")
                .with_source(error)
        })?;
        let id = OperationId::from(uuid::Uuid::now_v7().to_string());
        let held = Held::take(self, &id);
        let (owner, name) = (self.owner().clone(), name.to_owned());
        self.write(Entry::Submitted { id: id.clone(), owner, name, request }).await?;
        Ok(Operation::new(self.clone(), id, held))
    }

    /// Says that the caller has undone a [`Custom`](super::UndoAction::Custom) step of an operation that is not finished;
    /// durable when it returns. Then [`recover`](Self::recover) goes on from there.
    ///
    /// # Errors
    /// `Conflict` if that operation does not owe this step; as an append to the log.
    pub async fn settle(&self, operation: &OperationId, undo: &Undo) -> Result<()> {
        self.write(Entry::Undone { id: operation.clone(), undo: undo.clone() }).await.map(drop)
    }

    /// One entry, durable when it returns. It is in the log and in the open_operations, or in neither, also if this is dropped.
    pub(super) async fn write(&self, entry: Entry) -> Result<Seq> {
        let inner = Arc::clone(&self.inner);
        run_blocking("operations.write", move || inner.write(entry)).await
    }

    pub(super) fn record(&self, id: &OperationId) -> Option<OperationRecord> {
        lock(&self.inner.open_operations).get(id).cloned()
    }

    /// How far it is. What is not there is finished.
    pub(super) fn stage(&self, id: &OperationId) -> Option<Stage> {
        lock(&self.inner.open_operations).get(id).map(|record| record.stage.clone())
    }
}

impl Inner {
    fn write(&self, entry: Entry) -> Result<Seq> {
        let mut pen = lock(&self.pen);
        lock(&self.open_operations).check(&entry)?;
        let payload = format::encode(Journal::Operations, pen.checkpoint, &entry)?;
        let seq = *self.wal.append_reserved_blocking(&[(Journal::Operations.kind(), &payload)])?.end();
        let rows = {
            let mut open_operations = lock(&self.open_operations);
            open_operations.apply(entry);
            open_operations.len()
        };
        pen.since += 1;
        if self.options.is_due(pen.since, rows)
            && let Err(error) = self.checkpoint(&mut pen)
        {
            // The entry is durable, and the log is as good as it was: only longer than it need be.
            tracing::warn!(%error, "no checkpoint");
        }
        Ok(seq)
    }

    fn checkpoint(&self, pen: &mut Pen) -> Result<()> {
        pen.since = 0;
        let at = format::next(&self.wal);
        let open = lock(&self.open_operations).open().cloned().collect();
        let payload = format::encode(Journal::Operations, at, &Entry::Checkpoint(open))?;
        pen.checkpoint = *self.wal.append_reserved_blocking(&[(Journal::Operations.kind(), &payload)])?.end();
        let policy = self.options.retention.clone().unwrap_or_default();
        let keep = policy.keep_from.map_or(pen.checkpoint, |keep| keep.min(pen.checkpoint));
        // A log that is not synced with each commit must be, before what the checkpoint stands for goes.
        self.wal.sync_blocking()?;
        self.wal.retain(policy.with_keep_from(keep)).map(drop)
    }
}

impl fmt::Debug for OperationLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = lock(&self.inner.open_operations).len();
        f.debug_struct("OperationLog")
            .field("owner", &self.inner.owner)
            .field("in_flight", &open)
            .finish_non_exhaustive()
    }
}
