//! Reads a file through one buffer that moves along with the reader: bounded memory, and few calls.

use std::io;

use super::fs::File;

/// Most bytes that recovery and verification read at once: a whole commit, unless it is one large batch.
pub(super) const STEP: usize = super::queue::GROUP_BYTES;
/// Bytes of the first read.
const FIRST: usize = 64 << 10;
/// Most bytes of one read, unless the caller asks for more: they stay in the second-level cache.
const MOST: usize = 256 << 10;

/// A buffer over a part of a file.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn File,
    size: u64,
    /// Most bytes that one read may take.
    step: usize,
    /// Bytes of the next read. It doubles as long as reads are sequential, so that a caller that wants little does not read much.
    ahead: usize,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Makes a window over the first `size` bytes of a file that reads at most `step` bytes at once.
    pub(super) fn new(file: &'a dyn File, size: u64, step: usize) -> Self {
        Self { file, size, step, ahead: FIRST.min(step), start: 0, buffer: Vec::new() }
    }

    /// The file's size in bytes, beyond which nothing is read.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Most bytes that [`Window::get`] can return at once.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Returns `len` bytes, at most [`Window::step`]; `None` if the file ends before.
    pub(super) fn get(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = at.checked_add(len as u64).filter(|end| *end <= self.size && len <= self.step) else {
            return Ok(None);
        };
        let has = self.start + self.buffer.len() as u64;
        if at < self.start || end > has {
            self.refill(at, len)?;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).and_then(|bytes| bytes.get(..len)))
    }

    /// Reads from `at` on, at least `len` bytes; bytes that are already in the buffer are not read again.
    fn refill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let skip = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let keep = skip.and_then(|skip| self.buffer.len().checked_sub(skip));
        match (skip, keep) {
            (Some(skip), Some(_)) => self.buffer.copy_within(skip.., 0),
            _ => self.ahead = FIRST.min(self.step),
        }
        let keep = keep.unwrap_or(0);
        let room = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(self.ahead.max(len));
        self.ahead = self.ahead.saturating_mul(2).min(MOST).min(self.step);
        self.start = at;
        self.buffer.resize(room, 0);
        let wanted = self.buffer.get_mut(keep..).unwrap_or_default();
        match self.file.read_at(wanted, at + keep as u64) {
            Ok(read) => self.buffer.truncate(keep + read),
            Err(error) => {
                self.buffer.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns bytes from `at` on, not beyond `end`, as many as the window has. Empty only at the end, or if the file has become
    /// shorter.
    pub(super) fn piece(&mut self, at: u64, end: u64) -> io::Result<&[u8]> {
        let end = end.min(self.size);
        let has = self.start + self.buffer.len() as u64;
        let to = if (self.start..has).contains(&at) { has } else { at.saturating_add(self.ahead as u64) };
        let len = usize::try_from(to.min(end).saturating_sub(at)).unwrap_or(0);
        self.get(at, len)?;
        // The file may have become shorter: then fewer bytes are returned, or none.
        let skip = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let rest = skip.and_then(|skip| self.buffer.get(skip..)).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    /// Drops the buffered bytes, so that the next call reads them again.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }
}
