//! Opening for writing: creates a log, or finds the end of an existing one and repairs its torn tail.
//!
//! Each commit carries the number of the last record that was durable when the commit was written. A later valid commit therefore
//! proves that an unreadable range had been durable, which makes the range corruption. Without such a proof it is a tail that a
//! crash tore.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    chain::Chain,
    corruption::{Corruption, disk_error},
    engine::{Active, Engine, create_segment},
    format::{CommitHeader, Footer, SegmentHeader},
    fs::{Disk, File},
    layout::{Layout, aside_path, unfinished_begin, write_begin},
    lock,
    options::{OnCorruption, WalOptions},
    published::Published,
    purpose_of_log,
    record::now,
    scan::{Whole, check_commit, end_of_bytes, find_commit},
    segment::{DATA, Segment},
    walk::Walk,
    window::{STEP, Window},
};
use crate::error::{Error, ErrorKind, Result};

const OPEN: &str = "wal.open";

/// Number of bytes behind the end that a footer states which must be zeros, or recovery reads on.
const PEEK: u64 = 4 << 10;

/// A torn tail that opening cut, and the copy that was kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repair {
    /// The range that was cut; nothing in it had been acknowledged. Its records are known only if a whole header was left.
    pub cut: Corruption,
    /// Path of the copy. The file is no part of the log: the caller may remove it.
    pub copy: PathBuf,
}

/// A log that is open for writing.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) repaired: Option<Repair>,
    pub(super) corruption: Option<Corruption>,
}

/// The end of a log, as recovery found it.
struct End {
    chain: Chain,
    active: Active,
    next: u64,
    hash: [u8; 32],
    epoch: u64,
    repaired: Option<Repair>,
    corruption: Option<Corruption>,
    /// True if a sound footer at the file's end already describes this end.
    clean: bool,
    /// Offset of that footer; the next commit makes it stale.
    stale_footer: Option<u64>,
}

pub(super) fn open(dir: &Path, options: &WalOptions) -> Result<Opened> {
    let disk = options.disk();
    let lock = take_lock(&*disk, dir)?;
    let mut layout = Layout::read(&*disk, dir).map_err(|error| disk_error(OPEN, dir, error))?;
    // Retention may soon create a file at this path, so a leftover there is removed now, not by the background thread.
    let begin = unfinished_begin(dir);
    if let Some(at) = layout.leftovers.iter().position(|path| *path == begin) {
        layout.leftovers.swap_remove(at);
        disk.remove(&begin).map_err(|error| disk_error(OPEN, &begin, error))?;
    }
    let corrupt = layout.corruption(options.on_corruption, OPEN)?;
    let end = match layout.segments.first() {
        Some(_) => {
            if let Some(missing) = layout.missing(dir) {
                return Err(missing.error(OPEN, "the first segment is missing"));
            }
            recover(&*disk, dir, std::mem::take(&mut layout.segments), options)?
        }
        None if layout.begin.is_some() || layout.corruption.is_some() => {
            return Err(
                Error::new(ErrorKind::Corrupt, OPEN, "all segments are missing").with_context("path", dir.display())
            );
        }
        None => {
            sync_parents(&*disk, dir)?;
            create(&*disk, dir, options, options.purpose.code(), 1)?
        }
    };
    let (repaired, corruption) = (end.repaired.clone(), corrupt.or_else(|| end.corruption.clone()));
    let mut engine = engine(disk, dir, options, options.purpose.code(), lock, end);
    if !layout.leftovers.is_empty() {
        engine.remove(layout.leftovers);
    }
    Ok(Opened { engine, repaired, corruption })
}

/// Creates a log whose first record has this number, in a folder that has no log. `purpose` is the code for its headers; the one
/// of the options does not count.
pub(super) fn begin_at(dir: &Path, options: &WalOptions, purpose: u16, first: u64) -> Result<Engine> {
    let disk = options.disk();
    let lock = take_lock(&*disk, dir)?;
    sync_parents(&*disk, dir)?;
    if first > 1 {
        write_begin(&*disk, dir, first).map_err(|error| disk_error(OPEN, dir, error))?;
    }
    let end = create(&*disk, dir, options, purpose, first)?;
    Ok(engine(disk, dir, options, purpose, lock, end))
}

fn engine(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &WalOptions,
    purpose: u16,
    lock: Box<dyn File>,
    end: End,
) -> Engine {
    let head = (end.next.saturating_sub(1), end.hash);
    let published = Published::new(end.chain.log, head, head.0, end.active.first, end.active.index.clone());
    Engine {
        disk,
        dir: dir.to_owned(),
        chain: end.chain,
        durability: options.durability,
        segment_bytes: options.segment(),
        purpose,
        epoch: end.epoch.saturating_add(1),
        active: end.active,
        head,
        published: Arc::new(published),
        dirty: !end.clean,
        stale_footer: end.stale_footer,
        lock: Some(lock),
        next: None,
        sealing: None,
        background: None,
    }
}

