//! A disk in memory that knows every state in which a power cut can leave it.
//!
//! # Model
//! It is as hostile as POSIX lets a disk be, and more than any one file system is:
//!
//! * **Bytes** reach the disk with [`File::sync`], or at any time before, or never, sector by sector of 512 bytes, each
//!   independently and in any order. A sector is never torn, and never has a later write without an earlier one.
//! * **Sizes** are kept or lost apart from the bytes: a file may be longer than the bytes that reached it, which then end in
//!   zeros, or shorter, which hides the rest.
//! * **Names** are durable with [`Disk::sync_dir`] of their folder and with nothing else, not even a sync of the file. Before,
//!   each creation, rename and removal of a name is kept or lost independently and in any order; journalling file systems keep
//!   the order, so their states are among these. A rename is atomic. A file whose name is lost is gone; one whose removal is
//!   lost is back. A folder has a name as well.
//! * **A sync that fails** leaves its writes in doubt for good: programs go on seeing them, the next sync succeeds and does not
//!   write them, unless they are written again. Linux does so with the pages of a failed write-back. Sizes and names stay
//!   pending, since the file system keeps them itself.
//! * **A write that fails** has written half of its bytes.
//! * **A full disk** refuses new files and longer files; writes within a file succeed.
//! * **A lock** goes with its holder, and with the power.
//!
//! Not modelled: bits that rot (the laws on corruption flip them), sectors that are torn (there the log is cut at every byte),
//! reads that fail.

mod crash;
mod fault;
mod inode;
mod names;
mod world;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Result},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtide_core::wal::fs::{Disk, File};

pub use self::{
    crash::Crash,
    fault::{Fault, Load},
};
pub(crate) use self::{crash::Random, fault::Hit};
use self::{
    fault::Faults,
    inode::Inode,
    world::{Op, World},
};

/// A disk in memory with a history. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The state at the beginning of the history.
    base: World,
    now: World,
    history: Vec<Op>,
    locked: BTreeSet<PathBuf>,
    faults: Faults,
    load: Load,
    /// Files whose last sync failed, and that were not changed since.
    failed: BTreeSet<usize>,
    /// Folders whose last sync failed.
    failed_folders: BTreeSet<PathBuf>,
    /// Files and offsets where the last write failed.
    failed_writes: BTreeSet<(usize, usize)>,
}

impl State {
    fn act(&mut self, op: Op) {
        self.now.apply(&op);
        self.history.push(op);
    }

    fn id(&self, path: &Path) -> Result<usize> {
        self.now.names.file(path).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn size(&self, id: usize) -> usize {
        self.now.bytes(id).len()
    }

    /// The file's id for writing; creates the file if need be.
    fn make(&mut self, path: &Path) -> Result<usize> {
        if let Ok(id) = self.id(path) {
            return Ok(id);
        }
        let folder = path.parent().unwrap_or(path);
        self.now.names.get(folder).ok_or(ErrorKind::NotFound)?;
        let id = self.now.files.len();
        self.act(Op::Create(path.to_owned(), id));
        Ok(id)
    }

    /// Fails an operation on a file, if a fault is due.
    fn meet(&mut self, fault: Fault, id: usize) -> Result<()> {
        let Self { faults, now, .. } = self;
        faults.meet(fault, || Hit {
            path: now.names.files().find(|(_, named)| *named == id).map(|(path, _)| path.clone()).unwrap_or_default(),
            blank: now.bytes(id).iter().all(|byte| *byte == 0),
        })
    }

    /// Fails an operation on a name, if a fault is due.
    fn meet_name(&mut self, fault: Fault, path: &Path) -> Result<()> {
        self.faults.meet(fault, || Hit { path: path.to_owned(), blank: true })
    }

    fn resize(&mut self, id: usize, len: usize) {
        self.failed.remove(&id);
        self.failed_writes.retain(|(file, _)| *file != id);
        self.act(Op::Resize(id, len));
    }

    fn sync(&mut self, id: usize) -> Result<()> {
        self.load.syncs += 1;
        self.load.syncs_tried_again += u64::from(self.failed.contains(&id));
        if let Err(error) = self.meet(Fault::Sync, id) {
            self.failed.insert(id);
            self.act(Op::FailedSync(id));
            return Err(error);
        }
        self.failed.remove(&id);
        self.act(Op::Sync(id));
        Ok(())
    }
}

impl ModelDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(world: World) -> Self {
        Self(Arc::new(Mutex::new(State { base: world.clone(), now: world, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the bytes that programs see on this one, all of it durable, nothing locked, and no history: the state
    /// after every program was killed.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::with(self.state().now.seen())
    }

    /// The files with their bytes, as programs see them.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        state.now.names.files().map(|(path, id)| (path.clone(), state.now.bytes(id).to_vec())).collect()
    }

    /// A file's bytes, as programs see them; `None` if there is no such file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.now.bytes(state.id(path).ok()?).to_vec())
    }

    /// Puts a file there, durably and without an operation, or removes it.
    pub fn put(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut state = self.state();
        if let Some(bytes) = bytes {
            for above in path.ancestors().skip(1).filter(|above| !names::is_root(above)) {
                state.now.apply(&Op::Folder(above.to_owned()));
            }
            let id = state.id(path).unwrap_or(state.now.files.len());
            state.now.apply(&Op::Create(path.to_owned(), id));
            if let Some(file) = state.now.files.get_mut(id) {
                *file = Inode::new(bytes);
            }
        } else {
            state.now.apply(&Op::Remove(path.to_owned()));
        }
        state.now.names = state.now.names.after(|_| true);
        state.base = state.now.clone();
        state.history.clear();
    }

    /// Makes operations of this sort fail from the `nth` on, counted from 0 and from now: one, or all until [`ModelDisk::heal`].
    pub fn fail(&self, fault: Fault, nth: u64, for_good: bool) {
        self.state().faults.plan(fault, nth, for_good);
    }

    /// Ends the fault; `true` if an operation failed since [`ModelDisk::fail`].
    pub fn heal(&self) -> bool {
        self.state().faults.heal()
    }

    /// The operations that failed since [`ModelDisk::fail`].
    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.state().faults.hits().to_vec()
    }

