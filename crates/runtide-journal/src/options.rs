//! [`JournalOptions`].

use std::num::NonZeroU64;

use runtide_core::{
    backend::setters,
    wal::{Retention, WalOptions},
};

/// Options of a [`RuntimeJournal`](super::RuntimeJournal), an [`OperationLog`](super::OperationLog) and a
/// [`JournaledStore`](super::JournaledStore).
///
/// ```
/// use runtide_core::wal::Retention;
/// use runtide_journal::JournalOptions;
/// use std::time::Duration;
///
/// let month = Retention::default().with_max_age(Duration::from_secs(30 * 86_400));
/// let options = JournalOptions::default().with_retention(month);
/// assert_eq!(options.checkpoint_every, None, "the journal's default");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Options of the write-ahead log underneath.
    pub wal: WalOptions,
    /// Records between two checkpoints, which bounds what opening reads. `None`: 4,096 records, and at least as many as
    /// the checkpoint itself has rows, so that checkpoints never take more than half of the log.
    pub checkpoint_every: Option<NonZeroU64>,
    /// Segments that may be dropped after a checkpoint; the records that opening needs always stay. `None`: a journal of events
    /// and a store keep everything, a log of operations keeps the operations in flight.
    pub retention: Option<Retention>,
}

setters!(JournalOptions {
    /// Sets the options of the write-ahead log.
    with_wal: wal: WalOptions;
    /// Sets the records between two checkpoints.
    with_checkpoint_every: checkpoint_every: Option<NonZeroU64>;
    /// Sets the retention that is applied after a checkpoint.
    with_retention: retention: Option<Retention>;
});

/// Default records between two checkpoints.
const CHECKPOINT_EVERY: u64 = 4_096;

impl JournalOptions {
    /// A checkpoint of `rows` rows is due, `records` records after the last one.
    pub(crate) fn is_due(&self, records: u64, rows: usize) -> bool {
        records >= self.checkpoint_every.map_or_else(|| CHECKPOINT_EVERY.max(rows as u64), NonZeroU64::get)
    }
}
