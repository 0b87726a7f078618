//! A write-ahead log: one directory, one writer, any number of readers.
//!
//! A record that [`Wal`] acknowledged is there after a crash, in order and exactly once. An unfinished tail that a crash left is
//! cut before the first append. Any other corruption is found and named, and neither skipped nor destroyed.
//!
//! ```
//! use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let wal = Wal::open(dir.path(), WalOptions::default())?;
//! let seq = wal.append(RecordKind(1), b"created").await?; // Returns when the record is durable.
//! wal.append_batch(&[(RecordKind(2), b"renamed"), (RecordKind(2), b"moved")]).await?; // All or nothing.
//! for record in wal.reader(ReadFrom::Seq(seq))? {
//!     let record = record?;
//!     println!("{} {} {:?}", record.seq, record.kind, record.bytes);
//! }
//! assert_eq!(wal.tail(2)?.len(), 2);
//! # Ok(()) }
//! ```
//!
//! # Promises
//! * **Durable.** An append returns when its record is durable as [`Durability`] says; by default, when it was synced. Many
//!   callers share one sync (group commit), and a lone caller never waits for others.
//! * **Numbered.** The writer stamps each record with a [`Seq`] that rises by exactly one, across segments, restarts and
//!   retention.
//! * **All or nothing.** A batch is in the log as a whole or not at all.
//! * **Torn is not corrupt.** [`Wal::open`] cuts a tail only if nothing proves that it ever was durable; it keeps a copy
//!   ([`Wal::repaired`]). Any other fault is an error that names the segment, the bytes and the records.
//! * **Nothing comes back.** Bytes that were cut cannot be mistaken for the log later: each opening has an epoch, and each commit
//!   names the hash of the commit before it.
//! * **Tamper-evident.** Commits are chained with BLAKE3, under a [`WalKey`] if one is given. [`verify`] walks the chain, and an
//!   [`Anchor`] that is kept elsewhere reveals that a tail was cut or rewritten.
//! * **Kept for its use.** A log says what it is for ([`WalPurpose`]), and another use is refused when it is opened for writing.
//! * **A failure is final.** After a write or a sync failed, every later call gets that failure, and nothing is written or
//!   synced until the log is opened again; reading goes on.
//! * **Bounded.** Opening reads only the last segment (the last two where commits are not synced one by one), and next to nothing
//!   after an orderly close. Reading, verifying and dumping take constant memory.
//!
//! # Limits
//! A record has at most 16 MiB ([`Wal::MAX_RECORD`]), a batch 64 MiB ([`Wal::MAX_BATCH`]). The lock is the operating system's
//! file lock, between processes of one machine: do not put a log on a network file system that does not honour it.
//!
//! The bytes are described in `docs/wal-format.md` in the repository.

mod anchor;
mod chain;
mod commit;
mod corruption;
mod dump;
mod engine;
mod follow;
mod format;
pub mod fs;
mod hand_over;
mod hook;
mod layout;
mod lock;
mod open;
mod options;
mod orphaned;
mod published;
mod purpose;
mod purpose_of_log;
mod queue;
mod reader;
mod record;
mod retain;
mod retention;
mod salvage;
mod scan;
mod segment;
mod sync;
mod verify;
mod walk;
mod window;
mod writer;

pub use self::{
    anchor::Anchor,
    corruption::Corruption,
    dump::{dump, dump_with},
    follow::FollowStream,
    hook::{CommitHook, Commits, Forming},
    layout::lock_path,
    open::Repair,
    options::{Durability, OnCorruption, WalKey, WalOptions},
    purpose::WalPurpose,
    reader::WalReader,
    record::{ReadFrom, Record, RecordKind, RecordRef, Seq},
    retention::{Retained, Retention},
    salvage::{SalvageReport, salvage, salvage_with},
    verify::{Verified, verify, verify_with},
    writer::{Wal, WalWriter},
};

#[cfg(test)]
mod tests;
