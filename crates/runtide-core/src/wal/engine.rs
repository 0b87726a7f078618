//! The files of an open log: the engine writes commits, syncs them and rotates segments. One thread at a time uses it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    chain::Chain,
    corruption::disk_error,
    format::{COMMIT_HEADER, CommitHeader, Entry, Footer, HASHED_FROM, Hash, SegmentHeader},
    fs::{Disk, File},
    layout::{segment_path, unfinished_path},
    options::Durability,
    published::Published,
    record::now,
    segment::DATA,
    sync::{
        mpsc::{Receiver, RecvError, Sender, channel},
        thread::{self, JoinHandle},
    },
};
use crate::error::Result;

/// Least distance between two entries of the index, in bytes.
const INDEX_EVERY: u64 = 64 << 10;

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Number of its first record.
    pub(super) first: u64,
    /// Offset of the next commit.
    pub(super) at: u64,
    /// End of the space that is reserved for commits.
    pub(super) limit: u64,
    pub(super) commits: u64,
    pub(super) index: Vec<Entry>,
    /// Epoch of the last commit in the segment.
    pub(super) epoch: u64,
}

impl Active {
    pub(super) fn new(path: PathBuf, file: Arc<dyn File>, first: u64, limit: u64) -> Self {
        Self { path, file, first, at: DATA, limit, commits: 0, index: Vec::new(), epoch: 0 }
    }

    /// Counts a commit at `at`, and indexes it if an entry is due; returns that entry.
    pub(super) fn note(&mut self, header: &CommitHeader) -> Option<Entry> {
        let entry = Entry { seq: header.first, at: self.at };
        let due = self.index.last().is_none_or(|last| self.at - last.at >= INDEX_EVERY);
        self.index.extend(due.then_some(entry));
        self.at += header.size();
        self.commits += 1;
        self.epoch = header.epoch;
        due.then_some(entry)
    }

    fn footer(&self, head: (u64, Hash), synced: u64) -> Footer {
        Footer {
            first: self.first,
            last: head.0,
            commits: self.commits,
            hash: head.1,
            end: self.at,
            epoch: self.epoch,
            synced,
            index: self.index.clone(),
        }
    }
}

/// Work for the background thread.
pub(super) struct Job(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// The background thread, which runs one job after the other.
#[derive(Debug)]
pub(super) struct Background {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) chain: Chain,
    pub(super) durability: Durability,
    pub(super) segment_bytes: u64,
    /// Code of the log's purpose, for the headers of new segments.
    pub(super) purpose: u16,
    /// The epoch of this opening: each opening of the log has a higher one.
    pub(super) epoch: u64,
    pub(super) active: Active,
    /// Number of the last record, and hash of its commit; the next commit is chained to it.
    pub(super) head: (u64, Hash),
    pub(super) published: Arc<Published>,
    /// True if something was written that no footer at the file's end covers.
    pub(super) dirty: bool,
    /// Offset of a footer in the active segment that the next commit makes stale.
    pub(super) stale_footer: Option<u64>,
    pub(super) lock: Option<Box<dyn File>>,
    /// The file of the next segment, which the background thread creates; `None` before it was requested.
    pub(super) next: Option<Receiver<io::Result<Arc<dyn File>>>>,
    /// The previous segment, while its footer is being written and synced.
    pub(super) sealing: Option<Receiver<io::Result<()>>>,
    /// The thread for work that no append waits for; started when first needed.
    pub(super) background: Option<Background>,
}

impl Engine {
    /// Writes a commit of `count` records from `first` on. `commit` has their frames, and before them space for the commit's
    /// header. It is durable on return with [`Durability::Commit`].
    pub(super) fn write(&mut self, commit: &mut [u8], first: u64, count: u32) -> Result<()> {
        let size = commit.len() as u64;
        self.make_room(size)?;
        self.erase_footer()?;
        let mut header = CommitHeader {
            hash: [0; 32],
            prev: self.head.1,
            epoch: self.epoch,
            first,
            synced: self.published.synced(),
            count,
            length: u32::try_from(commit.len().saturating_sub(COMMIT_HEADER)).unwrap_or(u32::MAX),
        };
        header.write_hashed(commit);
        header.hash = self.chain.hash(commit.get(HASHED_FROM..).unwrap_or_default());
        CommitHeader::write_seal(commit, &header.hash, &self.chain.log, self.active.at);
        let active = &mut self.active;
        active.file.write_at(commit, active.at).map_err(|error| disk_error("wal.append", &active.path, error))?;
        self.dirty = true;
        self.head = (header.last(), header.hash);
        let entry = active.note(&header);
        if self.durability == Durability::Commit {
            self.sync()?;
        }
        self.published.commit(self.head, self.active.first, entry);
        // The next file is created only when the segment is half full, so that a small log stays one file.
        if self.active.at > self.active.limit / 2 {
            self.prepare_next();
        }
        Ok(())
    }

