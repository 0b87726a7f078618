//! How to open a journal.

use std::num::NonZeroU64;

use runtide_core::{
    backend::setters,
    wal::{Retention, WalOptions},
};

/// How to open a [`RuntimeJournal`](super::RuntimeJournal) or an [`OperationLog`](super::OperationLog).
///
/// ```
/// use runtide_core::wal::Retention;
/// use runtide_journal::JournalOptions;
/// use std::time::Duration;
///
/// let month = Retention::default().with_max_age(Duration::from_secs(30 * 86_400));
/// let options = JournalOptions::default().with_retention(month);
/// assert_eq!(options.checkpoint_every, None, "the journal's own choice");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JournalOptions {
    /// The log below.
    pub wal: WalOptions,
    /// A checkpoint after so many records, which bounds what opening reads. `None`: 4,096 records, and at least as many as
    /// the checkpoint itself has rows, so that checkpoints never take more than half of the log.
    pub checkpoint_every: Option<NonZeroU64>,
    /// What may go after a checkpoint; what opening needs always stays. `None`: a journal of events keeps everything, a log
    /// of operations keeps what is in flight.
    pub retention: Option<Retention>,
}

setters!(JournalOptions {
    /// The log below.
    with_wal: wal: WalOptions;
    /// A checkpoint after so many records.
    with_checkpoint_every: checkpoint_every: Option<NonZeroU64>;
    /// What may go after a checkpoint.
    with_retention: retention: Option<Retention>;
});

/// Records between two checkpoints, unless told.
const CHECKPOINT_EVERY: u64 = 4_096;

impl JournalOptions {
    /// Whether it is time for a checkpoint of so many rows, so many records after the last one.
    pub(crate) fn is_due(&self, records: u64, rows: usize) -> bool {
        records >= self.checkpoint_every.map_or_else(|| CHECKPOINT_EVERY.max(rows as u64), NonZeroU64::get)
    }
}
