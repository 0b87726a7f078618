//! Options of a log: durability, segment size, key, handling of corruption, disk.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    fs::{Disk, OsDisk},
    purpose::WalPurpose,
};
use crate::names::setters;

/// The default size of a segment: 16 MiB, which one core reads and checks in well under 10 ms.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest segment in bytes: space for its header and a few commits.
const MIN_SEGMENT_BYTES: u64 = 8 << 10;

/// The guarantee that an acknowledgement gives.
///
/// In no mode does the end of the process lose an acknowledged record; the modes differ in the records that a power cut can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Durability {
    /// Each commit is synced before it is acknowledged: a power cut loses no acknowledged record.
    #[default]
    Commit,
    /// Acknowledged once written, synced at this interval (at least 1 ms): a power cut can lose the records that were
    /// acknowledged during the last interval and the time of one sync.
    Every(Duration),
    /// Acknowledged once written; synced when the operating system decides to, on [`Wal::sync`](super::Wal::sync) and on closing:
    /// a power cut can lose the records that were acknowledged since.
    Os,
}

/// Handling of corruption before the tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnCorruption {
    /// Stop at corruption: opening for writing fails, a reader ends with an error.
    #[default]
    Stop,
    /// Go on behind corruption: opening for writing leaves the corrupt range where it is and appends behind it, where it can; a
    /// reader yields an error for each corrupt range and then the records that follow. A reader made by the writer ends at
    /// corruption in the last commit.
    Continue,
}

/// The key of a keyed chain: without it nothing can write a log that verifies.
///
/// Without a key the chain proves integrity only: any process that can write the files can also compute new hashes. The key is
/// fixed when the log is created. It is in no `Debug` output.
#[derive(Clone)]
pub struct WalKey(pub(super) [u8; 32]);

impl WalKey {
    /// Takes 32 bytes from a good source of randomness, or from a key derivation function.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<[u8; 32]> for WalKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for WalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Options with which a log is opened.
///
/// ```
/// use runtide_core::wal::{Durability, WalOptions};
/// use std::time::Duration;
///
/// let options = WalOptions::default().with_durability(Durability::Every(Duration::from_millis(50)));
/// assert_eq!(options.segment_bytes, None, "16 MiB");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WalOptions {
    /// The guarantee that an acknowledgement gives; by default each commit is synced.
    pub durability: Durability,
    /// The size of new segments in bytes; 16 MiB if `None`, at least 8 KiB. A larger commit gets a segment for itself, as large
    /// as it must be.
    pub segment_bytes: Option<NonZeroU64>,
    /// The key of a keyed chain. A new log is keyed if it is given, and not if it is `None`.
    pub key: Option<WalKey>,
    /// Handling of corruption before the tail; by default the log stops there.
    pub on_corruption: OnCorruption,
    /// The log's purpose; by default it is for the application's own records. A log that is for something else is refused when it is
    /// opened for writing.
    pub purpose: WalPurpose,
    /// The disk; the operating system's if `None`.
    pub disk: Option<Arc<dyn Disk>>,
}

setters!(WalOptions {
    /// Sets the guarantee that an acknowledgement gives.
    with_durability: durability: Durability;
    /// Sets the size of new segments in bytes.
    with_segment_bytes: segment_bytes: Option<NonZeroU64>;
    /// Sets the key of a keyed chain.
    with_key: key: Option<WalKey>;
    /// Sets the handling of corruption before the tail.
    with_on_corruption: on_corruption: OnCorruption;
    /// Sets the log's purpose.
    with_purpose: purpose: WalPurpose;
    /// Sets another disk than the operating system's.
    with_disk: disk: Option<Arc<dyn Disk>>;
});

impl WalOptions {
    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone().unwrap_or_else(|| Arc::new(OsDisk))
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment_bytes.map_or(SEGMENT_BYTES, NonZeroU64::get).max(MIN_SEGMENT_BYTES).next_multiple_of(8)
    }
}
