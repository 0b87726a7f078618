//! Records, their numbers and their kinds.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A record's number: stamped by the writer, rising by exactly one, across segments, restarts and retention.
///
/// The first record of a log is number 1; 0 stands for the position before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    ///
    /// ```
    /// use runtide_core::wal::Seq;
    ///
    /// assert_eq!(Seq(1).next(), Seq(2));
    /// ```
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The caller's tag on a record.
///
/// Kinds from 0x8000 on belong to this crate's own journals; an append that uses one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// Kind of the records that [`salvage`](super::salvage()) puts in place of records that could not be read, so that the others
    /// keep their numbers. Their payload is empty.
    pub const LOST: Self = Self(0xFFFF);

    /// Returns true if the kind belongs to this crate's own journals.
    ///
    /// ```
    /// use runtide_core::wal::RecordKind;
    ///
    /// assert!(!RecordKind(0x7FFF).is_reserved());
    /// assert!(RecordKind::LOST.is_reserved());
    /// ```
    pub fn is_reserved(self) -> bool {
        self.0 >= 0x8000
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record as it was read, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Number of the record.
    pub seq: Seq,
    /// Time of the append, by the writer's clock, in nanoseconds; order is never taken from it.
    #[serde(with = "crate::time")]
    pub at: SystemTime,
    /// The caller's tag.
    pub kind: RecordKind,
    /// The payload. It shares the block that it was read in (256 KiB, or the record's size if that is more), which stays in
    /// memory as long as the payload does: copy a payload that is kept for long.
    pub bytes: Bytes,
}

impl Record {
    #[inline]
    pub(super) fn new(seq: u64, nanos: u64, kind: u16, bytes: Bytes) -> Self {
        Self { seq: Seq(seq), at: time(nanos), kind: RecordKind(kind), bytes }
    }
}

/// A record borrowed from a reader, see [`WalReader::next_ref`](super::WalReader::next_ref).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// Number of the record.
    pub seq: Seq,
    /// The caller's tag.
    pub kind: RecordKind,
    /// The payload, valid until the reader's next call.
    pub bytes: &'a [u8],
    nanos: u64,
}

impl<'a> RecordRef<'a> {
    #[inline]
    pub(super) fn new(seq: u64, nanos: u64, kind: u16, bytes: &'a [u8]) -> Self {
        Self { seq: Seq(seq), kind: RecordKind(kind), bytes, nanos }
    }

    /// Time of the append, by the writer's clock, in nanoseconds; order is never taken from it.
    pub fn at(&self) -> SystemTime {
        time(self.nanos)
    }

    /// Returns an owned record with a copy of the payload.
    pub fn to_record(&self) -> Record {
        Record::new(self.seq.0, self.nanos, self.kind.0, Bytes::copy_from_slice(self.bytes))
    }
}

/// The position at which reading starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadFrom {
    /// At the oldest record that is kept.
    #[default]
    Start,
    /// At this record. A record that retention has dropped is [`Expired`](crate::error::ErrorKind::Expired); a number beyond the
    /// next record to be written is [`InvalidInput`](crate::error::ErrorKind::InvalidInput).
    Seq(Seq),
    /// Behind the newest record: yields only later records.
    End,
}

/// The system's clock, in nanoseconds since 1970; a time before that reads as 1970. Good until the year 2554.
pub(super) fn now() -> u64 {
    nanos(SystemTime::now())
}

pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[inline]
pub(super) fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
