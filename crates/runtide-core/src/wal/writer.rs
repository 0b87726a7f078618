//! [`Wal`]: the one writer of a directory.

use std::{
    fmt,
    future::poll_fn,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use super::{
    anchor::Anchor,
    commit::{Committer, Pending},
    damage::Damage,
    format::{MAX_BATCH, MAX_RECORD, frame_size},
    fs::Disk,
    open::{self, Repair},
    options::{OnDamage, WalOptions},
    published::lock,
    queue::Request,
    reader::WalReader,
    record::{ReadFrom, Record, RecordKind, Seq},
};
use crate::{Error, ErrorKind, Result};

/// The writer under its role's name.
pub type WalWriter = Wal;

/// A directory's one writer. Clones share it; the last one to be dropped closes the log.
#[derive(Clone)]
pub struct Wal {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) committer: Arc<Committer>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) on_damage: OnDamage,
    repaired: Option<Repair>,
    damage: Option<Damage>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
    /// One retention at a time.
    pub(super) retention: Mutex<()>,
}

impl Wal {
    /// The longest payload in bytes: 16 MiB. A longer one is [`InvalidInput`](ErrorKind::InvalidInput).
    pub const MAX_RECORD: usize = MAX_RECORD;

    /// The most bytes in one batch: 64 MiB, each record counted with 32 bytes more than its payload, rounded up to 8. A
    /// larger one is [`InvalidInput`](ErrorKind::InvalidInput).
    pub const MAX_BATCH: usize = MAX_BATCH;

    /// Opens for writing.
    pub fn open(dir: &Path, options: WalOptions) -> Result<Self> {
        let opened = open::open(dir, &options)?;
        let disk = Arc::clone(&opened.engine.disk);
        let committer = Arc::new(Committer::new(opened.engine));
        let runs = Arc::clone(&committer);
        let thread =
            thread::Builder::new().name("runtide-wal".to_owned()).spawn(move || runs.run()).map_err(|error| {
                Error::new(ErrorKind::Unavailable, "wal.open", "the system gives no thread").with_source(error)
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                committer,
                disk,
                dir: dir.to_owned(),
                on_damage: options.on_damage,
                repaired: opened.repaired,
                damage: opened.damage,
                thread: Mutex::new(Some(thread)),
                retention: Mutex::new(()),
            }),
        })
    }

    /// The torn tail that opening cut, if there was one.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.repaired.as_ref()
    }

    /// The damage that opening found in the last segment and, by [`OnDamage::GoOn`], left where it is.
    pub fn damage(&self) -> Option<&Damage> {
        self.inner.damage.as_ref()
    }

    /// Appends a record.
    pub async fn append(&self, kind: RecordKind, payload: &[u8]) -> Result<Seq> {
        check_kind(kind)?;
        self.put(kind, payload).await
    }

    /// Appends a record of any kind, also of those that belong to this crate.
    pub(crate) async fn put(&self, kind: RecordKind, payload: &[u8]) -> Result<Seq> {
        let frames = check_size(payload)?;
        Ok(Seq(self.request(Request::One(kind, payload), frames).await?.1))
    }

    /// Appends records together.
    pub async fn append_batch(&self, records: &[(RecordKind, &[u8])]) -> Result<RangeInclusive<Seq>> {
        let frames = check_batch(records)?;
        let (first, last) = self.request(Request::Many(records), frames).await?;
        Ok(Seq(first)..=Seq(last))
    }

    async fn request(&self, request: Request<'_>, frames: usize) -> Result<(u64, u64)> {
        let mut pending = Pending::new(&self.inner.committer, request, frames);
        poll_fn(|cx| pending.poll(cx)).await
    }

    /// Appends a record, and blocks the thread until it is durable.
    pub fn append_blocking(&self, kind: RecordKind, payload: &[u8]) -> Result<Seq> {
        check_kind(kind)?;
        let frames = check_size(payload)?;
        Ok(Seq(self.inner.committer.block(Request::One(kind, payload), frames)?.1))
    }

    /// Appends records together, and blocks the thread until they are durable.
    pub fn append_batch_blocking(&self, records: &[(RecordKind, &[u8])]) -> Result<RangeInclusive<Seq>> {
        let frames = check_batch(records)?;
        let (first, last) = self.inner.committer.block(Request::Many(records), frames)?;
        Ok(Seq(first)..=Seq(last))
    }

    /// Syncs.
    pub async fn sync(&self) -> Result<()> {
        self.request(Request::Sync, 0).await.map(drop)
    }

    /// Syncs, and blocks the thread until it is done.
    pub fn sync_blocking(&self) -> Result<()> {
        self.inner.committer.block(Request::Sync, 0).map(drop)
    }

    /// Reads.
    pub fn reader(&self, from: ReadFrom) -> Result<WalReader> {
        let inner = &self.inner;
        let bound = Some(Arc::clone(&inner.committer.published));
        WalReader::start(Arc::clone(&inner.disk), &inner.dir, from, inner.on_damage, bound)
    }

    /// The last `n` records, or all if there are fewer.
    pub fn tail(&self, n: usize) -> Result<Vec<Record>> {
        let acked = self.inner.committer.published.acked();
        let first = acked.saturating_add(1).saturating_sub(n as u64).max(1);
        let reader = match self.reader(ReadFrom::Seq(Seq(first))) {
            Err(error) if error.kind() == ErrorKind::Expired => self.reader(ReadFrom::Start)?,
            reader => reader?,
        };
        reader.take_while(|record| record.as_ref().map_or(true, |record| record.seq.0 <= acked)).collect()
    }

    /// The head of the chain.
    pub fn anchor(&self) -> Anchor {
        self.inner.committer.published.head()
    }

    /// Closes the log.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        self.committer.close();
        let mut thread = lock(&self.thread);
        // A waker that the commit thread calls may drop the last clone: it cannot wait for itself.
        if thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id()) {
            return Ok(());
        }
        let Some(thread) = thread.take() else { return Ok(()) };
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unexpected, "wal.close", "the commit thread panicked")))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who wants to know calls `Wal::close`.
        let _ = self.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("dir", &self.inner.dir).field("head", &self.anchor().seq).finish_non_exhaustive()
    }
}

fn check_kind(kind: RecordKind) -> Result<()> {
    if kind.is_reserved() {
        let message = "kinds from 0x8000 on belong to the crate's own journals";
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", message).with_context("kind", kind));
    }
    Ok(())
}

/// The size of the frame.
fn check_size(payload: &[u8]) -> Result<usize> {
    if payload.len() > MAX_RECORD {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "the record is too long")
            .with_context("bytes", payload.len())
            .with_context("most", MAX_RECORD));
    }
    Ok(usize::try_from(frame_size(payload.len() as u64)).unwrap_or(usize::MAX))
}

/// The size of all frames.
fn check_batch(records: &[(RecordKind, &[u8])]) -> Result<usize> {
    if records.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "a batch has at least one record"));
    }
    let mut frames = 0_usize;
    for (kind, payload) in records {
        check_kind(*kind)?;
        frames = frames.saturating_add(check_size(payload)?);
    }
    if frames > MAX_BATCH {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "the batch is too large")
            .with_context("bytes", frames)
            .with_context("most", MAX_BATCH));
    }
    Ok(frames)
}