/// Takes the lock; creates the folder and its parents if they do not exist.
fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn File>> {
    match lock::acquire(disk, dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(|error| disk_error(OPEN, dir, error))?;
            lock::acquire(disk, dir)
        }
        taken => taken,
    }
}

/// Makes the name of a new log's folder, and the names of its parents, durable: their creator may not have synced them.
fn sync_parents(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for folder in dir.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match disk.sync_dir(folder) {
            // This process cannot read or change the folder, so it created nothing in it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                break;
            }
            // File systems that cannot sync a folder make its names durable by other means.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            done => done.map_err(|error| disk_error(OPEN, folder, error))?,
        }
    }
    Ok(())
}

/// Creates the first segment of a new log whose first record has this number.
fn create(disk: &dyn Disk, dir: &Path, options: &WalOptions, purpose: u16, first: u64) -> Result<End> {
    let chain = Chain::new(uuid::Uuid::new_v4().into_bytes(), options.key.clone());
    let header = SegmentHeader {
        log: chain.log,
        first,
        prev: chain.genesis(),
        created: now(),
        epoch: 1,
        synced: first.saturating_sub(1),
        keyed: chain.key_check(),
        purpose,
    };
    let active = create_segment(disk, dir, &header, options.segment())?;
    Ok(End {
        chain,
        active,
        next: first,
        hash: header.prev,
        epoch: 0,
        repaired: None,
        corruption: None,
        clean: false,
        stale_footer: None,
    })
}

/// Finds the end: in the last segment, or in the one before it if that was not yet synced when the last one was begun.
fn recover(disk: &dyn Disk, dir: &Path, mut segments: Vec<(u64, PathBuf)>, options: &WalOptions) -> Result<End> {
    let mut set_aside = None;
    loop {
        let Some((first, path)) = segments.pop() else {
            return Err(Error::new(ErrorKind::Corrupt, OPEN, "there is no segment").with_context("path", dir.display()));
        };
        let segment = Segment::open(disk, first, &path, OPEN)?;
        let chain = Chain::of(&segment.header, options.key.as_ref(), OPEN)?;
        let before = segments.iter().rev().map(|(first, path)| Segment::open_any(disk, *first, path, OPEN));
        purpose_of_log::check(dir, std::iter::once(Ok(segment.clone())).chain(before), options.purpose, OPEN)?;
        if let Some((first_before, path_before)) = segments.last()
            && !follows_durable(&segment).map_err(|error| disk_error(OPEN, &path, error))?
        {
            let before = Segment::open(disk, *first_before, path_before, OPEN)?;
            if let Some(torn) = torn_before(&before, &segment, OPEN)? {
                // Nothing in the last segment was durable, and the commit that precedes it is missing: set it aside as a whole.
                let copy = aside_path(&path, segment.header.epoch, 0);
                let move_aside = || {
                    disk.rename(&path, &copy)?;
                    disk.sync_dir(dir)
                };
                move_aside().map_err(|error| disk_error(OPEN, &path, error))?;
                set_aside = Some(Repair { cut: torn, copy });
                continue;
            }
        }
        let mut end = Recovery::new(disk, dir, &segment, chain, options).run(set_aside.is_none())?;
        end.repaired = end.repaired.or(set_aside);
        return Ok(end);
    }
}

/// True if everything before this segment was durable: as its header stated when it was begun, or its footer when it was closed.
pub(super) fn follows_durable(segment: &Segment) -> io::Result<bool> {
    let first = segment.header.first;
    Ok(segment.header.synced.saturating_add(1) >= first
        || segment.footer()?.is_some_and(|(_, footer)| footer.synced.saturating_add(1) >= first))
}

/// Returns the whole last segment as a torn range if the segment before it ends too early and nothing proves that the missing
/// records had been durable.
pub(super) fn torn_before(before: &Segment, last: &Segment, operation: &'static str) -> Result<Option<Corruption>> {
    let limit = before.size(operation)?;
    let mut walk = Walk::new(before, limit);
    let mut torn_size = || -> io::Result<Option<u64>> {
        while walk.next < last.header.first && walk.step(None)?.is_some() {}
        if walk.next == last.header.first && walk.hash == last.header.prev {
            return Ok(None);
        }
        let size = last.file.size()?;
        let mut window = Window::new(&*last.file, size, STEP);
        // A commit in the last segment that states that a missing record had been durable.
        let witness =
            find_commit(&mut window, DATA, size, &last.header.log, |header| header.synced >= walk.next)?.is_some();
        Ok((!witness && last.header.synced < walk.next).then_some(size))
    };
    let torn = torn_size().map_err(|error| disk_error(operation, &before.path, error))?;
    Ok(torn.map(|size| Corruption::new(&last.path, 0, size, None)))
}

