//! The whole state of a disk, the operations on it in order, and the states after a power cut.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    inode::{Inode, Part},
    names::{Change, Names, Node},
};

/// An operation on a disk.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Folder(PathBuf),
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    Write(usize, usize, Vec<u8>),
    Resize(usize, usize),
    Sync(usize),
    FailedSync(usize),
    /// Not an operation of the disk: a position in its history that a test wants to find again.
    Mark(u64),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "make the folder {}", path.display()),
            Self::Create(path, id) => write!(f, "create {} as file {id}", path.display()),
            Self::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::SyncDir(path) => write!(f, "sync the folder {}", path.display()),
            Self::Write(id, at, bytes) => write!(f, "write {} bytes at {at} of file {id}", bytes.len()),
            Self::Resize(id, len) => write!(f, "make file {id} {len} bytes long"),
            Self::Sync(id) => write!(f, "sync file {id}"),
            Self::FailedSync(id) => write!(f, "fail to sync file {id}"),
            Self::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}

/// A part that only a power cut decides, with the number of its states in addition to the durable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Part(usize, Part, usize),
    Name(usize),
}

impl Doubt {
    pub(super) fn ways(self) -> usize {
        match self {
            Self::Part(_, _, ways) => ways,
            Self::Name(_) => 1,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) files: Vec<Inode>,
    pub(super) names: Names,
}

impl World {
    /// Applies an operation. One on a name without a file does nothing.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Folder(path) => self.names.change(Change::Put(path.clone(), Node::Folder)),
            Op::Create(path, id) => {
                let len = self.files.len().max(id + 1);
                self.files.resize_with(len, Inode::default);
                self.names.change(Change::Put(path.clone(), Node::File(*id)));
            }
            Op::Rename(from, to) => {
                if let Some(node) = self.names.get(from) {
                    self.names.change(Change::Move(from.clone(), to.clone(), node));
                }
            }
            Op::Remove(path) => self.names.change(Change::Remove(path.clone())),
            Op::SyncDir(path) => self.names.sync(path),
            Op::Write(id, at, bytes) => self.with(*id, |file| file.write(*at, bytes)),
            Op::Resize(id, len) => self.with(*id, |file| file.resize(*len)),
            Op::Sync(id) => self.with(*id, Inode::sync),
            Op::FailedSync(id) => self.with(*id, Inode::fail_to_sync),
            Op::Mark(_) => {}
        }
    }

    fn with(&mut self, id: usize, act: impl FnOnce(&mut Inode)) {
        if let Some(file) = self.files.get_mut(id) {
            act(file);
        }
    }

    pub(super) fn bytes(&self, id: usize) -> &[u8] {
        self.files.get(id).map(Inode::now).unwrap_or_default()
    }

    pub(super) fn doubts(&self) -> Vec<Doubt> {
        let names = (0..self.names.doubts()).map(Doubt::Name);
        let reachable = self.names.reachable();
        let files = self.files.iter().enumerate().filter(|(id, _)| reachable.contains(id));
        let parts = files.flat_map(|(id, file)| file.doubts().map(move |(part, ways)| Doubt::Part(id, part, ways)));
        names.chain(parts).collect()
    }

    /// The disk after a power cut: of each doubt the state that was picked, 0 for the durable one.
    pub(super) fn after(&self, doubts: &[Doubt], picks: &[usize]) -> Self {
        let picked = || doubts.iter().zip(picks);
        let kept = |index| picked().any(|(doubt, pick)| *doubt == Doubt::Name(index) && *pick > 0);
        let names = self.names.after(kept);
        let reachable = names.reachable();
        let file = |(id, file): (usize, &Inode)| {
            if !reachable.contains(&id) {
                return Inode::default();
            }
            file.after(picked().filter_map(|(doubt, pick)| match doubt {
                Doubt::Part(of, part, _) if *of == id => Some((*part, *pick)),
                _ => None,
            }))
        };
        Self { files: self.files.iter().enumerate().map(file).collect(), names }
    }

    /// The disk as programs see it, all of it durable.
    pub(super) fn seen(&self) -> Self {
        let mut seen = Self::default();
        for dir in self.folders() {
            seen.apply(&Op::Folder(dir));
        }
        for (path, id) in self.names.files() {
            let new = seen.files.len();
            seen.apply(&Op::Create(path.clone(), new));
            if let Some(file) = seen.files.get_mut(new) {
                *file = Inode::new(self.bytes(id).to_vec());
            }
        }
        seen.names = seen.names.after(|_| true);
        seen
    }

    fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for (path, _) in self.names.files() {
            for above in path.ancestors().skip(1).filter(|above| !super::names::is_root(above)) {
                if !folders.iter().any(|known| known == above) {
                    folders.push(above.to_owned());
                }
            }
        }
        folders
    }

    /// The fingerprint of a state of a disk: its names, and the bytes of their files.
    pub(super) fn print(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (path, id) in self.names.files() {
            let bytes = self.bytes(id);
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize()
    }

    pub(super) fn describe(&self, doubt: Doubt, pick: usize) -> String {
        match doubt {
            Doubt::Part(id, Part::Size, ways) => format!("size of file {id}: change {pick} of {ways}"),
            Doubt::Part(id, Part::Sector(index), ways) => {
                format!("file {id}, bytes from {}: write {pick} of {ways}", index * super::inode::SECTOR)
            }
            Doubt::Name(index) => {
                let change = self.names.doubt(index).map(|change| format!("{change:?}")).unwrap_or_default();
                format!("{change}: {}", if pick > 0 { "kept" } else { "lost" })
            }
        }
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let here = self.names.files().filter(|(path, _)| path.parent() == Some(dir));
        here.map(|(path, _)| path.clone()).collect()
    }
}
