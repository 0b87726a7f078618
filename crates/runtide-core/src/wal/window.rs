//! A file read through one buffer that moves along: bounded memory, and few calls.

use std::io;

use super::fs::File;

/// A buffer over a part of a file.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn File,
    size: u64,
    step: usize,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Reads so many bytes at once.
    pub(super) fn new(file: &'a dyn File, size: u64, step: usize) -> Self {
        Self { file, size, step, start: 0, buffer: Vec::new() }
    }

    /// The file's size, beyond which nothing is read.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The most that [`Window::get`] can give at once.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// `len` bytes, at most [`Window::step`]; `None` if the file ends before.
    pub(super) fn get(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = at.checked_add(len as u64).filter(|end| *end <= self.size && len <= self.step) else {
            return Ok(None);
        };
        if at < self.start || end > self.start + self.buffer.len() as u64 {
            let room = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(self.step);
            self.buffer.resize(room, 0);
            let read = self.file.read_at(&mut self.buffer, at)?;
            self.buffer.truncate(read);
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).and_then(|bytes| bytes.get(..len)))
    }

    /// Some bytes from `at` on, not beyond `end`: as many as the window has. Empty only at the end.
    pub(super) fn piece(&mut self, at: u64, end: u64) -> io::Result<&[u8]> {
        let end = end.min(self.size);
        let has = self.start + self.buffer.len() as u64;
        let to = if (self.start..has).contains(&at) { has } else { at.saturating_add(self.step as u64) };
        let len = usize::try_from(to.min(end).saturating_sub(at)).unwrap_or(0);
        Ok(self.get(at, len)?.unwrap_or_default())
    }

    /// Forgets what was read, so that it is read anew.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }
}
