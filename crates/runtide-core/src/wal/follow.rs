//! Following: existing records, then each new one as its commit becomes durable.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    published::Published,
    reader::WalReader,
    record::{ReadFrom, Record},
    writer::Wal,
};
use crate::{error::Result, names::streams};

/// Records that the stream yields in a row before it lets other tasks run: about a block of small records.
const YIELD_AFTER: u32 = 1024;

streams! {
    /// Stream of the existing records, then of each record as it is acknowledged; made by [`Wal::follow`].
    ///
    /// # Behavior
    /// * It yields only acknowledged records, in order, each once.
    /// * It ends when the log was closed and every record was yielded. When a write or a sync of the log fails, it yields every
    ///   acknowledged record, then the error, then ends.
    /// * Corruption is handled as by [`WalReader`]. A follower that falls behind retention by more than 128 segments gets
    ///   [`Expired`](crate::error::ErrorKind::Expired).
    /// * It costs the writer a wake-up and no memory: it reads the files, at its own pace, in the polling thread, 256 KiB at
    ///   a time; after 1,024 records in a row it lets other tasks run. It needs no particular runtime.
    FollowStream => Record;
}

impl Wal {
    /// Reads from a position to the end, and goes on with each record that is acknowledged later.
    ///
    /// # Errors
    /// As [`Wal::reader`].
    ///
    /// ```
    /// use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// let mut records = wal.follow(ReadFrom::End)?;
    /// let seq = wal.append(RecordKind(1), b"news").await?;
    /// assert_eq!(records.next().await.unwrap()?.seq, seq);
    /// # Ok(()) }
    /// ```
    pub fn follow(&self, from: ReadFrom) -> Result<FollowStream> {
        let published = Arc::clone(&self.inner.committer.published);
        Ok(FollowStream::new(Follow { reader: self.reader(from)?, published, in_a_row: 0, done: false }))
    }
}

struct Follow {
    reader: WalReader,
    published: Arc<Published>,
    /// Records yielded since other tasks last ran.
    in_a_row: u32,
    done: bool,
}

impl Stream for Follow {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.in_a_row >= YIELD_AFTER {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Checked before reading: every record that was acknowledged before the end is still yielded.
        let ended = |published: &Published| published.closed() || published.failed().is_some();
        let mut has_ended = ended(&self.published);
        loop {
            if let Some(item) = self.reader.next() {
                self.in_a_row += 1;
                return Poll::Ready(Some(item));
            }
            self.in_a_row = 0;
            if self.reader.is_done() {
                self.done = true;
                return Poll::Ready(None);
            }
            if has_ended {
                self.done = true;
                return Poll::Ready(self.published.failed().map(|failed| Err(failed.error())));
            }
            self.published.follow(cx.waker());
            has_ended = ended(&self.published);
            if !has_ended && self.published.acked() < self.reader.next_seq().0 {
                return Poll::Pending;
            }
        }
    }
}