    /// Makes everything that was written durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.wait_for_seal()?;
        self.active.file.sync().map_err(|error| disk_error("wal.append", &self.active.path, error))?;
        self.published.sync(self.head.0);
        Ok(())
    }

    /// Prepares a sync that does not hold up the writer: returns the file, its path, and the last record that the sync will
    /// cover.
    pub(super) fn begin_sync(&mut self) -> Result<(Arc<dyn File>, PathBuf, u64)> {
        self.wait_for_seal()?;
        Ok((Arc::clone(&self.active.file), self.active.path.clone(), self.head.0))
    }

    /// Waits until the previous segment is sealed and synced. Rotation waits for it too, so at most two segments ever have bytes
    /// that are not synced.
    fn wait_for_seal(&mut self) -> Result<()> {
        let Some(sealing) = self.sealing.take() else { return Ok(()) };
        let done = sealing.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)));
        done.map_err(|error| disk_error("wal.append", &self.dir, error))?;
        self.published.sync(self.active.first.saturating_sub(1));
        Ok(())
    }

    /// Overwrites the stale footer with zeros before the first commit; the commit's sync covers both. So no durable commit lies
    /// behind the end that a footer on the disk states.
    fn erase_footer(&mut self) -> Result<()> {
        let Some(at) = self.stale_footer.take() else { return Ok(()) };
        let active = &self.active;
        let erase = || {
            let size = active.file.size()?;
            active.file.write_at(&vec![0; usize::try_from(size.saturating_sub(at)).unwrap_or(0)], at)
        };
        erase().map_err(|error| disk_error("wal.append", &active.path, error))
    }

    /// Makes sure that the active segment has space for a commit of `size` bytes: rotates if it does not, or
    /// enlarges it if it is empty.
    fn make_room(&mut self, size: u64) -> Result<()> {
        let end = self.active.at.saturating_add(size);
        if end <= self.active.limit {
            return Ok(());
        }
        if self.head.0.saturating_add(1) > self.active.first {
            return self.rotate(size);
        }
        // The segment is empty, and still too small for this commit: enlarge it.
        let active = &mut self.active;
        active.file.allocate(end).map_err(|error| disk_error("wal.append", &active.path, error))?;
        active.limit = end;
        Ok(())
    }

    /// Starts a new segment with space for a commit of this size.
    fn rotate(&mut self, size: u64) -> Result<()> {
        self.wait_for_seal()?;
        let unfinished = unfinished_path(&self.dir);
        let file = match self.next_file() {
            Ok(file) => file,
            // It was prepared earlier, perhaps on a full disk, which may have free space again by now: retry once.
            Err(_) => self.next_file()?,
        };
        let limit = self.segment_bytes.max(DATA.saturating_add(size));
        if limit > self.segment_bytes {
            file.allocate(limit).map_err(|error| disk_error("wal.append", &unfinished, error))?;
        }
        let header = SegmentHeader {
            log: self.chain.log,
            first: self.head.0.saturating_add(1),
            prev: self.head.1,
            created: now(),
            epoch: self.epoch,
            synced: self.published.synced(),
            keyed: self.chain.key_check(),
            purpose: self.purpose,
        };
        let path = begin(&*self.disk, &self.dir, &*file, &header)?;
        let full = std::mem::replace(&mut self.active, Active::new(path, file, header.first, limit));
        self.stale_footer = None;
        // In this order, since the file of the next segment is needed sooner than the footer.
        self.prepare_next();
        self.seal(&full);
        Ok(())
    }

    /// Writes the footer of a full segment in the background: no append waits for it.
    fn seal(&mut self, full: &Active) {
        let footer = full.footer(self.head, self.published.synced()).encode(&self.chain.log);
        let (file, at) = (Arc::clone(&full.file), full.at);
        let (done, sealing) = channel();
        self.sealing = Some(sealing);
        self.run_in_background(Job(Box::new(move || {
            let seal = || {
                file.write_at(&footer, at)?;
                file.truncate(at + footer.len() as u64)?;
                file.sync()
            };
            let _ = done.send(seal());
        })));
    }

    /// Removes files that are no part of the log, in the background.
    pub(super) fn remove(&mut self, paths: Vec<PathBuf>) {
        let disk = Arc::clone(&self.disk);
        // A file that cannot be removed now is removed by the next opening.
        self.run_in_background(Job(Box::new(move || paths.iter().for_each(|path| drop(disk.remove(path))))));
    }

    /// Returns the next segment's file; waits until it is created.
    fn next_file(&mut self) -> Result<Arc<dyn File>> {
        self.prepare_next();
        let made = self.next.take().map_or(Err(RecvError), |next| next.recv());
        made.unwrap_or_else(|gone| Err(io::Error::other(gone)))
            .map_err(|error| disk_error("wal.append", &unfinished_path(&self.dir), error))
    }

    /// Creates the next segment's file in the background.
    fn prepare_next(&mut self) {
        if self.next.is_some() {
            return;
        }
        let (disk, dir, bytes) = (Arc::clone(&self.disk), self.dir.clone(), self.segment_bytes);
        let (done, next) = channel();
        self.next = Some(next);
        self.run_in_background(Job(Box::new(move || {
            let _ = done.send(prepare(&*disk, &dir, bytes));
        })));
    }

    fn run_in_background(&mut self, job: Job) {
        if self.background.is_none() {
            let (sender, jobs) = channel::<Job>();
            let run = move || jobs.into_iter().for_each(|Job(job)| job());
            let thread = thread::Builder::new().name("runtide-wal-files".to_owned()).spawn(run).ok();
            self.background = thread.map(|thread| Background { jobs: sender, thread });
        }
        let unsent = match &self.background {
            Some(background) => background.jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        // Without a thread the job runs here and now.
        if let Some(Job(job)) = unsent {
            job();
        }
    }

    /// Syncs, writes a footer with the end of the log, so that the next opening need not search for it, and releases the lock.
    /// After a failure nothing is written any more.
    pub(super) fn close(&mut self) -> Result<()> {
        let done = if self.published.failed().is_none() && self.dirty { self.finish() } else { Ok(()) };
        if let Some(next) = self.next.take().and_then(|next| next.recv().ok()) {
            drop(next);
            // A leftover is harmless: the next opening removes it.
            let _ = self.disk.remove(&unfinished_path(&self.dir));
        }
        self.release();
        done
    }

    /// Ends the background thread and releases the lock.
    fn release(&mut self) {
        if let Some(Background { jobs, thread }) = self.background.take() {
            drop(jobs);
            // Join before the lock is released, so that the next owner finds no thread at work in the folder.
            let _ = thread.join();
        }
        self.lock = None;
    }

    /// Syncs, and writes the footer of the active segment.
    fn finish(&mut self) -> Result<()> {
        self.sync()?;
        let active = &self.active;
        let footer = active.footer(self.head, self.published.synced()).encode(&self.chain.log);
        let write = || {
            // At the very end of the reserved space: opening reads it there, and the next commit does not overwrite it.
            let at = active.file.size()?.saturating_sub(footer.len() as u64).max(active.at);
            active.file.write_at(&footer, at)?;
            active.file.sync()
        };
        write().map_err(|error| disk_error("wal.close", &active.path, error))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.release();
    }
}

/// Creates a file of the size of a segment under a temporary name.
fn prepare(disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<Arc<dyn File>> {
    let file = disk.create(&unfinished_path(dir))?;
    file.allocate(bytes)?;
    file.sync()?;
    Ok(Arc::from(file))
}

/// Turns the prepared file into a segment. The header is durable before the file gets its name, and the name is durable before
/// the first commit is acknowledged.
fn begin(disk: &dyn Disk, dir: &Path, file: &dyn File, header: &SegmentHeader) -> Result<PathBuf> {
    let path = segment_path(dir, header.first);
    let name = || {
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        disk.rename(&unfinished_path(dir), &path)?;
        disk.sync_dir(dir)
    };
    name().map_err(|error| disk_error("wal.append", &path, error))?;
    Ok(path)
}

/// Creates a segment without a prepared file.
pub(super) fn create_segment(disk: &dyn Disk, dir: &Path, header: &SegmentHeader, bytes: u64) -> Result<Active> {
    let file = prepare(disk, dir, bytes).map_err(|error| disk_error("wal.append", &unfinished_path(dir), error))?;
    let path = begin(disk, dir, &*file, header)?;
    Ok(Active::new(path, file, header.first, bytes))
}
