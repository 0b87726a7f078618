//! [`Wal`]: the one writer of a directory.

use std::{fmt, future::poll_fn, ops::RangeInclusive, path::Path, sync::Arc};

use super::{
    anchor::Anchor,
    commit::{Committer, Pending},
    corruption::Corruption,
    format::{MAX_BATCH, MAX_RECORD, frame_size},
    hand_over::HandOver,
    hook::{CommitHook, Forming},
    open::{self, Repair},
    options::{OnCorruption, WalOptions},
    published::lock,
    queue::Request,
    reader::WalReader,
    record::{ReadFrom, Record, RecordKind, Seq},
    sync::{
        Mutex,
        thread::{self, JoinHandle},
    },
};
use crate::error::{Error, ErrorKind, Result};

/// Another name for [`Wal`], for code that also has readers.
pub type WalWriter = Wal;

/// The one writer of a directory. Clones share it, and it can be used from any thread and any task.
///
/// # Behavior
/// * Records are in the log in the order of their numbers, and get them in the order in which calls were first polled (or, for
///   the blocking ones, made).
/// * Dropping the last clone closes the log: it waits until every appended record is synced, which takes about one sync.
///   [`Wal::close`] does the same and returns an error if that fails.
/// * It needs no async runtime: its commit thread makes the commits, or the thread of a blocked caller does.
/// * Memory: two groups of at most 1 MiB, or one batch if that is larger, and the index of one segment.
///
/// # Errors
/// A failed write or sync, which includes a full disk, fails every call whose records were not yet durable, and every later
/// call, until the log is opened again: [`Unavailable`](ErrorKind::Unavailable) if the disk was full, otherwise
/// [`Unexpected`](ErrorKind::Unexpected) or [`PermissionDenied`](ErrorKind::PermissionDenied). Nothing is tried again. Such a
/// record may be there after the next opening. Acknowledged records stay readable.
#[derive(Clone)]
pub struct Wal {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) committer: Arc<Committer>,
    pub(super) on_corruption: OnCorruption,
    repaired: Option<Repair>,
    corruption: Option<Corruption>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Wal {
    /// The longest payload in bytes: 16 MiB. A longer one is [`InvalidInput`](ErrorKind::InvalidInput).
    pub const MAX_RECORD: usize = MAX_RECORD;

    /// The most bytes in one batch: 64 MiB, each record counted with 32 bytes more than its payload, rounded up to 8. A
    /// larger one is [`InvalidInput`](ErrorKind::InvalidInput).
    pub const MAX_BATCH: usize = MAX_BATCH;

    /// Opens a log for writing, or creates one, with its folder if that does not exist.
    ///
    /// Blocks: next to no time after an orderly close, and for the reading of one segment after a crash. A torn tail is copied
    /// aside and cut, and the cut is durable before this returns ([`Wal::repaired`]). Nothing else is ever repaired.
    ///
    /// # Errors
    /// * [`Conflict`](ErrorKind::Conflict): another writer has it open, here or in another process; the context names the holder.
    /// * [`Corrupt`](ErrorKind::Corrupt): the last segment is corrupt before its tail, or a segment is missing; the context names
    ///   segment, offset and records. [`OnCorruption::Continue`] opens the log even so if a commit or the file `begin` is
    ///   corrupt; with a corrupt header, a missing segment, or commits that contradict each other, only
    ///   [`salvage`](super::salvage()) helps.
    /// * [`Unauthenticated`](ErrorKind::Unauthenticated): the key is missing or wrong;
    ///   [`InvalidInput`](ErrorKind::InvalidInput): a key was given, and the log was created without one; or the log is for
    ///   something else ([`WalPurpose`](super::WalPurpose)). Nothing was changed.
    /// * [`Unsupported`](ErrorKind::Unsupported): the log is of a later version of the format. Nothing was changed.
    /// * The errors of the disk.
    #[expect(clippy::needless_pass_by_value, reason = "options are given away, here as everywhere")]
    pub fn open(dir: &Path, options: WalOptions) -> Result<Self> {
        let opened = open::open(dir, &options)?;
        let committer = Arc::new(Committer::new(opened.engine));
        let runs = Arc::clone(&committer);
        let thread =
            thread::Builder::new().name("runtide-wal".to_owned()).spawn(move || runs.run()).map_err(|error| {
                Error::new(ErrorKind::Unavailable, "wal.open", "the system cannot start a thread").with_source(error)
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                committer,
                on_corruption: options.on_corruption,
                repaired: opened.repaired,
                corruption: opened.corruption,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// The torn tail that opening cut, if there was one.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.repaired.as_ref()
    }

    /// The corruption that opening found and, by [`OnCorruption::Continue`], left where it is.
    pub fn corruption(&self) -> Option<&Corruption> {
        self.inner.corruption.as_ref()
    }

    /// Appends a record, and returns its number when it is durable as the log's [`Durability`](super::Durability) says.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the payload is longer than [`Wal::MAX_RECORD`] or the kind is reserved,
    /// and nothing was written; [`Cancelled`](ErrorKind::Cancelled) if the log was closed; a failure of the log, see [`Wal`].
    ///
    /// # Cancel safety
    /// A dropped append may still be written, or may not have begun. The log stays usable.
    ///
    /// ```
    /// use runtide_core::wal::{RecordKind, Seq, Wal, WalOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// assert_eq!(wal.append(RecordKind(1), b"first").await?, Seq(1));
    /// # Ok(()) }
    /// ```
    pub async fn append(&self, kind: RecordKind, payload: &[u8]) -> Result<Seq> {
        check_kind(kind)?;
        let frames = check_size(payload)?;
        Ok(Seq(self.request(Request::One(kind, payload), frames).await?.1))
    }

    /// Appends records together: after a crash all of them are there, or none. They have consecutive numbers.
    ///
    /// # Errors
    /// As [`Wal::append`]; also [`InvalidInput`](ErrorKind::InvalidInput) if there is no record, or if all together are larger
    /// than [`Wal::MAX_BATCH`].
    ///
    /// # Cancel safety
    /// As [`Wal::append`]; the batch is still written as a whole or not at all.
    ///
    /// ```
    /// use runtide_core::wal::{RecordKind, Seq, Wal, WalOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// let range = wal.append_batch(&[(RecordKind(1), b"debit"), (RecordKind(1), b"credit")]).await?;
    /// assert_eq!(range, Seq(1)..=Seq(2));
    /// # Ok(()) }
    /// ```
    pub async fn append_batch(&self, records: &[(RecordKind, &[u8])]) -> Result<RangeInclusive<Seq>> {
        check_kinds(records)?;
        let frames = check_batch(records)?;
        let (first, last) = self.request(Request::Many(records), frames).await?;
        Ok(Seq(first)..=Seq(last))
    }

    async fn request(&self, request: Request<'_>, frames: usize) -> Result<(u64, u64)> {
        let mut pending = Pending::new(&self.inner.committer, request, frames);
        poll_fn(|cx| pending.poll(cx)).await
    }

    /// [`Wal::append`] for code without a runtime: blocks the thread until the record is durable.
    ///
    /// Of many waiting threads one commits for all, so that a lone thread needs no context switch.
    ///
    /// # Errors
    /// As [`Wal::append`].
    ///
    /// ```
    /// use runtide_core::wal::{RecordKind, Seq, Wal, WalOptions};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// assert_eq!(wal.append_blocking(RecordKind(1), b"first")?, Seq(1));
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    pub fn append_blocking(&self, kind: RecordKind, payload: &[u8]) -> Result<Seq> {
        check_kind(kind)?;
        let frames = check_size(payload)?;
        Ok(Seq(self.inner.committer.block(Request::One(kind, payload), frames)?.1))
    }

    /// [`Wal::append_batch`] for code without a runtime: blocks the thread until the records are durable.
    ///
    /// # Errors
    /// As [`Wal::append_batch`].
    pub fn append_batch_blocking(&self, records: &[(RecordKind, &[u8])]) -> Result<RangeInclusive<Seq>> {
        check_kinds(records)?;
        self.append_reserved_blocking(records)
    }

    /// [`Wal::append_batch_blocking`] for any kind, reserved ones included: for libraries that build their own format on the
    /// log, as the journals of `runtide-journal` do. An application uses its own kinds and [`Wal::append_batch_blocking`].
    ///
    /// # Errors
    /// As [`Wal::append_batch`], except that no kind is refused.
    pub fn append_reserved_blocking(&self, records: &[(RecordKind, &[u8])]) -> Result<RangeInclusive<Seq>> {
        let frames = check_batch(records)?;
        let (first, last) = self.inner.committer.block(Request::Many(records), frames)?;
        Ok(Seq(first)..=Seq(last))
    }

    /// Has a hook follow the commits: for what stands on the log and shows what it writes only once that is durable, as the
    /// store of `runtide-journal` does. Before the first call of [`Wal::hand_over`].
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the log has one.
    pub fn set_commit_hook(&self, hook: Arc<dyn CommitHook>) -> Result<()> {
        let committer = &self.inner.committer;
        let set = committer.hooked.set(hook, committer.published.acked());
        set.map_err(|_| Error::new(ErrorKind::Conflict, "wal.hook", "the log has a commit hook already"))
    }

    /// Runs `fill`, which decides what is to be written and pushes it, in the order of the log: no other call comes between what
    /// it decides and its records. Returns what `fill` returned when everything that was handed over up to then is durable
    /// and the log's [`CommitHook`] has seen it; at once, if `fill` pushed nothing and all of that is so already.
    ///
    /// `payload` is the most bytes that `fill` will push. It holds up every other appender: it waits for nothing but a short lock.
    /// Any kind may be pushed, as in [`Wal::append_reserved_blocking`].
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `payload` is more than [`Wal::MAX_RECORD`];
    /// [`Cancelled`](ErrorKind::Cancelled) if the log was closed; a failure of the log, see [`Wal`].
    ///
    /// # Cancel safety
    /// Dropped before `fill` ran, nothing happens. Dropped later, what it pushed is written all the same.
    pub fn hand_over<T: Unpin, F: FnOnce(&mut Forming<'_>) -> T + Unpin>(
        &self,
        payload: usize,
        fill: F,
    ) -> impl Future<Output = Result<T>> + use<'_, T, F> {
        let frames = check_length(payload);
        HandOver::new(&self.inner.committer, frames, fill)
    }

    /// Makes every acknowledged record durable. Useful where commits are not synced one by one
    /// ([`Durability::Every`](super::Durability::Every), [`Durability::Os`](super::Durability::Os)).
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) if the log was closed; a failure of the log, see [`Wal`].
    ///
    /// # Cancel safety
    /// The sync may still happen.
    pub async fn sync(&self) -> Result<()> {
        self.request(Request::Sync, 0).await.map(drop)
    }

    /// [`Wal::sync`] for code without a runtime: blocks the thread until it is done.
    ///
    /// # Errors
    /// As [`Wal::sync`].
    pub fn sync_blocking(&self) -> Result<()> {
        self.inner.committer.block(Request::Sync, 0).map(drop)
    }

    /// Returns a reader of the acknowledged records from a position on. This call already reads from the disk, to find the
    /// position.
    ///
    /// # Errors
    /// [`Expired`](ErrorKind::Expired) if retention has dropped the record, [`InvalidInput`](ErrorKind::InvalidInput) if it lies
    /// beyond the next record, [`Corrupt`](ErrorKind::Corrupt) if a header is corrupt, and the errors of the disk.
    ///
    /// ```
    /// use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// wal.append_blocking(RecordKind(1), b"hello")?;
    /// let mut reader = wal.reader(ReadFrom::Start)?;
    /// assert_eq!(&reader.next().unwrap()?.bytes[..], b"hello");
    /// assert!(reader.next().is_none());
    /// wal.append_blocking(RecordKind(1), b"more")?;
    /// assert_eq!(&reader.next().unwrap()?.bytes[..], b"more");
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    pub fn reader(&self, from: ReadFrom) -> Result<WalReader> {
        let inner = &self.inner;
        let committer = &inner.committer;
        let bound = Some(Arc::clone(&committer.published));
        WalReader::start(Arc::clone(&committer.disk), &committer.dir, from, inner.on_corruption, bound)
    }

    /// Returns the last `n` records, oldest first, or all if there are fewer. It uses the index, so that it reads little more
    /// than these.
    ///
    /// # Errors
    /// As [`Wal::reader`]; [`Corrupt`](ErrorKind::Corrupt) if one of them is corrupt.
    pub fn tail(&self, n: usize) -> Result<Vec<Record>> {
        let acked = self.inner.committer.published.acked();
        let first = acked.saturating_add(1).saturating_sub(n as u64).max(1);
        let reader = match self.reader(ReadFrom::Seq(Seq(first))) {
            Err(error) if error.kind() == ErrorKind::Expired => self.reader(ReadFrom::Start)?,
            reader => reader?,
        };
        reader.take_while(|record| record.as_ref().map_or(true, |record| record.seq.0 <= acked)).collect()
    }

    /// The end of the acknowledged chain: keep it elsewhere, and pass it to [`verify`](super::verify()) later.
    ///
    /// If commits are not synced one by one, call [`Wal::sync`] first: a power cut could take the record that the anchor
    /// names.
    pub fn anchor(&self) -> Anchor {
        self.inner.committer.published.head()
    }

    /// Closes the log for all clones: waits until every appended record is synced, writes a footer with the log's end, and
    /// releases the lock. Blocks for about one sync. Later appends are [`Cancelled`](ErrorKind::Cancelled); reading goes on.
    ///
    /// # Errors
    /// The errors of the disk. After a failure of the log it is closed without an error: that failure was reported before.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        self.committer.close();
        let mut thread = lock(&self.thread);
        // A waker that the commit thread calls may drop the last clone, and a thread cannot join itself.
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
        // A caller that needs the error calls `Wal::close`.
        let _ = self.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.inner.committer.dir)
            .field("head", &self.anchor().seq)
            .finish_non_exhaustive()
    }
}

