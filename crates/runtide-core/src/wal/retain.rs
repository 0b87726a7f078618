//! Retention: drops whole old segments.

use std::{path::PathBuf, time::Duration};

use super::{
    commit::Committer,
    corruption::disk_error,
    layout::{Layout, write_begin},
    published::lock,
    record::{Seq, now},
    retention::{Retained, Retention},
    segment::Segment,
    writer::Wal,
};
use crate::error::{Error, ErrorKind, Result};

const RETAIN: &str = "wal.retain";

impl Wal {
    /// Drops the old segments that the policy asks for; blocks for two syncs if there is a segment to drop.
    ///
    /// The drop is atomic: a small file with the number of the log's first record is replaced, durably, and then the segments
    /// before that record are removed. After a crash the log has either all of the segments to be dropped, or none of them.
    /// Appends go on at the same time. Open readers are not disturbed.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if a segment's header is corrupt; [`Cancelled`](ErrorKind::Cancelled) if the log was
    /// closed; after a failed write or sync of the log that failure again; the errors of the disk. The log stays usable if the
    /// error came before the drop began; a failure of the drop itself is a failure of the log.
    ///
    /// ```
    /// use runtide_core::wal::{RecordKind, Retention, Seq, Wal, WalOptions};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// wal.append_blocking(RecordKind(1), b"there is only one segment")?;
    /// let retained = wal.retain(Retention::default().with_max_bytes(0))?;
    /// assert_eq!((retained.segments, retained.first), (0, Seq(1)));
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "the policy is given away, as options are everywhere")]
    pub fn retain(&self, policy: Retention) -> Result<Retained> {
        self.inner.committer.drop_old(&policy)
    }
}

impl Committer {
    /// As [`Wal::retain`].
    pub(super) fn drop_old(&self, policy: &Retention) -> Result<Retained> {
        let (disk, dir) = (&*self.disk, &*self.dir);
        let one_at_a_time = lock(&self.retention);
        if let Some(failed) = self.published.failed() {
            return Err(failed.error());
        }
        // Closing waits for the retention under way; a later one would change a folder that another may have open.
        if lock(&self.queue).closing {
            return Err(Error::new(ErrorKind::Cancelled, RETAIN, "the log was closed"));
        }
        let mut layout = Layout::read(disk, dir).map_err(|error| disk_error(RETAIN, dir, error))?;
        let mut sizes = Vec::new();
        for (_, path) in &layout.segments {
            let size = disk.open(path).and_then(|file| file.size()).map_err(|error| disk_error(RETAIN, path, error))?;
            sizes.push(size);
        }
        let mut total: u64 = sizes.iter().sum();
        let (mut dropped, mut bytes) = (0, 0);
        for (size, (next, path)) in sizes.iter().zip(layout.segments.iter().skip(1)) {
            let keeps = policy.keep_from.is_some_and(|keep| *next > keep.0);
            let large = policy.max_bytes.is_some_and(|most| total > most);
            let asked = match policy.max_age {
                _ if large => true,
                // The last record of this segment is at least as old as the next segment.
                Some(age) => {
                    Segment::open(disk, *next, path, RETAIN)?.header.created.saturating_add(nanos(age)) < now()
                }
                None => policy.max_bytes.is_none() && policy.keep_from.is_some(),
            };
            if keeps || !asked {
                break;
            }
            dropped += 1;
            bytes += size;
            total -= size;
        }
        let kept = layout.segments.split_off(dropped);
        let first = kept.first().map_or(1, |(first, _)| *first);
        if dropped > 0 {
            let done = self.drop_segments(&layout.segments, first);
            // A failure wakes the followers, and what a waker drops may close the log.
            drop(one_at_a_time);
            done.map_err(|error| self.poison(error))?;
        }
        Ok(Retained { segments: dropped as u64, bytes, first: Seq(first) })
    }

    /// Makes `first` the log's first record, and removes the segments before it. A failure must poison the log: after a failed
    /// sync the state of the disk is unknown, so the sync is not retried.
    fn drop_segments(&self, dropped: &[(u64, PathBuf)], first: u64) -> Result<()> {
        let (disk, dir) = (&*self.disk, &*self.dir);
        let drop_all = || {
            write_begin(disk, dir, first)?;
            // From here on these segments are not part of the log: the next opening removes any file that is left.
            dropped.iter().try_for_each(|(_, path)| disk.remove(path))?;
            disk.sync_dir(dir)
        };
        drop_all().map_err(|error| disk_error(RETAIN, dir, error))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