/// Walks the last segment and repairs its end.
struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    segment: &'a Segment,
    chain: Chain,
    options: &'a WalOptions,
    active: Active,
    /// Commits that the newest commit does not state to be durable: last record and offset of each.
    unsynced: VecDeque<(u64, u64)>,
    corruption: Option<Corruption>,
}

impl<'a> Recovery<'a> {
    fn new(disk: &'a dyn Disk, dir: &'a Path, segment: &'a Segment, chain: Chain, options: &'a WalOptions) -> Self {
        let active = Active::new(segment.path.clone(), Arc::clone(&segment.file), segment.header.first, 0);
        Self { disk, dir, segment, chain, options, active, unsynced: VecDeque::new(), corruption: None }
    }

    fn failed(&self, error: io::Error) -> Error {
        disk_error(OPEN, &self.segment.path, error)
    }

    fn run(mut self, trust_footer: bool) -> Result<End> {
        let size = self.segment.size(OPEN)?;
        // If commits are not synced one by one, a footer may be on the disk without the commits that it describes: it is
        // trusted only if it states them to be synced.
        let footer = self.segment.footer().map_err(|error| self.failed(error))?;
        let footer = footer.filter(|(_, footer)| trust_footer && footer.synced >= footer.last);
        let start = footer.as_ref().map(|(start, _)| *start);
        let footer = footer.map(|(_, footer)| footer);
        self.active.limit = start.unwrap_or(size);
        let mut walk = Walk::new(self.segment, self.active.limit);
        if let Some(footer) = &footer {
            self.begin_at_footer(&mut walk, footer).map_err(|error| self.failed(error))?;
        }
        let mut bytes_end;
        loop {
            self.walk(&mut walk, footer.as_ref()).map_err(|error| self.failed(error))?;
            bytes_end = Self::end_of_bytes(&mut walk, footer.as_ref()).map_err(|error| self.failed(error))?;
            if !self.skip_corruption(&mut walk, footer.as_ref(), bytes_end)? {
                break;
            }
        }
        // The epoch of a torn commit: it must not be used again.
        let seen = walk.header().map_err(|error| self.failed(error))?.map_or(0, |header| header.epoch);
        let clean =
            bytes_end == walk.at && footer.is_some_and(|footer| footer.end == walk.at && footer.hash == walk.hash);
        let mut repaired = None;
        if !clean {
            repaired = self.repair(&mut walk, bytes_end).map_err(|error| self.failed(error))?;
        }
        Ok(End {
            next: walk.next,
            hash: walk.hash,
            epoch: walk.epoch.max(seen).max(self.segment.header.epoch),
            chain: self.chain,
            active: self.active,
            stale_footer: start.filter(|_| repaired.is_none()),
            repaired,
            corruption: self.corruption,
            clean,
        })
    }

    /// Moves the walk to the last commit in the footer's index, if that commit is there.
    fn begin_at_footer(&mut self, walk: &mut Walk<'_>, footer: &Footer) -> io::Result<()> {
        let Some(entry) = footer.index.last() else { return Ok(()) };
        walk.at = entry.at;
        if let Some(header) = walk.header()?.filter(|header| header.first == entry.seq) {
            self.active.index.clone_from(&footer.index);
            self.active.at = entry.at;
            (walk.next, walk.hash, walk.epoch) = (entry.seq, header.prev, header.epoch);
        } else {
            walk.at = DATA;
        }
        Ok(())
    }

    /// Walks as long as each commit continues the one before it. Checks the hash of the last one as well, since the next commit
    /// will be chained to it; if the hash is wrong, the walk ends before that commit.
    fn walk(&mut self, walk: &mut Walk<'_>, footer: Option<&Footer>) -> io::Result<()> {
        let mut last = None;
        loop {
            let at = walk.at;
            let Some(header) = walk.step(None)? else { break };
            self.active.note(&header);
            if let Some(footer) = footer.filter(|footer| footer.end == walk.at) {
                self.active.commits = footer.commits;
            }
            self.unsynced.push_back((header.last(), at));
            while self.unsynced.front().is_some_and(|(last, _)| *last <= header.synced) {
                self.unsynced.pop_front();
            }
            last = Some((at, header));
        }
        let Some((at, header)) = last else { return Ok(()) };
        if check_commit(&mut walk.window, at, &header, Some(&self.chain))? != Whole::Yes {
            (walk.at, walk.next, walk.hash) = (at, header.first, header.prev);
            self.active.at = at;
            self.active.commits = self.active.commits.saturating_sub(1);
            self.active.index.pop_if(|entry| entry.at == at);
            self.unsynced.pop_back();
        }
        Ok(())
    }

