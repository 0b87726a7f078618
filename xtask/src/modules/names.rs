//! The tree of a crate's modules, and the resolution of paths in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::tokens::{Declared, Source, Written};

/// One module: a file, or part of one.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    pub(super) parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    bound: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    pub(super) written: Vec<Written>,
}

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) modules: Vec<Module>,
}

/// Names that one search has met, each with its module: met again, it leads nowhere new.
type Met = BTreeSet<(usize, String)>;

/// Reads a crate from its root file, as rustc finds the files of its modules.
pub(super) fn read(root: &Path) -> Result<Names, String> {
    let mut names = Names::default();
    names.add_file(root, root.parent().unwrap_or(Path::new("")), None)?;
    Ok(names)
}

impl Names {
    fn add_file(&mut self, file: &Path, folder: &Path, parent: Option<usize>) -> Result<usize, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let source = Source::read(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        self.add(source, file, folder, parent)
    }

    /// `folder` has the files of its modules.
    fn add(&mut self, source: Source, file: &Path, folder: &Path, parent: Option<usize>) -> Result<usize, String> {
        let this = self.modules.len();
        self.modules.push(Module {
            file: file.to_path_buf(),
            parent,
            children: BTreeMap::new(),
            items: source.items.into_iter().collect(),
            bound: source.bound.into_iter().collect(),
            globs: source.globs,
            written: source.written,
        });
        for declared in source.modules {
            let name = declared.name.clone();
            let child = self.add_declared(declared, file, folder, this)?;
            if let Some(module) = self.modules.get_mut(this) {
                module.children.insert(name, child);
            }
        }
        Ok(this)
    }

    fn add_declared(&mut self, declared: Declared, file: &Path, folder: &Path, parent: usize) -> Result<usize, String> {
        let Declared { name, path, body } = declared;
        let below = folder.join(&name);
        if let Some(body) = body {
            return self.add(body, file, &below, Some(parent));
        }
        if let Some(path) = path {
            let named = plain(&file.parent().unwrap_or(Path::new("")).join(path));
            // The files of its own modules are in the same folder, under any name.
            let same_folder = named.parent().unwrap_or(Path::new(""));
            return self.add_file(&named, same_folder, Some(parent));
        }
        let flat = folder.join(format!("{name}.rs"));
        if flat.is_file() {
            return self.add_file(&flat, &below, Some(parent));
        }
        let inside = below.join("mod.rs");
        self.add_file(&inside, &below, Some(parent))
    }

    /// The module that a path of module `from` leads to, or that defines what it leads to; none if it leads out of the crate.
    pub(super) fn target(&self, from: usize, path: &[String]) -> Option<usize> {
        self.follow(from, path, &mut Met::new()).map(|found| found.module)
    }

    fn follow(&self, from: usize, path: &[String], met: &mut Met) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found { module: 0, is_module: true },
            "self" => Found { module: from, is_module: true },
            "super" => Found { module: self.modules.get(from)?.parent?, is_module: true },
            _ => self.member(from, first, met)?,
        };
        for name in rest {
            if !found.is_module {
                break;
            }
            found = match name.as_str() {
                "super" => Found { module: self.modules.get(found.module)?.parent?, is_module: true },
                _ if self.leads_out(found.module, name) => self.member(found.module, name, met)?,
                // A variant, or an item that a macro made: no more than the module is known.
                _ => self.member(found.module, name, met).unwrap_or(Found { module: found.module, is_module: false }),
            };
        }
        Some(found)
    }

    /// `true` if a name was brought into a module by a `use`, and could be of another crate.
    fn leads_out(&self, module: usize, name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| {
            module.bound.contains_key(name) && !module.items.contains(name) && !module.children.contains_key(name)
        })
    }

    /// Resolves a name in a module.
    fn member(&self, at: usize, name: &str, met: &mut Met) -> Option<Found> {
        let module = self.modules.get(at)?;
        if let Some(child) = module.children.get(name) {
            return Some(Found { module: *child, is_module: true });
        }
        if module.items.contains(name) {
            return Some(Found { module: at, is_module: false });
        }
        if !met.insert((at, name.to_owned())) {
            return None;
        }
        if let Some(path) = module.bound.get(name) {
            return self.follow(at, path, met);
        }
        module.globs.iter().find_map(|glob| {
            let of = self.follow(at, glob, met)?;
            if of.is_module && of.module != at { self.member(of.module, name, met) } else { None }
        })
    }
}

#[derive(Clone, Copy)]
struct Found {
    module: usize,
    is_module: bool,
}

/// Without `..`, so that one file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}
