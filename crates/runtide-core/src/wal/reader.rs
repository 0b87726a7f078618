//! Reading: record by record in constant memory, without a lock, also while the log is being written.

mod behind;
mod give;

pub(super) use self::give::Found;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use super::{
    chain::Chain,
    corruption::{Corruption, disk_error},
    format::{COMMIT_HEADER, CommitHeader, Entry, FRAME_HEADER, Frame, Hash, LogId, SegmentHeader},
    fs::{Disk, File},
    layout::{Layout, segment_path},
    options::{OnCorruption, WalOptions},
    published::Published,
    record::{ReadFrom, Seq},
    scan::{Whole, check_commit, check_frames},
    segment::{DATA, Segment},
    window::{STEP, Window},
};
use crate::error::{Error, ErrorKind, Result};

const READ: &str = "wal.read";

const CORRUPT: &str = "the log is corrupt here";

/// Size of a block in bytes; a block is one read. It fits the L2 cache, and is large enough that the cost of the call does not
/// count.
const BLOCK: usize = 256 << 10;

/// Size of the first block in bytes, so that a caller that wants the last few records does not read much more. It doubles from
/// there.
const FIRST_BLOCK: usize = 32 << 10;

/// Number of segments ahead that are held open, so that retention cannot take them away: 2 GiB of segments of the default size.
const AHEAD: usize = 128;

/// Bytes of frames that are checked in one go, before the reader yields them.
const CHECKED_AHEAD: u64 = 16 << 10;

/// Reads a log from a position to its end, record by record, and verifies the checksum of each.
///
/// [`Wal::reader`](super::Wal::reader) makes a reader of the acknowledged records; [`WalReader::open`] needs no writer and reads
/// the records in the files. It takes no lock, and a writer may be at work at the same time.
///
/// # Behavior
/// * At the end it yields `None`; called again later, it goes on with the records that were appended since.
/// * Corruption before the tail is an [`ErrorKind::Corrupt`] that names segment, offset and records. With
///   [`OnCorruption::Stop`] the reader ends there, with [`OnCorruption::Continue`] it goes on behind it. Any other error ends it.
/// * An unfinished commit is not yielded.
/// * Retention does not break it: it holds the next 128 segments open. A reader that falls behind retention by more gets
///   [`ErrorKind::Expired`].
/// * Memory: one block of 256 KiB, or the size of a record if that is more, and the blocks that records still in use keep
///   alive.
#[derive(Debug)]
pub struct WalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    on_corruption: OnCorruption,
    /// The writer's published state, which bounds the reader; `None` for a reader that needs no writer.
    bound: Option<Arc<Published>>,
    log: LogId,
    pub(super) segment: Segment,
    /// Segments after this one, already open: first record, path and file.
    ahead: VecDeque<(u64, PathBuf, Arc<dyn File>)>,
    /// Offset of the next frame or commit.
    at: u64,
    /// Number of the next record.
    next: u64,
    /// Hash of the previous commit, where it is known.
    hash: Option<Hash>,
    /// Epoch of the previous commit. A later commit with a lower epoch is a remnant of a crash.
    epoch: u64,
    /// The commit whose frames are being read, or the rest of it behind corruption: offset of its end, and number of its last
    /// record.
    run: Option<(u64, u64)>,
    /// End of the frames from `at` on that are checked and in the block; 0 if there are none.
    checked: u64,
    /// The bytes that were read last.
    block: Bytes,
    /// Offset of the block in the segment.
    block_at: u64,
    /// Size of the next block in bytes.
    step: usize,
    /// Number of the last record that was acknowledged before the block was read; `u64::MAX` without a writer.
    bound_at: u64,
    /// True if a commit of this segment may be unfinished: there is no writer that states what was acknowledged, and no later
    /// segment that proves that this one is whole.
    unconfirmed: bool,
    /// Corruption found on the way to the next record, not yet yielded.
    pending: Option<Corruption>,
    done: bool,
}

