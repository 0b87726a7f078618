//! The policy and the result of retention.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Seq;
use crate::names::setters;

/// The policy of retention: which segments are dropped.
///
/// Only whole segments are dropped, the oldest first, and never the one that is being written, so that somewhat more is kept than
/// the policy asks for. A segment is dropped if it exceeds `max_age` or `max_bytes`, and has no record from `keep_from` on. If
/// neither `max_age` nor `max_bytes` is given, `keep_from` alone decides: every segment before it is dropped.
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
    /// Largest age, by the writer's clock: segments whose newest record is older are dropped.
    pub max_age: Option<Duration>,
    /// Largest size of all segment files together, in bytes: the oldest segments are dropped until the log is no larger. Space
    /// that is reserved in the newest segment counts.
    pub max_bytes: Option<u64>,
    /// Number of the first record that must be kept, with all later ones.
    pub keep_from: Option<Seq>,
}

setters!(Retention {
    /// Drops segments whose newest record is older than this.
    with_max_age: max_age: Option<Duration>;
    /// Drops the oldest segments until the log is no larger than this, in bytes.
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
    /// Size of their files together, in bytes.
    pub bytes: u64,
    /// Number of the first record that is left, or of the first to be appended if none is left.
    pub first: Seq,
}
