//! The uses between files, and their circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::names::{self, Names};

/// One file uses another, first on this line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    pub(crate) line: usize,
    /// The used module encloses this one, directly or through others: not counted in the search for circles.
    pub(crate) is_of_outer: bool,
}

/// The files of one crate, and their uses of each other.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) uses: Vec<Use>,
}

impl Graph {
    /// Of the crate whose root is this file.
    pub(crate) fn of(root: &Path) -> Result<Self, String> {
        Ok(Self::from(&names::read(root)?))
    }

    /// Files that use each other, directly or through others among them; each list sorted.
    ///
    /// A module's uses of an enclosing module do not count: the two are one subject, the outer is made of the inner.
    pub(crate) fn circles(&self) -> Vec<Vec<PathBuf>> {
        let mut next: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for used in self.uses.iter().filter(|used| !used.is_of_outer) {
            next.entry(&used.from).or_default().insert(&used.to);
        }
        let reached: BTreeMap<&Path, BTreeSet<&Path>> =
            next.keys().map(|from| (*from, reached_from(from, &next))).collect();
        let mut circles = BTreeSet::new();
        for (file, reaches) in &reached {
            let back = |other: &&&Path| reached.get(*other).is_some_and(|others| others.contains(file));
            let circle: Vec<PathBuf> = reaches.iter().filter(back).map(|other| other.to_path_buf()).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

/// Every file that can be reached, itself only if a path leads back.
fn reached_from<'a>(from: &'a Path, next: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(file) = waiting.pop() {
        for to in next.get(file).into_iter().flatten() {
            if reached.insert(*to) {
                waiting.push(to);
            }
        }
    }
    reached
}

impl From<&Names> for Graph {
    fn from(names: &Names) -> Self {
        let mut first: BTreeMap<(PathBuf, PathBuf), (usize, bool)> = BTreeMap::new();
        for (at, module) in names.modules.iter().enumerate() {
            let outer = outer_files(names, at);
            for written in &module.written {
                let Some(to) = names.target(at, &written.path).and_then(|to| names.modules.get(to)) else { continue };
                if to.file != module.file {
                    let is_of_outer = outer.contains(&to.file.as_path());
                    let line =
                        first.entry((module.file.clone(), to.file.clone())).or_insert((written.line, is_of_outer));
                    line.0 = line.0.min(written.line);
                }
            }
        }
        let uses = first.into_iter().map(|((from, to), (line, is_of_outer))| Use { from, to, line, is_of_outer });
        Self { uses: uses.collect() }
    }
}

/// The files in which this module is declared, directly or through others.
fn outer_files(names: &Names, module: usize) -> Vec<&Path> {
    let above = |at: &usize| names.modules.get(*at)?.parent;
    let outer = std::iter::successors(above(&module), above);
    outer.filter_map(|at| Some(names.modules.get(at)?.file.as_path())).collect()
}
