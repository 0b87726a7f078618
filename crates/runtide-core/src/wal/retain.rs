//! Retention: drops whole old segments.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    corruption::disk_error,
    layout::{Layout, write_begin},
    published::lock,
    record::{Seq, now},
    segment::Segment,
    writer::Wal,
};
use crate::{error::Result, names::setters};

const RETAIN: &str = "wal.retain";

/// The policy of retention: which segments are dropped.
///
/// Segments are dropped as a whole, the oldest first, and never the one that is being written, so that somewhat more is kept than
/// asked for. A segment is dropped if `max_age` or `max_bytes` asks for it, and it has no record from `keep_from` on. If neither
/// `max_age` nor `max_bytes` is given, `keep_from` alone decides: every segment before it is dropped.
///
/// ```
/// use runtide_core::wal::{Retention, Seq};
/// use std::time::Duration;
///
/// // A week, but never a record that the last checkpoint still needs.
/// let policy = Retention::default().with_max_age(Duration::from_secs(7 * 86_400)).with_keep_from(Seq(1_000));
/// # assert_eq!(policy.max_bytes, None);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Age by the writer's clock: segments whose newest record is older are dropped.
    pub max_age: Option<Duration>,
    /// Bytes of the files of all segments together: the oldest segments are dropped until there are no more. Space that is
    /// reserved in the newest segment counts.
    pub max_bytes: Option<u64>,
    /// Number of the first record that must be kept, with all later ones.
    pub keep_from: Option<Seq>,
}

setters!(Retention {
    /// Drops segments whose newest record is older than this.
    with_max_age: max_age: Option<Duration>;
    /// Drops the oldest segments until there are no more bytes than this.
    with_max_bytes: max_bytes: Option<u64>;
    /// Keeps this record and all later ones.
    with_keep_from: keep_from: Option<Seq>;
});

/// The result of retention: the segments that were dropped, and the log's first record now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retained {
    /// Number of segments that were dropped.
    pub segments: u64,
    /// Bytes of their files together.
    pub bytes: u64,
    /// Number of the first record that is left, or of the first to be appended if none is left.
    pub first: Seq,
}

impl Wal {
    /// Drops old segments; blocks for two syncs if there is a segment to drop.
    ///
    /// The drop is atomic: a small file with the number of the log's first record is replaced, durably, and then the segments
    /// before that record are removed. After a crash the log has all of the segments to be dropped, or none of them. Appends go
    /// on at the same time. Open readers are not disturbed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::error::ErrorKind::Corrupt) if a segment's header is corrupt; after a failed write or sync of the log
    /// that failure again; the errors of the disk. The log stays usable.
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
        let inner = &self.inner;
        if let Some(failed) = inner.committer.published.failed() {
            return Err(failed.error());
        }
        let (disk, dir) = (&*inner.disk, &*inner.dir);
        let _one_at_a_time = lock(&inner.retention);
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
                // This segment got its last record before the next one was begun.
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
            self.drop_segments(&layout.segments, first)?;
        }
        Ok(Retained { segments: dropped as u64, bytes, first: Seq(first) })
    }
}

impl Wal {
    /// A failure poisons the log: the state of the disk after a failed sync is unknown, so the sync is not tried again.
    fn drop_segments(&self, dropped: &[(u64, PathBuf)], first: u64) -> Result<()> {
        let (disk, dir) = (&*self.inner.disk, &*self.inner.dir);
        let drop_all = || {
            write_begin(disk, dir, first)?;
            // From here on they are not part of the log: a file that cannot be removed now is removed by the next opening.
            dropped.iter().try_for_each(|(_, path)| disk.remove(path))?;
            disk.sync_dir(dir)
        };
        drop_all().map_err(|error| self.inner.committer.poison(disk_error(RETAIN, dir, error)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
