//! Giving out what was read: with its memory, or on loan.

use std::ops::Range;

use super::{CORRUPT, READ, Ready, WalReader};
use crate::{
    error::{Error, ErrorKind, Result},
    wal::{
        corruption::Corruption,
        format::{FRAME_HEADER, Frame},
        options::OnCorruption,
        record::{Record, RecordRef},
    },
};

/// What reading meets.
#[derive(Debug)]
pub(in crate::wal) enum Found {
    Record(Record),
    Corruption(Corruption),
}

impl Iterator for WalReader {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.go() {
            Ok(true) => Some(self.take().ok_or_else(lost_sight)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl WalReader {
    /// The next record, on loan until the next call: as the iterator, but without a share in the block's memory, which is
    /// what reading costs beside the checksums. For those who look at each record and keep none.
    ///
    /// # Errors
    /// As the iterator's items, see [`WalReader`].
    ///
    /// ```
    /// use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// wal.append_blocking(RecordKind(1), b"hello")?;
    /// let mut reader = wal.reader(ReadFrom::Start)?;
    /// let mut bytes = 0;
    /// while let Some(record) = reader.next_ref()? {
    ///     bytes += record.bytes.len();
    /// }
    /// assert_eq!(bytes, 5);
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    #[inline]
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.go()? { self.lend().map(Some).ok_or_else(lost_sight) } else { Ok(None) }
    }

    /// The next record, or corruption before it.
    pub(in crate::wal) fn step(&mut self) -> Result<Option<Found>> {
        match self.ready()? {
            Some(Ready::Record) => self.take().map(Found::Record).map(Some).ok_or_else(lost_sight),
            Some(Ready::Corruption(corruption)) => Ok(Some(Found::Corruption(corruption))),
            None => Ok(None),
        }
    }

    /// Goes to the next record; false at the end.
    #[inline]
    fn go(&mut self) -> Result<bool> {
        if self.at < self.checked && !self.done { Ok(true) } else { self.go_on_from_here() }
    }

    #[inline(never)]
    fn go_on_from_here(&mut self) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        match self.ready() {
            Ok(Some(Ready::Record)) => Ok(true),
            Ok(Some(Ready::Corruption(corruption))) => {
                self.done |= self.on_corruption != OnCorruption::Continue;
                Err(corruption.error(READ, CORRUPT))
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.done = true;
                Err(error)
            }
        }
    }

    /// The frame here, which is checked and in the block, and where its payload is.
    #[inline]
    fn pass(&mut self) -> Option<(Frame, Range<usize>)> {
        let skip = usize::try_from(self.at.checked_sub(self.block_at)?).ok()?;
        let frame = Frame::decode(self.block.get(skip..)?)?;
        let start = skip + FRAME_HEADER;
        self.at += frame.size();
        self.next = frame.seq.saturating_add(1);
        Some((frame, start..start + frame.length as usize))
    }

    #[inline]
    fn take(&mut self) -> Option<Record> {
        let (frame, payload) = self.pass()?;
        Some(Record::new(frame.seq, frame.time, frame.kind, self.block.slice(payload)))
    }

    #[inline]
    fn lend(&mut self) -> Option<RecordRef<'_>> {
        let (frame, payload) = self.pass()?;
        Some(RecordRef::new(frame.seq, frame.time, frame.kind, self.block.get(payload)?))
    }
}

/// What was checked is in the block; that it is not must not pass for the end.
#[cold]
fn lost_sight() -> Error {
    Error::new(ErrorKind::Unexpected, READ, "a record that was checked is not in memory")
}
