//! A disk in memory that remembers what was written and what was synced, and so knows every state that a crash can leave.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::wal::fs::{Disk, File};

/// What is written without a sync is kept or lost in pieces of this size.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Op {
    Create(PathBuf, usize),
    Write(usize, u64, Vec<u8>),
    Size(usize, u64),
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir,
    /// Not the disk's doing: a record was acknowledged.
    Note(u64),
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    Write,
    Sync,
    Full,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
    locked: bool,
    history: Vec<Op>,
    /// What was durable before the history begins.
    base: (Vec<Vec<u8>>, BTreeMap<PathBuf, usize>),
    /// What fails, from so many operations of that sort on.
    fail: Option<(Fail, usize)>,
    syncs: usize,
}

impl State {
    fn fails(&mut self, fail: Fail) -> Result<()> {
        match &mut self.fail {
            Some((what, 0)) if *what == fail => Err(match fail {
                Fail::Full => ErrorKind::StorageFull.into(),
                _ => Error::other("the model fails"),
            }),
            Some((what, left)) if *what == fail => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Model(Arc<Mutex<State>>);

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From so many more operations of that sort on, each fails.
    pub(super) fn fail(&self, fail: Option<(Fail, usize)>) {
        self.state().fail = fail;
    }

    /// Syncs of files so far.
    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// Takes note that a record is acknowledged.
    pub(super) fn note(&self, seq: u64) {
        self.state().history.push(Op::Note(seq));
    }

    pub(super) fn operations(&self) -> usize {
        self.state().history.len()
    }

    /// A disk that has this one file.
    pub(super) fn with_file(path: &Path, bytes: Vec<u8>) -> Self {
        let base = (vec![bytes], BTreeMap::from([(path.to_owned(), 0)]));
        let (files, names) = base.clone();
        Self(Arc::new(Mutex::new(State { files, names, base, ..State::default() })))
    }

    /// What a file has.
    pub(super) fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[path]].clone()
    }

    /// A power cut just now, and nothing is left of what was not synced.
    pub(super) fn crash_now(&self) -> Self {
        self.crash(self.operations(), || false).0
    }

    /// The disk as a power cut may leave it after the first `until` operations, and the last record that was acknowledged
    /// by then. What is not synced is kept or lost sector by sector, and name by name in order, as `keep` decides.
    pub(super) fn crash(&self, until: usize, mut keep: impl FnMut() -> bool) -> (Self, u64) {
        let state = self.state();
        let history = &state.history[..until];
        let (mut files, mut names) = state.base.clone();
        files.resize(state.files.len(), Vec::new());
        let mut acked = 0;
        let last_sync = history.iter().rposition(|op| matches!(op, Op::SyncDir)).unwrap_or(0);
        let mut names_go_on = true;
        for (number, op) in history.iter().enumerate() {
            let is_name = matches!(op, Op::Create(..) | Op::Rename(..) | Op::Remove(..));
            if is_name && number > last_sync && (!names_go_on || !keep()) {
                names_go_on = false;
                continue;
            }
            let synced =
                |id: usize| history[number..].iter().any(|later| matches!(later, Op::Sync(other) if *other == id));
            match op {
                Op::Create(path, id) => drop(names.insert(path.clone(), *id)),
                Op::Write(id, at, bytes) => {
                    let durable = synced(*id);
                    let at = usize::try_from(*at).unwrap();
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
                        if durable || keep() {
                            let file = &mut files[*id];
                            if file.len() < at + to {
                                file.resize(at + to, 0);
                            }
                            file[at + from..at + to].copy_from_slice(&bytes[from..to]);
                        }
                        from = to;
                    }
                }
                Op::Size(id, len) => {
                    if synced(*id) || keep() {
                        files[*id].resize(usize::try_from(*len).unwrap(), 0);
                    }
                }
                Op::Rename(from, to) => {
                    if let Some(id) = names.remove(from) {
                        names.insert(to.clone(), id);
                    }
                }
                Op::Remove(path) => drop(names.remove(path)),
                Op::Note(seq) => acked = *seq,
                Op::Sync(_) | Op::SyncDir => {}
            }
        }
        let base = (files.clone(), names.clone());
        (Self(Arc::new(Mutex::new(State { files, names, base, ..State::default() }))), acked)
    }
}

impl Disk for Model {
    fn create_dir(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let mut state = self.state();
        state.fails(Fail::Full)?;
        let id = state.files.len();
        state.files.push(Vec::new());
        state.names.insert(path.to_owned(), id);
        state.history.push(Op::Create(path.to_owned(), id));
        Ok(Box::new(Open { disk: self.clone(), id, locks: false }))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        let id = *self.state().names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(Open { disk: self.clone(), id, locks: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let id = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        state.history.push(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.history.push(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.state().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        let mut state = self.state();
        state.fails(Fail::Sync)?;
        state.history.push(Op::SyncDir);
        Ok(())
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn File>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let id = state.files.len();
        state.files.push(Vec::new());
        drop(state);
        Ok(Box::new(Open { disk: self.clone(), id, locks: true }))
    }
}

#[derive(Debug)]
struct Open {
    disk: Model,
    id: usize,
    locks: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.locks {
            self.disk.state().locked = false;
        }
    }
}

impl File for Open {
    fn size(&self) -> Result<u64> {
        Ok(self.disk.state().files[self.id].len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let state = self.disk.state();
        let rest = state.files[self.id].get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let mut state = self.disk.state();
        if !self.locks {
            state.fails(Fail::Write)?;
        }
        let from = usize::try_from(at).unwrap();
        let file = &mut state.files[self.id];
        if file.len() < from + buf.len() {
            file.resize(from + buf.len(), 0);
        }
        file[from..from + buf.len()].copy_from_slice(buf);
        state.history.push(Op::Write(self.id, at, buf.to_vec()));
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        state.fails(Fail::Full)?;
        let size = usize::try_from(len).unwrap().max(state.files[self.id].len());
        state.files[self.id].resize(size, 0);
        state.history.push(Op::Size(self.id, size as u64));
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        state.files[self.id].resize(usize::try_from(len).unwrap(), 0);
        state.history.push(Op::Size(self.id, len));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.state();
        state.fails(Fail::Sync)?;
        state.syncs += 1;
        state.history.push(Op::Sync(self.id));
        Ok(())
    }
}
