//! Files of one crate that use each other in a circle: none of them can be read, tested or moved without the others.
//!
//! The rule: within a crate, no file uses another that uses it, directly or through others. A file may use those in which its module
//! is declared, directly or through others (`mod.rs`, `lib.rs`), and they may use it. Tests in a separate file are used by none, so
//! they are in no circle; those at the end of a file are left out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};
use crate::modules::{Graph, Use};
use crate::targets::Package;
use crate::terminal::say;
use crate::workspace;

/// A circle, and each use in it.
struct Found {
    files: BTreeSet<PathBuf>,
    uses: Vec<Use>,
}

/// The findings, one text for each circle.
pub(super) fn check(packages: &[Package]) -> Outcome<Vec<String>> {
    let (uses, found) = find(packages)?;
    say!("lint: {} circles among {uses} uses of one file by another", found.len());
    Ok(found.iter().map(shown).collect())
}

/// The number of uses that were followed, and each circle, of all crates of the workspace.
fn find(packages: &[Package]) -> Outcome<(usize, Vec<Found>)> {
    let (mut count, mut found) = (0, Vec::<Found>::new());
    let root = workspace::root();
    for target in packages.iter().flat_map(|package| &package.targets) {
        let mut graph = Graph::of(&target.src_path).map_err(Failure::failed)?;
        for used in &mut graph.uses {
            for path in [&mut used.from, &mut used.to] {
                *path = path.strip_prefix(&root).unwrap_or(path).to_path_buf();
            }
        }
        count += graph.uses.len();
        for circle in graph.circles() {
            let files: BTreeSet<PathBuf> = circle.into_iter().collect();
            let within = |used: &&Use| !used.is_of_outer && files.contains(&used.from) && files.contains(&used.to);
            let uses = graph.uses.iter().filter(within).cloned().collect();
            // Files that several test programs share are met in each.
            if found.iter().all(|known| known.files != files) {
                found.push(Found { files, uses });
            }
        }
    }
    Ok((count, found))
}

/// A circle as its uses, each with its file and line.
fn shown(circle: &Found) -> String {
    let mut text = format!("a circle of {} files:", circle.files.len());
    for Use { from, to, line, .. } in &circle.uses {
        let _ = write!(text, "\n  {}:{line} uses {}", from.display(), to.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_names_each_use_with_its_line() {
        let file = |name: &str| PathBuf::from("crates/a/src").join(name);
        let uses = |from: &str, to: &str, line| Use { from: file(from), to: file(to), line, is_of_outer: false };
        let circle = Found {
            files: [file("b.rs"), file("c.rs")].into(),
            uses: vec![uses("b.rs", "c.rs", 3), uses("c.rs", "b.rs", 7)],
        };
        assert_eq!(
            shown(&circle),
            "a circle of 2 files:\n  crates/a/src/b.rs:3 uses crates/a/src/c.rs\n  crates/a/src/c.rs:7 uses crates/a/src/b.rs"
        );
    }
}