    /// The load so far.
    pub fn load(&self) -> Load {
        self.state().load
    }

    /// Marks this position in the history. [`crashes`](Self::crashes) shows the last mark before each crash.
    pub fn mark(&self, mark: u64) {
        self.state().act(Op::Mark(mark));
    }

    /// Number of operations in the history.
    pub fn operations(&self) -> usize {
        self.state().history.len()
    }

    fn open_file(&self, id: usize, lock: Option<PathBuf>) -> Box<dyn File> {
        Box::new(ModelFile { disk: self.clone(), id, lock })
    }
}

impl Disk for ModelDisk {
    fn create_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let above: Vec<_> = path.ancestors().filter(|above| !names::is_root(above)).map(Path::to_owned).collect();
        for folder in above.into_iter().rev() {
            if state.now.names.get(&folder).is_none() {
                state.act(Op::Folder(folder));
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let mut state = self.state();
        if state.id(path).is_err() {
            state.meet_name(Fault::Full, path)?;
        }
        let id = state.make(path)?;
        if state.size(id) > 0 {
            state.resize(id, 0);
        }
        drop(state);
        Ok(self.open_file(id, None))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        let id = self.state().id(path)?;
        Ok(self.open_file(id, None))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        state.id(from)?;
        state.meet_name(Fault::Name, to)?;
        state.act(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        state.id(path)?;
        state.meet_name(Fault::Name, path)?;
        state.act(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let state = self.state();
        state.now.names.get(dir).ok_or(ErrorKind::NotFound)?;
        Ok(state.now.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut state = self.state();
        state.load.syncs_tried_again += u64::from(state.failed_folders.remove(dir));
        if let Err(error) = state.meet_name(Fault::Sync, dir) {
            state.failed_folders.insert(dir.to_owned());
            return Err(error);
        }
        state.act(Op::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        let mut state = self.state();
        if state.locked.contains(path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let id = state.make(path)?;
        state.locked.insert(path.to_owned());
        drop(state);
        Ok(self.open_file(id, Some(path.to_owned())))
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: ModelDisk,
    id: usize,
    lock: Option<PathBuf>,
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        if let Some(path) = &self.lock {
            self.disk.state().locked.remove(path);
        }
    }
}

/// An offset in a file, which in memory is no larger than the memory.
fn offset(at: u64) -> Result<usize> {
    usize::try_from(at).map_err(|_| ErrorKind::FileTooLarge.into())
}

impl File for ModelFile {
    fn size(&self) -> Result<u64> {
        Ok(self.disk.state().size(self.id) as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let mut state = self.disk.state();
        let rest = state.now.bytes(self.id).get(offset(at)?..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        let asked = buf.len() as u64;
        buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        state.load.read(asked, len as u64);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let mut state = self.disk.state();
        let (at, end) = (offset(at)?, offset(at)?.saturating_add(buf.len()));
        let grows = end > state.size(self.id);
        state.load.writes_tried_again += u64::from(state.failed_writes.remove(&(self.id, at)));
        let met = match state.meet(Fault::Write, self.id) {
            Ok(()) if grows => state.meet(Fault::Full, self.id),
            met => met,
        };
        if met.is_err() {
            state.failed_writes.insert((self.id, at));
        }
        let written = if met.is_ok() { buf } else { buf.get(..buf.len() / 2).unwrap_or_default() };
        // A full disk still takes writes within the file.
        state.act(Op::Write(self.id, at, written.to_vec()));
        state.failed.remove(&self.id);
        met
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        let len = offset(len)?;
        if len > state.size(self.id) {
            state.meet(Fault::Full, self.id)?;
            state.resize(self.id, len);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        let len = offset(len)?;
        state.resize(self.id, len);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.disk.state().sync(self.id)
    }
}

#[cfg(test)]
mod tests;