    /// Returns the end of all bytes ever written. If the walk ended where a footer states the end, nothing durable is behind it,
    /// and it suffices to read the next [`PEEK`] bytes.
    fn end_of_bytes(walk: &mut Walk<'_>, footer: Option<&Footer>) -> io::Result<u64> {
        let limit = walk.limit;
        if footer.is_some_and(|footer| footer.end == walk.at && footer.hash == walk.hash)
            && end_of_bytes(&mut walk.window, walk.at, limit.min(walk.at + PEEK))? == walk.at
        {
            return Ok(walk.at);
        }
        end_of_bytes(&mut walk.window, walk.at, limit)
    }

    /// Skips the unreadable range here if it had been durable, which makes it corruption; with [`OnCorruption::Stop`] it is an
    /// error. Returns false if nothing proves that it had been durable: it is a torn tail.
    fn skip_corruption(&mut self, walk: &mut Walk<'_>, footer: Option<&Footer>, bytes_end: u64) -> Result<bool> {
        let (at, next, epoch) = (walk.at, walk.next, walk.epoch);
        let footer = footer.filter(|footer| footer.end > at && footer.last >= next);
        // A later commit proves it if it states so itself; with a footer that covers the range, any later commit does.
        let accept = |header: &CommitHeader| {
            header.first > next && header.epoch >= epoch && (header.synced >= next || footer.is_some())
        };
        let later = find_commit(&mut walk.window, at, bytes_end, &self.chain.log, accept);
        let later = later.map_err(|error| self.failed(error))?;
        let claimed = walk.header().map_err(|error| self.failed(error))?.filter(|header| header.first == next);
        if let (Some((behind, later)), Some(claimed)) = (&later, claimed)
            && later.first <= claimed.last()
        {
            // The headers of both commits have valid checksums, and yet their records overlap: no corruption does that. Readers
            // trust the numbers in the headers, so they would not yield a record that is appended here.
            let corruption = Corruption::new(&self.segment.path, at, *behind, Some((next, later.first - 1)));
            return Err(corruption.error(OPEN, "two commits contradict each other: only salvage helps"));
        }
        let (behind, missing) = match (later, footer) {
            (Some((behind, header)), _) => {
                walk.hash = header.prev;
                (behind, header.first - 1)
            }
            (None, Some(footer)) => {
                (walk.hash, walk.epoch) = (footer.hash, footer.epoch);
                self.active.commits = footer.commits;
                (footer.end, footer.last)
            }
            (None, None) => return Ok(false),
        };
        let corruption = Corruption::new(&self.segment.path, at, behind, Some((next, missing)));
        if self.options.on_corruption == OnCorruption::Stop {
            return Err(corruption.error(OPEN, "the log is corrupt, and goes on behind the corruption"));
        }
        self.corruption.get_or_insert(corruption);
        walk.at = behind;
        walk.next = missing + 1;
        self.active.at = behind;
        Ok(true)
    }

    /// Cuts a torn tail, and makes sure that everything before it is durable.
    fn repair(&mut self, walk: &mut Walk<'_>, bytes_end: u64) -> io::Result<Option<Repair>> {
        let mut repaired = None;
        if bytes_end > walk.at {
            repaired = Some(self.set_aside(walk, bytes_end)?);
            self.segment.file.truncate(walk.at)?;
            let size = self.options.segment().max(walk.at);
            self.segment.file.allocate(size)?;
            self.active.limit = size;
        }
        // After a failed sync the page cache may still show bytes that never reached the disk. So all bytes that are not known
        // to be durable are written again before the sync.
        let mut at = self.unsynced.front().map_or(walk.at, |(_, at)| *at);
        while at < walk.at {
            let piece = walk.window.piece(at, walk.at)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.segment.file.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        self.segment.file.sync()?;
        self.disk.sync_dir(self.dir)?;
        Ok(repaired)
    }

    /// Copies the torn tail to a separate file before it is cut.
    fn set_aside(&self, walk: &mut Walk<'_>, end: u64) -> io::Result<Repair> {
        let lost =
            walk.header()?.filter(|header| header.first == walk.next).map(|header| (header.first, header.last()));
        let cut = Corruption::new(&self.segment.path, walk.at, end, lost);
        let copy = aside_path(&self.segment.path, walk.epoch.saturating_add(1), walk.at);
        let file = self.disk.create(&copy)?;
        let mut at = walk.at;
        while at < end {
            let piece = walk.window.piece(at, end)?;
            if piece.is_empty() {
                break;
            }
            file.write_at(piece, at - walk.at)?;
            at += piece.len() as u64;
        }
        file.sync()?;
        self.disk.sync_dir(self.dir)?;
        Ok(Repair { cut, copy })
    }
}