impl WalReader {
    /// Opens a log for reading alone: it takes no lock and needs no writer. It uses three of the options: the disk,
    /// `on_corruption`, and the key if one is given, which is then compared with the log's.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no log, [`Expired`](ErrorKind::Expired) if retention has dropped the
    /// record, [`InvalidInput`](ErrorKind::InvalidInput) if it lies beyond the end, [`Corrupt`](ErrorKind::Corrupt) if a file
    /// is not a segment.
    ///
    /// ```
    /// use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions, WalReader};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let wal = Wal::open(dir.path(), WalOptions::default())?;
    /// wal.append_blocking(RecordKind(1), b"hello")?;
    /// for record in WalReader::open(dir.path(), ReadFrom::Start, WalOptions::default())? {
    ///     assert_eq!(&record?.bytes[..], b"hello");
    /// }
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "options are passed by value, here as everywhere")]
    pub fn open(dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Self> {
        let disk = options.disk();
        let reader = Self::start(disk, dir, from, options.on_corruption, None)?;
        if options.key.is_some() {
            Chain::of(&reader.segment.header, options.key.as_ref(), READ)?;
        }
        Ok(reader)
    }

    pub(super) fn start(
        disk: Arc<dyn Disk>,
        dir: &Path,
        from: ReadFrom,
        on_corruption: OnCorruption,
        bound: Option<Arc<Published>>,
    ) -> Result<Self> {
        // A position in the active segment needs no listing of the folder.
        let active = bound.as_ref().map(|bound| bound.segment()).filter(|active| match from {
            ReadFrom::Start => false,
            ReadFrom::Seq(Seq(seq)) => seq >= *active,
            ReadFrom::End => true,
        });
        let mut layout = match active {
            Some(active) => Layout::active(dir, active),
            None => Layout::read(&*disk, dir).map_err(|error| disk_error(READ, dir, error))?,
        };
        if bound.is_none() {
            layout.leave_out_orphaned(&*disk, READ)?;
        }
        let Some((oldest, _)) = layout.segments.first().cloned() else {
            return Err(
                Error::new(ErrorKind::NotFound, READ, "there is no log here").with_context("path", dir.display())
            );
        };
        let corrupt = layout.corruption(on_corruption, READ)?;
        let end = bound.as_ref().map(|bound| bound.acked().saturating_add(1));
        // Missing segments are reported before the first record that exists.
        let missing = layout.missing(dir).filter(|missing| match from {
            ReadFrom::Start => true,
            ReadFrom::Seq(Seq(seq)) => missing.has(seq),
            ReadFrom::End => false,
        });
        let seq = match from {
            ReadFrom::Start => oldest,
            ReadFrom::Seq(_) if missing.is_some() => oldest,
            ReadFrom::Seq(Seq(seq)) => seq.max(1),
            ReadFrom::End => end.unwrap_or(u64::MAX),
        };
        if seq < oldest {
            return Err(Error::new(ErrorKind::Expired, READ, "retention has dropped this record")
                .with_context("seq", seq)
                .with_context("first", oldest));
        }
        if end.is_some_and(|end| seq > end) {
            return Err(beyond(seq, end.unwrap_or_default()));
        }
        let at = layout.holding(seq).unwrap_or(0);
        let mut rest = layout.segments.into_iter().skip(at);
        let Some((first, path)) = rest.next() else { return Err(beyond(seq, oldest)) };
        let others = rest.clone();
        let (segment, pending) = match Segment::open(&*disk, first, &path, READ) {
            Err(error) if error.kind() == ErrorKind::Corrupt && on_corruption == OnCorruption::Continue => {
                let segment = Segment::guess(&*disk, first, &path, others, READ)?;
                (segment, Some(Corruption::new(&path, 0, DATA, None)))
            }
            segment => (segment?, None),
        };
        let mut reader = Self {
            disk,
            dir: dir.to_owned(),
            on_corruption,
            log: segment.header.log,
            at: DATA,
            next: first,
            hash: Some(segment.header.prev).filter(|_| pending.is_none()),
            epoch: segment.header.epoch,
            segment,
            ahead: VecDeque::new(),
            run: None,
            checked: 0,
            block: Bytes::new(),
            block_at: 0,
            step: FIRST_BLOCK,
            bound_at: bound.as_ref().map_or(u64::MAX, |bound| bound.acked()),
            unconfirmed: bound.is_none(),
            bound,
            pending: missing.or(pending).or(corrupt),
            done: false,
        };
        reader.open_ahead(rest.take(AHEAD))?;
        reader.seek(seq)?;
        if reader.next < seq && from != ReadFrom::End {
            return Err(beyond(seq, reader.next));
        }
        Ok(reader)
    }

    /// The number of the next record; at the end, the number of the record that will be appended next.
    pub fn next_seq(&self) -> Seq {
        Seq(self.next)
    }

    /// Returns true if the reader has ended for good.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Opens segments ahead of their use, so that retention cannot take them away.
    fn open_ahead(&mut self, segments: impl Iterator<Item = (u64, PathBuf)>) -> Result<()> {
        for (first, path) in segments {
            match self.disk.open(&path) {
                Ok(file) => self.ahead.push_back((first, path, Arc::from(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::new(ErrorKind::Expired, READ, "retention has overtaken the reader")
                        .with_context("first", first));
                }
                Err(error) => return Err(disk_error(READ, &path, error)),
            }
        }
        self.unconfirmed = self.bound.is_none() && self.ahead.is_empty();
        Ok(())
    }

    /// Moves to a record, or to the log's end if it has no such record: by the index, then from commit to commit.
    fn seek(&mut self, seq: u64) -> Result<()> {
        if seq > self.next
            && let Some(entry) = self.near(seq)?
            && let Some(header) = self.header_at(entry.at)?
            && header.first == entry.seq
            && header.first <= self.bound_at
        {
            (self.at, self.next, self.hash) = (entry.at, entry.seq, None);
        }
        // Commits before the record are skipped by their headers, the records of its commit that precede it by theirs.
        while self.next < seq && !self.done {
            match self.run {
                Some((end, last)) if last < seq => self.leave(end, last),
                Some((end, _)) => {
                    if !self.skip_frame(end)?
                        && let Some(Found::Corruption(corruption)) = self.step()?
                    {
                        self.tolerate(&corruption)?;
                    }
                }
                None => match self.enter()? {
                    Enter::Commit | Enter::Segment => {}
                    Enter::End => break,
                    Enter::Lost => match self.lost()? {
                        Some(corruption) => self.tolerate(&corruption)?,
                        None => break,
                    },
                },
            }
        }
        Ok(())
    }

    /// Skips the frame here without checking its payload. False: the bytes are not the header of the next frame, or it is the
    /// commit's last.
    fn skip_frame(&mut self, end: u64) -> Result<bool> {
        if !self.fill(self.at, FRAME_HEADER as u64)? {
            return Ok(false);
        }
        let frame = Frame::decode(self.bytes(self.at)).filter(|frame| frame.seq == self.next);
        let behind = frame.map(|frame| self.at + frame.size()).filter(|behind| *behind < end);
        let Some(behind) = behind else { return Ok(false) };
        (self.at, self.next) = (behind, self.next.saturating_add(1));
        Ok(true)
    }

    /// Handles corruption before the sought record: an error, unless the options say to continue.
    fn tolerate(&self, corruption: &Corruption) -> Result<()> {
        if self.on_corruption == OnCorruption::Continue { Ok(()) } else { Err(corruption.error(READ, CORRUPT)) }
    }

    /// The index entry of a commit at or before this record, from the writer's index or from the footer's.
    fn near(&self, seq: u64) -> Result<Option<Entry>> {
        let published = self.bound.as_ref().and_then(|bound| bound.near(self.segment.header.first, seq));
        if published.is_some() {
            return Ok(published);
        }
        let footer = self.segment.footer().map_err(|error| self.failed(error))?;
        Ok(footer.and_then(|(_, footer)| {
            let behind = footer.index.partition_point(|entry| entry.seq <= seq);
            footer.index.get(behind.checked_sub(1)?).copied()
        }))
    }

    fn failed(&self, error: io::Error) -> Error {
        disk_error(READ, &self.segment.path, error)
    }

    /// Moves to the next record, which is then checked and in the block, or to corruption before it; `None` at the end.
    fn ready(&mut self) -> Result<Option<Ready>> {
        loop {
            if self.at < self.checked {
                return Ok(Some(Ready::Record));
            }
            if let Some(corruption) = self.pending.take() {
                return Ok(Some(Ready::Corruption(corruption)));
            }
            let run = self.run;
            let entered = match run {
                Some((end, last)) if self.at >= end && self.next > last => {
                    self.leave(end, last);
                    Enter::Commit
                }
                Some((end, _)) if self.check_ahead(end)? => Enter::Commit,
                Some(_) => Enter::Lost,
                None => self.enter()?,
            };
            match entered {
                Enter::Commit | Enter::Segment => {}
                Enter::End => return Ok(None),
                Enter::Lost => match self.lost()? {
                    Some(corruption) => return Ok(Some(Ready::Corruption(corruption))),
                    // An empty block: this is the end. Otherwise the commit is here after all: try again.
                    None if self.run.is_none() && self.block.is_empty() => return Ok(None),
                    None => {}
                },
            }
        }
    }

    /// Leaves the commit that is being read: the next one begins at `end`, with the record after `last`.
    fn leave(&mut self, end: u64, last: u64) {
        (self.at, self.next, self.run, self.checked) = (end, last.saturating_add(1), None, 0);
    }

    /// Reads until the block has at least `need` bytes from `at` on; false if the file has fewer.
    fn fill(&mut self, at: u64, need: u64) -> Result<bool> {
        let has = self.block_at + self.block.len() as u64;
        let end = at.saturating_add(need);
        if at >= self.block_at && end <= has {
            return Ok(true);
        }
        // Loaded before the bytes are read, so that every record up to this bound is in them.
        let bound_at = self.bound.as_ref().map_or(u64::MAX, |bound| bound.acked());
        let size = self.segment.size(READ)?;
        if end > size {
            return Ok(false);
        }
        let len = usize::try_from(need.max(self.step as u64).min(size - at)).unwrap_or(usize::MAX);
        self.step = (self.step * 2).min(BLOCK);
        // The block's memory is used again, unless a record that the caller kept still refers to it.
        let mut buffer = std::mem::take(&mut self.block).try_into_mut().unwrap_or_default();
        if buffer.capacity() < len {
            buffer = BytesMut::zeroed(len);
        }
        buffer.resize(len, 0);
        let read = self.segment.file.read_at(&mut buffer, at).map_err(|error| self.failed(error))?;
        buffer.truncate(read);
        self.block = buffer.freeze();
        (self.block_at, self.bound_at, self.checked) = (at, bound_at, 0);
        Ok(read as u64 >= need)
    }

    /// The bytes from `at` on, as far as the block has them.
    fn bytes(&self, at: u64) -> &[u8] {
        let skip = at.checked_sub(self.block_at).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.block.get(skip..)).unwrap_or_default()
    }

    fn header_at(&mut self, at: u64) -> Result<Option<CommitHeader>> {
        if !self.fill(at, COMMIT_HEADER as u64)? {
            return Ok(None);
        }
        Ok(CommitHeader::decode(self.bytes(at), &self.log, at))
    }

    /// The commit header here, if it continues what was read.
    fn following(&mut self) -> Result<Option<CommitHeader>> {
        let (next, hash, epoch) = (self.next, self.hash, self.epoch);
        let header = self.header_at(self.at)?.filter(|header| header.first == next && header.epoch >= epoch);
        Ok(header.filter(|header| hash.is_none_or(|hash| hash == header.prev)))
    }

    /// Checks the next frames, up to the commit's end or the block's end: about [`CHECKED_AHEAD`] bytes, and at least one frame.
    /// Returns false if the first is bad.
    fn check_ahead(&mut self, end: u64) -> Result<bool> {
        if !self.fill(self.at, FRAME_HEADER as u64)? {
            return Ok(false);
        }
        let first = Frame::decode(self.bytes(self.at)).filter(|frame| self.at + frame.size() <= end);
        let Some(first) = first else { return Ok(false) };
        if !self.fill(self.at, first.size())? {
            return Ok(false);
        }
        let ahead = usize::try_from((end - self.at).min(CHECKED_AHEAD.max(first.size()))).unwrap_or(usize::MAX);
        let run = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let bytes = self.bytes(self.at);
        let bytes = bytes.get(..run).unwrap_or(bytes);
        let (mut rest, mut seq) = (bytes, self.next);
        while bytes.len() - rest.len() < ahead {
            let Some(frame) = Frame::decode(rest).filter(|frame| frame.seq == seq) else { break };
            let size = usize::try_from(frame.size()).unwrap_or(usize::MAX);
            let Some((here, behind)) = rest.split_at_checked(size) else { break };
            if !frame.holds(here) {
                break;
            }
            rest = behind;
            seq = seq.saturating_add(1);
        }
        let at = self.at + (bytes.len() - rest.len()) as u64;
        self.checked = at;
        Ok(at > self.at)
    }

    /// Enters the commit that should be here, or the next segment.
    fn enter(&mut self) -> Result<Enter> {
        if let Some(bound) = &self.bound {
            // The block has no more acknowledged records: drop it, so that the next read sees what was written since.
            if self.next > self.bound_at {
                self.block = Bytes::new();
                self.bound_at = bound.acked();
            }
            if self.next > self.bound_at {
                return Ok(Enter::End);
            }
        }
        let Some(header) = self.following()? else {
            return Ok(if self.next_segment()? { Enter::Segment } else { Enter::Lost });
        };
        let end = self.at + header.size();
        let within = end <= self.block_at + self.block.len() as u64 || end <= self.segment.size(READ)?;
        if !within || (self.unconfirmed && !self.is_whole(&header)?) {
            return Ok(Enter::Lost);
        }
        if self.unconfirmed && end <= self.block_at + self.block.len() as u64 {
            // `is_whole` has just checked all frames.
            self.checked = end;
        }
        self.run = Some((end, header.last()));
        (self.hash, self.epoch) = (Some(header.hash), header.epoch);
        self.at += COMMIT_HEADER as u64;
        Ok(Enter::Commit)
    }

    /// Returns true if every frame of the commit here is sound.
    fn is_whole(&mut self, header: &CommitHeader) -> Result<bool> {
        let size = header.size();
        if size <= BLOCK as u64 {
            if !self.fill(self.at, size)? {
                return Ok(false);
            }
            let frames = self.bytes(self.at + COMMIT_HEADER as u64);
            let frames = frames.get(..header.length as usize).unwrap_or_default();
            return Ok(check_frames(frames, header.first, header.count).is_ok());
        }
        let whole = check_commit(&mut self.window()?, self.at, header, None).map_err(|error| self.failed(error))?;
        Ok(whole == Whole::Yes)
    }

    fn window(&self) -> Result<Window<'_>> {
        Ok(Window::new(&*self.segment.file, self.segment.size(READ)?, STEP))
    }

    /// Enters the next segment, if there is one that begins with the next record.
    fn next_segment(&mut self) -> Result<bool> {
        // This segment has yielded no record yet, so no other one begins with the next record.
        if self.next == self.segment.header.first {
            return Ok(false);
        }
        while self.ahead.front().is_some_and(|(first, ..)| *first < self.next) {
            self.ahead.pop_front();
        }
        let (path, file) = match self.ahead.pop_front() {
            Some((first, path, file)) if first == self.next => (path, file),
            Some(later) => {
                self.ahead.push_front(later);
                return Ok(false);
            }
            None => {
                let path = segment_path(&self.dir, self.next);
                match self.disk.open(&path) {
                    Ok(file) => (path, Arc::from(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    Err(error) => return Err(disk_error(READ, &path, error)),
                }
            }
        };
        self.begin(path, file)?;
        if self.ahead.is_empty() {
            let layout = self.layout()?;
            let next = self.next;
            self.open_ahead(layout.segments.into_iter().filter(|(first, _)| *first > next).take(AHEAD))?;
        }
        Ok(true)
    }

    /// Lists the segments again.
    fn layout(&self) -> Result<Layout> {
        let mut layout = Layout::read(&*self.disk, &self.dir).map_err(|error| disk_error(READ, &self.dir, error))?;
        if self.bound.is_none() && layout.segments.last().is_some_and(|(first, _)| *first > self.segment.header.first) {
            layout.leave_out_orphaned(&*self.disk, READ)?;
        }
        Ok(layout)
    }

    /// Moves to the start of the segment that continues this one.
    fn begin(&mut self, path: PathBuf, file: Arc<dyn File>) -> Result<()> {
        let read = Segment::read(Arc::clone(&file), self.next, &path, READ).and_then(|segment| {
            let continues = self.hash.is_none_or(|hash| hash == segment.header.prev) && segment.header.log == self.log;
            if continues {
                return Ok(segment);
            }
            Err(Corruption::new(&path, 0, DATA, None).error(READ, "the segment does not continue the one before it"))
        });
        self.segment = match read {
            Ok(segment) => segment,
            Err(error) if error.kind() == ErrorKind::Corrupt && self.on_corruption == OnCorruption::Continue => {
                self.pending = Some(Corruption::new(&path, 0, DATA, None));
                let header = SegmentHeader { first: self.next, ..self.segment.header.clone() };
                Segment { path, file, header }
            }
            Err(error) => return Err(error),
        };
        self.hash = Some(self.segment.header.prev).filter(|_| self.pending.is_none());
        (self.at, self.run, self.checked) = (DATA, None, 0);
        // `clear` keeps the memory of the block for the next read.
        self.block.clear();
        self.block_at = 0;
        Ok(())
    }
}

/// The next item to yield.
#[derive(Debug)]
enum Ready {
    Record,
    Corruption(Corruption),
}

/// The result of [`WalReader::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enter {
    /// The reader moved on: into a commit, within it, or out of it.
    Commit,
    /// At the start of the next segment.
    Segment,
    /// At the end: no further record is acknowledged.
    End,
    /// The expected commit or frame is not here: corruption, an unfinished commit, or the end.
    Lost,
}

/// The error for a position after the log's end; `end` is the number of the record that will be appended next.
fn beyond(seq: u64, end: u64) -> Error {
    Error::new(ErrorKind::InvalidInput, READ, "the log does not reach so far")
        .with_context("seq", seq)
        .with_context("next", end)
}
