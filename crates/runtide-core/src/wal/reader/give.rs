//! Yielding records: with a share in the block's memory, or borrowed from the reader.

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

/// An item that reading yields: a record, or a corrupt range.
#[derive(Debug)]
pub(in crate::wal) enum Found {
    Record(Record),
    Corruption(Corruption),
}

impl Iterator for WalReader {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(self.take().ok_or_else(not_in_block)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl WalReader {
    /// The next record, borrowed until the next call: like the iterator, but without a share in the block's memory, which is
    /// the cost of reading next to the checksums. For callers that inspect each record and keep none.
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
        if self.advance()? { self.take_ref().map(Some).ok_or_else(not_in_block) } else { Ok(None) }
    }

    /// The next record, or corruption before it.
    pub(in crate::wal) fn step(&mut self) -> Result<Option<Found>> {
        match self.ready()? {
            Some(Ready::Record) => self.take().map(Found::Record).map(Some).ok_or_else(not_in_block),
            Some(Ready::Corruption(corruption)) => Ok(Some(Found::Corruption(corruption))),
            None => Ok(None),
        }
    }

    /// Moves to the next record; false at the end.
    #[inline]
    fn advance(&mut self) -> Result<bool> {
        if self.at < self.checked && !self.done { Ok(true) } else { self.advance_slow() }
    }

    #[inline(never)]
    fn advance_slow(&mut self) -> Result<bool> {
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

    /// Moves past the frame here, which is checked and in the block; returns it, and the range of its payload in the block.
    #[inline]
    fn advance_frame(&mut self) -> Option<(Frame, Range<usize>)> {
        let skip = usize::try_from(self.at.checked_sub(self.block_at)?).ok()?;
        let frame = Frame::decode(self.block.get(skip..)?)?;
        let start = skip + FRAME_HEADER;
        self.at += frame.size();
        self.next = frame.seq.saturating_add(1);
        Some((frame, start..start + frame.length as usize))
    }

    #[inline]
    fn take(&mut self) -> Option<Record> {
        let (frame, payload) = self.advance_frame()?;
        Some(Record::new(frame.seq, frame.time, frame.kind, self.block.slice(payload)))
    }

    #[inline]
    fn take_ref(&mut self) -> Option<RecordRef<'_>> {
        let (frame, payload) = self.advance_frame()?;
        Some(RecordRef::new(frame.seq, frame.time, frame.kind, self.block.get(payload)?))
    }
}

/// A checked record is always in the block; if it is not, that is an error, which must not pass for the end of the log.
#[cold]
fn not_in_block() -> Error {
    Error::new(ErrorKind::Unexpected, READ, "a record that was checked is not in memory")
}