fn check_kind(kind: RecordKind) -> Result<()> {
    if kind.is_reserved() {
        let message = "kinds from 0x8000 on belong to the crate's own journals";
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", message).with_context("kind", kind));
    }
    Ok(())
}

fn check_kinds(records: &[(RecordKind, &[u8])]) -> Result<()> {
    records.iter().try_for_each(|(kind, _)| check_kind(*kind))
}

/// Returns the size of the record's frame in bytes; refuses a payload that is too long.
fn check_size(payload: &[u8]) -> Result<usize> {
    check_length(payload.len())
}

/// The size of the frame of a payload of so many bytes.
fn check_length(payload: usize) -> Result<usize> {
    if payload > MAX_RECORD {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "the record is too long")
            .with_context("bytes", payload)
            .with_context("most", MAX_RECORD));
    }
    Ok(usize::try_from(frame_size(payload as u64)).unwrap_or(usize::MAX))
}

/// Returns the size of all frames in bytes; refuses an empty batch, and one that is too large.
fn check_batch(records: &[(RecordKind, &[u8])]) -> Result<usize> {
    if records.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "a batch has at least one record"));
    }
    let mut frames = 0_usize;
    for (_, payload) in records {
        frames = frames.saturating_add(check_size(payload)?);
    }
    if frames > MAX_BATCH {
        return Err(Error::new(ErrorKind::InvalidInput, "wal.append", "the batch is too large")
            .with_context("bytes", frames)
            .with_context("most", MAX_BATCH));
    }
    Ok(frames)
}
