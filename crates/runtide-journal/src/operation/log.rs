//! [`OperationLog`]: open, append, checkpoints.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
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
    wal::{Seq, Wal, WalPurpose},
};

const WRITE: &str = "operations.write";

/// Default bytes of a segment: operations are few and small.
const SEGMENT_BYTES: std::num::NonZeroU64 = std::num::NonZeroU64::new(1 << 20).unwrap();

/// Operations in a log, so that after a crash every unfinished one is undone.
///
/// An operation is a sequence of steps that all happen or are all undone. Before a step acts, its compensation is durably in
/// the log; after a crash, [`recover`](Self::recover) finds the operations in flight and undoes them. The objects that an
/// operation makes carry the labels [`OWNER_LABEL`](super::OWNER_LABEL) and [`OPERATION_LABEL`](super::OPERATION_LABEL).
///
/// Clones share one log. The log's lock is the owner's lease: the process that opens it owns its operations in flight, and no
/// other process can recover them while it runs.
///
/// # Behavior
/// * Memory and the time to open grow with the operations in flight, not with the finished ones: after a checkpoint (every
///   4,096 records by default) finished operations are dropped, by whole segments (1 MiB by default).
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
    closed: AtomicBool,
    owner: OwnerId,
    options: JournalOptions,
    /// Serializes all appends. Locked while the disk works.
    writer: Mutex<Writer>,
    /// Never locked while the disk works.
    pub(super) open_operations: Mutex<OpenOperations>,
}

#[derive(Debug)]
struct Writer {
    /// The last checkpoint; 0 before the first one.
    checkpoint: Seq,
    /// Records since the last checkpoint.
    since: u64,
}

impl OperationLog {
    /// Opens or creates the log in a folder. Blocks while it reads the records from the last checkpoint on.
    ///
    /// # Errors
    /// `Conflict` while another process, or another value, has it open; `InvalidInput` if the folder holds another log;
    /// `Unsupported` for a log of another format version; as [`Wal::open`](runtide_core::wal::Wal::open).
    pub fn open(dir: &Path, owner: OwnerId, options: JournalOptions) -> Result<Self> {
        let mut options = options;
        options.wal.segment_bytes.get_or_insert(SEGMENT_BYTES);
        let wal = Wal::open(dir, options.wal.clone().with_purpose(WalPurpose::Operations))?;
        let (checkpoint, records) = format::replay(Journal::Operations, &wal)?;
        let (mut open_operations, mut since) = (OpenOperations::default(), 0);
        for record in records {
            if let Some(entry) = format::decode::<Entry>(Journal::Operations, &record?)? {
                open_operations.apply(entry);
            }
            since += 1;
        }
        let (writer, open_operations) = (Mutex::new(Writer { checkpoint, since }), Mutex::new(open_operations));
        Ok(Self {
            inner: Arc::new(Inner { wal, closed: AtomicBool::new(false), owner, options, writer, open_operations }),
        })
    }

    /// Closes the log for all clones: a write that is under way becomes durable or is `Cancelled`, and the folder's lock is free
    /// when this returns. Blocks for about one sync. Closing twice is harmless.
    ///
    /// The lock was the owner's lease: later calls are `Cancelled`, and an operation that is still in flight is left as it is, for
    /// [`recover`](Self::recover) of the next process.
    ///
    /// # Errors
    /// The errors of the disk. After a failure of the log it is closed without an error: that failure was reported before.
    pub fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.wal.close()
    }

    /// Refuses a call on a log that is closed: its lease may be another process's by now.
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }

    /// The owner, whose label is on every object that an operation of this log makes.
    pub fn owner(&self) -> &OwnerId {
        &self.inner.owner
    }

    /// The labels for the objects that an operation makes.
    pub fn labels(&self, operation: &OperationId) -> [(&'static str, String); 2] {
        [(super::OWNER_LABEL, self.owner().to_string()), (super::OPERATION_LABEL, operation.to_string())]
    }

    /// Every unfinished operation, oldest first.
    pub fn in_flight(&self) -> Vec<OperationRecord> {
        lock(&self.inner.open_operations).open().cloned().collect()
    }

    /// Records that the caller has undone a [`Custom`](super::UndoAction::Custom) step of an unfinished operation; durable
    /// when it returns. Then [`recover`](Self::recover) continues from there.
    ///
    /// # Errors
    /// `Conflict` if this step of that operation is not pending; as an append to the log.
    pub async fn settle(&self, operation: &OperationId, undo: &Undo) -> Result<()> {
        self.write(Entry::Undone { id: operation.clone(), undo: undo.clone() }).await.map(drop)
    }

    /// Appends one entry, durable when it returns. The log and the open operations have it, or neither, even if the future is
    /// dropped.
    pub(super) async fn write(&self, entry: Entry) -> Result<Seq> {
        let inner = Arc::clone(&self.inner);
        run_blocking(WRITE, move || inner.write(entry)).await
    }

    pub(super) fn record(&self, id: &OperationId) -> Option<OperationRecord> {
        lock(&self.inner.open_operations).get(id).cloned()
    }

    /// Its present stage; `None` once it is finished.
    pub(super) fn stage(&self, id: &OperationId) -> Option<Stage> {
        lock(&self.inner.open_operations).get(id).map(|record| record.stage.clone())
    }
}

impl Inner {
    fn write(&self, entry: Entry) -> Result<Seq> {
        let mut writer = lock(&self.writer);
        lock(&self.open_operations).check(&entry)?;
        let payload = format::encode(Journal::Operations, writer.checkpoint, &entry)?;
        let appended = self.wal.append_reserved_blocking(&[(Journal::Operations.kind(), &payload)]);
        let seq = *appended
            .map_err(|error| match error.kind() {
                ErrorKind::Cancelled => closed(WRITE),
                _ => error,
            })?
            .end();
        let rows = {
            let mut open_operations = lock(&self.open_operations);
            open_operations.apply(entry);
            open_operations.len()
        };
        writer.since += 1;
        if self.options.is_due(writer.since, rows)
            && let Err(error) = self.checkpoint(&mut writer)
        {
            // The entry is durable and the log is intact; it is only longer than necessary.
            tracing::warn!(error = format_args!("{error:#}"), "the checkpoint failed");
        }
        Ok(seq)
    }

    fn checkpoint(&self, writer: &mut Writer) -> Result<()> {
        writer.since = 0;
        let at = format::next(&self.wal);
        let open = lock(&self.open_operations).open().cloned().collect();
        let payload = format::encode(Journal::Operations, at, &Entry::Checkpoint(open))?;
        writer.checkpoint = *self.wal.append_reserved_blocking(&[(Journal::Operations.kind(), &payload)])?.end();
        let policy = self.options.retention.clone().unwrap_or_default();
        let keep = policy.keep_from.map_or(writer.checkpoint, |keep| keep.min(writer.checkpoint));
        // A log that is not synced with each commit is synced here, before the records that the checkpoint replaces are dropped.
        self.wal.sync_blocking()?;
        self.wal.retain(policy.with_keep_from(keep)).map(drop)
    }
}

/// The error of every call on a log that is closed.
fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the log was closed")
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
