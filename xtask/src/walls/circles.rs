//! Files of one crate that use each other in a circle: none of them can be read, tested or moved without the others.
//!
//! The rule: within a crate, no file uses another that uses it, directly or through others. A file may use those in which its module
//! is declared, directly or through others (`mod.rs`, `lib.rs`), and they may use it. Tests in a separate file are used by none, so they are in no circle;
//! those at the end of a file are left out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::modules::{Graph, Use};
use crate::targets::Package;
use crate::terminal::say;
use crate::workspace;

/// A circle that is known, and when it was found. This list only becomes shorter: no new one is added, and one that was opened is
/// taken out.
struct Known {
    folder: &'static str,
    /// In the folder, or below it.
    files: &'static [&'static str],
    since: &'static str,
}

const SINCE: &str = "2026-11-30";

const KNOWN: &[Known] = &[
    Known {
        folder: "crates/runtide-conformance/src",
        files: &[
            "checker.rs",
            "harness.rs",
            "law.rs",
            "law_set.rs",
            "laws/bracket.rs",
            "laws/contract.rs",
            "laws/edges.rs",
            "laws/gap.rs",
            "laws/link.rs",
            "laws/looks.rs",
            "laws/managers/cancel.rs",
            "laws/managers/deadline.rs",
            "laws/managers/effect.rs",
            "laws/managers/exit.rs",
            "laws/managers/names.rs",
            "laws/managers/output.rs",
            "laws/managers/undone.rs",
            "laws/mod.rs",
            "laws/resources.rs",
            "laws/resume.rs",
            "laws/retry.rs",
            "laws/slow.rs",
            "laws/truth.rs",
            "outcome.rs",
            "subscriber.rs",
        ],
        since: SINCE,
    },
    Known {
        folder: "crates/runtide-conformance/src/store",
        files: &[
            "harness.rs",
            "law.rs",
            "laws/durable.rs",
            "laws/expired.rs",
            "laws/linear.rs",
            "laws/mod.rs",
            "laws/order.rs",
            "laws/snapshot.rs",
            "laws/write.rs",
            "truth.rs",
            "watcher.rs",
        ],
        since: SINCE,
    },
    Known {
        folder: "crates/runtide-conformance/src/wal",
        files: &[
            "law.rs",
            "laws/bounded.rs",
            "laws/chain.rs",
            "laws/corruption.rs",
            "laws/cost.rs",
            "laws/durable.rs",
            "laws/hostile.rs",
            "laws/mod.rs",
            "laws/poison.rs",
            "laws/retention.rs",
            "laws/sequence.rs",
            "laws/torn.rs",
            "laws/writer.rs",
        ],
        since: SINCE,
    },
    Known {
        folder: "crates/runtide-conformance/tests/it/runtime_mutants",
        files: &["backend.rs", "managers.rs"],
        since: SINCE,
    },
    Known {
        folder: "crates/runtide-conformance/tests/it/store_mutants",
        files: &["journal.rs", "plain.rs"],
        since: SINCE,
    },
    Known { folder: "crates/runtide-memory/src/store", files: &["history.rs", "view.rs"], since: SINCE },
];

/// A circle, and each use in it.
struct Found {
    files: BTreeSet<PathBuf>,
    uses: Vec<Use>,
}

/// The findings, one text for each circle.
pub(super) fn check(packages: &[Package]) -> Outcome<Vec<String>> {
    let (uses, found) = find(packages)?;
    say!("lint: {} circles, {} known, among {uses} uses of one file by another", found.len(), KNOWN.len());
    Ok(judge(&found, KNOWN))
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

/// Circles that are new, or larger than they were, and known ones of which nothing is left.
fn judge(found: &[Found], known: &[Known]) -> Vec<String> {
    let is_within = |circle: &Found, known: &Known| {
        circle.files.iter().all(|file| {
            let name = file.strip_prefix(known.folder).ok();
            name.is_some_and(|name| known.files.iter().any(|known| Path::new(known) == name))
        })
    };
    let new = found.iter().filter(|circle| !known.iter().any(|known| is_within(circle, known)));
    let mut wrong: Vec<String> = new.map(shown).collect();
    let open = known.iter().filter(|known| !found.iter().any(|circle| is_within(circle, known)));
    wrong.extend(open.map(|Known { folder, files, since }| {
        format!(
            "the circle of {} in {folder}, known since {since}, is open: take it out of xtask/src/walls/circles.rs",
            files.join(", ")
        )
    }));
    wrong
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

    const KNOWN: [Known; 1] = [Known { folder: "crates/a/src", files: &["b.rs", "c.rs", "d/mod.rs"], since: "then" }];

    fn circle(files: &[&str]) -> Found {
        Found { files: files.iter().map(PathBuf::from).collect(), uses: Vec::new() }
    }

    #[test]
    fn a_circle_may_shrink_and_not_grow() {
        let of = |files: &[&str]| judge(&[circle(files)], &KNOWN);
        assert!(of(&["crates/a/src/b.rs", "crates/a/src/c.rs", "crates/a/src/d/mod.rs"]).is_empty());
        assert!(of(&["crates/a/src/b.rs", "crates/a/src/c.rs"]).is_empty());
        let larger = of(&["crates/a/src/b.rs", "crates/a/src/c.rs", "crates/a/src/e.rs"]);
        assert!(larger[0].starts_with("a circle of 3 files"), "{larger:?}");
    }

    #[test]
    fn a_circle_that_was_opened_is_taken_out_of_the_list() {
        let open = judge(&[], &KNOWN);
        assert_eq!(open.len(), 1);
        assert!(open[0].contains("b.rs, c.rs, d/mod.rs in crates/a/src, known since then"), "{open:?}");
    }
}
