//! Retention: old segments go, as a whole.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    commit::Committer,
    corruption::disk_error,
    layout::{Layout, write_begin},
    published::lock,
    record::{Seq, now},
    segment::Segment,
    writer::Wal,
};
use crate::{error::Result, names::setters};

const RETAIN: &str = "wal.retain";

/// What may go.
///
/// Segments go as a whole, the oldest first, and never the one that is being written, so that somewhat more is kept than
/// asked for. A segment goes if `max_age` or `max_bytes` asks for it, and it has nothing from `keep_from` on. If neither of
/// them is given, `keep_from` alone decides: everything before it may go.
///
/// ```
/// use runtide_core::wal::{Retention, Seq};
/// use std::time::Duration;
///
/// // A week, but never what the last checkpoint still needs.
/// let policy = Retention::default().with_max_age(Duration::from_secs(7 * 86_400)).with_keep_from(Seq(1_000));
/// # assert_eq!(policy.max_bytes, None);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Segments go whose newest record is older than this, by the writer's clock.
    pub max_age: Option<Duration>,
    /// The oldest segments go until the files of all segments together have no more bytes than this. Room that is reserved
    /// in the newest segment counts.
    pub max_bytes: Option<u64>,
    /// This record and all later ones stay.
    pub keep_from: Option<Seq>,
}

setters!(Retention {
    /// Segments go whose newest record is older than this.
    with_max_age: max_age: Option<Duration>;
    /// The oldest segments go until there are no more bytes than this.
    with_max_bytes: max_bytes: Option<u64>;
    /// This record and all later ones stay.
    with_keep_from: keep_from: Option<Seq>;
});

/// What was dropped, and what the log begins with now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retained {
    /// Segments that went.
    pub segments: u64,
    /// The bytes of their files.
    pub bytes: u64,
    /// The first record that is left, or that will be appended if none is left.
    pub first: Seq,
}

impl Wal {
    /// Drops old segments; blocks for two syncs if there is something to drop.
    ///
    /// One step decides: a small file that says where the log begins is replaced, durably, and then the segments before it
    /// are removed. After a crash the log has all of what was to go, or none of it. Appends go on meanwhile. Readers that are
    /// open are not disturbed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::error::ErrorKind::Corrupt) if a segment's header is corrupt; after a failed write or sync of the log that
    /// failure again; what the disk refuses. The log stays usable.
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
        self.inner.committer.retain(&policy)
    }
}

impl Committer {
    /// As [`Wal::retain`].
    pub(super) fn retain(&self, policy: &Retention) -> Result<Retained> {
        if let Some(failed) = self.published.failed() {
            return Err(failed.error());
        }
        let (disk, dir) = (&*self.disk, &*self.dir);
        let _one_at_a_time = lock(&self.retention);
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
                // When the next one was begun, this one had got its last record.
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

    /// A failure poisons the log: of a sync that failed nobody knows what it left, so it is not tried again.
    fn drop_segments(&self, dropped: &[(u64, PathBuf)], first: u64) -> Result<()> {
        let (disk, dir) = (&*self.disk, &*self.dir);
        let drop_all = || {
            write_begin(disk, dir, first)?;
            // From here on they are not part of the log: what cannot be removed now, the next opening removes.
            dropped.iter().try_for_each(|(_, path)| disk.remove(path))?;
            disk.sync_dir(dir)
        };
        drop_all().map_err(|error| self.poison(disk_error(RETAIN, dir, error)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
