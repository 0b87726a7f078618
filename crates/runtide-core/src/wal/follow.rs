//! Following: what is there, then each commit as it becomes durable.

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

/// After so many records at a stretch the task lets others run: about a block of small records.
const STRETCH: u32 = 1024;

streams! {
    /// What is there, then each record as it is acknowledged; made by [`Wal::follow`].
    ///
    /// # Behavior
    /// * It shows only what was acknowledged, in order, each record once.
    /// * It ends when the log was closed and everything was shown. When a write or a sync of the log fails, everything that
    ///   was acknowledged is shown, then the error, then the end.
    /// * Corruption is as for [`WalReader`]. A follower that falls behind retention by more than 128 segments gets
    ///   [`Expired`](crate::error::ErrorKind::Expired).
    /// * It costs the writer a wake-up and no memory: it reads the files, at its own pace, in the polling thread, 256 KiB at
    ///   a time; after 1,024 records at a stretch it lets other tasks run. It needs no particular runtime.
    FollowStream => Record;
}

impl Wal {
    /// Reads from a place on, and goes on with what comes.
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
        Ok(FollowStream::new(Follow { reader: self.reader(from)?, published, stretch: 0, done: false }))
    }
}

struct Follow {
    reader: WalReader,
    published: Arc<Published>,
    /// Records since others were let run.
    stretch: u32,
    done: bool,
}

impl Stream for Follow {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.stretch >= STRETCH {
            self.stretch = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Looked at before reading: what was acknowledged before the end is still shown.
        let ended = |published: &Published| published.closed() || published.failed().is_some();
        let mut over = ended(&self.published);
        loop {
            if let Some(item) = self.reader.next() {
                self.stretch += 1;
                return Poll::Ready(Some(item));
            }
            self.stretch = 0;
            if self.reader.is_done() {
                self.done = true;
                return Poll::Ready(None);
            }
            if over {
                self.done = true;
                return Poll::Ready(self.published.failed().map(|failed| Err(failed.error())));
            }
            self.published.follow(cx.waker());
            over = ended(&self.published);
            if !over && self.published.acked() < self.reader.next_seq().0 {
                return Poll::Pending;
            }
        }
    }
}
