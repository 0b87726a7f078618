//! The names of a disk: those that programs see, and those that may be on the disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The file or folder that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Folder,
    File(usize),
}

type Table = BTreeMap<PathBuf, Node>;

/// One change of a name, whole or not at all.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(PathBuf, Node),
    Move(PathBuf, PathBuf, Node),
    Remove(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Move(_, path, _) | Self::Remove(path) => path,
        }
    }

    fn apply(&self, table: &mut Table) {
        match self {
            Self::Put(path, node) => drop(table.insert(path.clone(), *node)),
            Self::Move(from, to, node) => {
                table.remove(from);
                table.insert(to.clone(), *node);
            }
            Self::Remove(path) => drop(table.remove(path)),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    now: Table,
    durable: Table,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if is_root(path) { Some(Node::Folder) } else { self.now.get(path).copied() }
    }

    pub(super) fn file(&self, path: &Path) -> Option<usize> {
        match self.get(path)? {
            Node::File(id) => Some(id),
            Node::Folder => None,
        }
    }

    /// The files, with their ids.
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, usize)> {
        self.now.iter().filter_map(|(path, node)| match node {
            Node::File(id) => Some((path, *id)),
            Node::Folder => None,
        })
    }

    /// Every file that has a name, or may have one after a power cut.
    pub(super) fn reachable(&self) -> std::collections::BTreeSet<usize> {
        let pending = self.pending.iter().filter_map(|change| match change {
            Change::Put(_, node) | Change::Move(_, _, node) => Some(node),
            Change::Remove(_) => None,
        });
        let nodes = self.now.values().chain(self.durable.values()).chain(pending);
        nodes.filter_map(|node| if let Node::File(id) = node { Some(*id) } else { None }).collect()
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self, dir: &Path) {
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let here = change.path().parent() == Some(dir);
            if here {
                change.apply(durable);
            }
            !here
        });
    }

    /// Number of changes in doubt.
    pub(super) fn doubts(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn doubt(&self, index: usize) -> Option<&Change> {
        self.pending.get(index)
    }

    /// The names after a power cut that took all pending changes but these. A file in a folder without a name is gone.
    pub(super) fn after(&self, kept: impl Fn(usize) -> bool) -> Self {
        let mut table = self.durable.clone();
        for (index, change) in self.pending.iter().enumerate() {
            if kept(index) {
                change.apply(&mut table);
            }
        }
        let folders: Vec<PathBuf> =
            table.iter().filter(|(_, node)| **node == Node::Folder).map(|(path, _)| path.clone()).collect();
        let is_reachable = |path: &Path| {
            path.ancestors().skip(1).all(|above| is_root(above) || folders.iter().any(|folder| folder == above))
        };
        table.retain(|path, _| is_reachable(path));
        Self { now: table.clone(), durable: table, pending: Vec::new() }
    }
}

/// The root is always there.
pub(super) fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}
