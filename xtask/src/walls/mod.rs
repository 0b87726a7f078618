//! Walls: which module of `runtide-core` may use which, which crate of the workspace may depend on which, and no circle between files.

mod circles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::modules::{Graph, Use};
use crate::targets::{self, Package};
use crate::terminal::say;
use crate::workspace;

/// Modules that all modules of the core may use.
const VOCABULARY: [&str; 12] = [
    "capabilities",
    "completeness",
    "error",
    "event",
    "filter",
    "handle",
    "instance",
    "labels",
    "names",
    "options",
    "runtime",
    "time",
];

/// The modules that a module of `runtide-core`, with all below it, may use.
struct Wall {
    module: &'static str,
    vocabulary: bool,
    /// Files or folders below `src/`, without `.rs`.
    others: &'static [&'static str],
    why: &'static str,
}

const WALLS: [Wall; 15] = [
    Wall {
        module: "wal",
        vocabulary: false,
        others: &["error", "time", "names"],
        why: "the log stores bytes: with no word of runtimes in it, it can be tested, fuzzed and used alone",
    },
    Wall {
        module: "store",
        vocabulary: true,
        others: &[],
        why: "a store of declared resources needs no runtime that is watched, and no log",
    },
    Wall {
        module: "watch",
        vocabulary: true,
        // Known since 2026-11-30: `backend/lock.rs` and `backend/deadline.rs`, which belong to neither.
        others: &["backend"],
        why: "gaps are handled in one place, which knows neither verbs nor stores",
    },
    Wall {
        module: "manager",
        vocabulary: true,
        others: &[],
        why: "the verbs are traits: a backend that only watches does not pay for them",
    },
    Wall {
        module: "backend",
        vocabulary: true,
        others: &["watch"],
        why: "the kit of backends builds on what any of them could use, so that none of it is out of their reach",
    },
    Wall {
        module: "runtime",
        vocabulary: true,
        others: &["watch", "manager"],
        why: "a backend hands out streams, tables and managers",
    },
    Wall {
        module: "handle",
        vocabulary: true,
        others: &["watch", "manager"],
        why: "a handle shows one instance of a watch, and its verbs",
    },
    Wall { module: "capabilities", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    Wall { module: "completeness", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    Wall { module: "error", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    Wall { module: "event", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    Wall { module: "filter", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    // Known since 2026-11-30: `options.rs` names the table from which a watch goes on.
    Wall { module: "options", vocabulary: true, others: &["watch"], why: VOCABULARY_ALONE },
    Wall { module: "instance", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
    Wall { module: "labels", vocabulary: true, others: &[], why: VOCABULARY_ALONE },
];

const VOCABULARY_ALONE: &str = "everything uses the vocabulary, so it uses nothing but itself; only lib.rs names all";

/// Crates that a package may depend on, of those of the workspace, for what it is and for its tests.
struct Imports {
    package: &'static str,
    normal: &'static [&'static str],
    dev: &'static [&'static str],
    why: &'static str,
}

const BACKEND: &str = "a backend is made of the core, and can be used without any other";

const ENGINE: &str = "a backend is made of the core and of what the engines share, and can be used without any other";

const IMPORTS: [Imports; 14] = [
    Imports {
        package: "runtide-core",
        normal: &[],
        dev: &["runtide-journal"],
        why: "everything depends on the core, so it depends on nothing of the workspace; its tests have journals read hostile logs",
    },
    Imports {
        package: "runtide-journal",
        normal: &["runtide-core"],
        dev: &["runtide-conformance", "runtide-memory"],
        why: "journals stand on the log and the streams of the core, whatever the backend",
    },
    Imports {
        package: "runtide-memory",
        normal: &["runtide-core"],
        dev: &["runtide-conformance", "runtide-journal"],
        why: BACKEND,
    },
    Imports {
        package: "runtide-engine",
        normal: &["runtide-core"],
        dev: &["runtide-conformance"],
        why: "what Docker's and Podman's APIs share knows neither of them",
    },
    Imports {
        package: "runtide-docker",
        normal: &["runtide-core", "runtide-engine"],
        dev: &["runtide-conformance", "runtide-journal"],
        why: ENGINE,
    },
    Imports {
        package: "runtide-podman",
        normal: &["runtide-core", "runtide-engine"],
        dev: &["runtide-conformance", "runtide-journal"],
        why: ENGINE,
    },
    Imports {
        package: "runtide-etcd",
        normal: &["runtide-core"],
        dev: &["runtide-conformance", "runtide-journal"],
        why: BACKEND,
    },
    Imports {
        package: "runtide-systemd",
        normal: &["runtide-core"],
        dev: &["runtide-conformance", "runtide-journal", "runtide-memory"],
        why: BACKEND,
    },
    Imports { package: "runtide-k8s", normal: &["runtide-core"], dev: &["runtide-conformance"], why: BACKEND },
    Imports {
        package: "runtide-conformance",
        normal: &["runtide-core", "runtide-journal"],
        dev: &["runtide-memory"],
        why: "the laws are for any backend and for what a journal adds, so they know of no backend; a mutant may be made of the one in memory",
    },
    Imports {
        package: "runtide-examples",
        normal: &[
            "runtide-core",
            "runtide-journal",
            "runtide-memory",
            "runtide-docker",
            "runtide-podman",
            "runtide-etcd",
            "runtide-k8s",
            "runtide-podman",
            "runtide-systemd",
        ],
        dev: &[],
        why: "an example is built as fast as can be: what only tests need is not among its dependencies",
    },
    Imports {
        package: "runtide-examples-tests",
        normal: &[],
        dev: &["runtide-conformance", "runtide-core", "runtide-journal"],
        why: "the examples are tested from outside, as programs",
    },
    Imports {
        package: "runtide-benches",
        normal: &[
            "runtide-core",
            "runtide-journal",
            "runtide-memory",
            "runtide-docker",
            "runtide-etcd",
            "runtide-systemd",
            "runtide-conformance",
        ],
        dev: &[],
        why: "what is measured is what users have",
    },
    Imports { package: "xtask", normal: &[], dev: &[], why: "the chores must be built where the crates cannot" },
];

/// A backend that is not named in the list above gets this, so that a new one needs no entry.
const NEW_BACKEND: Imports = Imports {
    package: "",
    normal: &["runtide-core"],
    dev: &["runtide-conformance", "runtide-journal", "runtide-memory"],
    why: BACKEND,
};

pub(crate) fn check() -> Outcome<()> {
    let packages = targets::packages()?;
    let mut wrong = imports(&packages);
    let core = packages.iter().find(|package| package.name == "runtide-core");
    let core = core.ok_or_else(|| Failure::failed("there is no runtide-core"))?;
    let source = workspace::root().join(core.folder()).join("src");
    let graph = Graph::of(&source.join("lib.rs")).map_err(Failure::failed)?;
    wrong.extend(modules(&graph, &source));
    say!("lint: {} walls between modules, {} between crates", WALLS.len(), packages.len());
    wrong.extend(circles::check(&packages)?);
    if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("\n"))) }
}

/// Uses through walls, by the files of the core below `source`.
fn modules(graph: &Graph, source: &Path) -> Vec<String> {
    let below = |path: &Path| path.strip_prefix(source).map(PathBuf::from).unwrap_or_default();
    let through = graph.uses.iter().filter_map(|used| {
        let Use { from, to, line, .. } = used;
        let (from, to) = (below(from), below(to));
        let wall = WALLS.iter().find(|wall| wall.module == module(&from))?;
        // Tests hold a module against the others.
        let is_free = module(&from) == module(&to) || to == Path::new("lib.rs") || is_of_tests(&from);
        (!is_free && !wall.lets(module(&to)))
            .then(|| format!("{}:{line} uses {}: {}", from.display(), to.display(), wall.why))
    });
    through.collect()
}

/// The module of the core that a file is of: `wal` of `wal/format/crc.rs`.
fn module(file: &Path) -> &str {
    let first = file.components().next().and_then(|first| first.as_os_str().to_str()).unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

fn is_of_tests(file: &Path) -> bool {
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

impl Wall {
    fn lets(&self, module: &str) -> bool {
        self.others.contains(&module) || (self.vocabulary && VOCABULARY.contains(&module))
    }
}

/// Dependencies through walls, of all packages.
fn imports(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let rule = IMPORTS.iter().find(|rule| rule.package == package.name).unwrap_or(&NEW_BACKEND);
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains(dependency.name.as_str())) {
            let name = dependency.name.as_str();
            let is_dev = dependency.kind.as_deref() == Some("dev");
            let allowed = rule.normal.contains(&name) || (is_dev && rule.dev.contains(&name));
            // A package may ask for more features of itself in its tests.
            if !allowed && name != package.name {
                wrong.push(format!("{} depends on {name}: {}", package.name, rule.why));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Dependency;

    fn through(from: &str, to: &str) -> usize {
        let file = |path: &str| Path::new("/core/src").join(path);
        let uses = vec![Use { from: file(from), to: file(to), line: 3, is_of_outer: false }];
        modules(&Graph { uses }, Path::new("/core/src")).len()
    }

    #[test]
    fn a_module_uses_only_modules_that_its_wall_allows() {
        assert_eq!(through("wal/commit.rs", "error.rs"), 0);
        assert_eq!(through("wal/commit.rs", "event.rs"), 1);
        assert_eq!(through("store/format/yaml.rs", "watch/ring.rs"), 1);
        assert_eq!(through("runtime.rs", "watch/stream.rs"), 0, "of the vocabulary it and handle.rs may");
        assert_eq!(through("event.rs", "watch/stream.rs"), 1);
        assert_eq!(through("watch/tests/outage.rs", "store/mod.rs"), 0, "tests may use anything");
        assert_eq!(through("lib.rs", "wal/mod.rs"), 0);
    }

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter();
        Package {
            name: name.to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: dependencies
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn a_backend_imports_the_core_and_no_other_backend() {
        let all = |dependencies: &[(&str, Option<&str>)]| {
            let others = ["runtide-core", "runtide-docker", "runtide-conformance"].map(|name| package(name, &[]));
            let mut all: Vec<Package> = others.into();
            all.push(package("runtide-incus", dependencies));
            imports(&all)
        };
        assert!(all(&[("runtide-core", None), ("runtide-conformance", Some("dev")), ("serde", None)]).is_empty());
        assert_eq!(all(&[("runtide-docker", None)]), [format!("runtide-incus depends on runtide-docker: {BACKEND}")]);
        assert_eq!(all(&[("runtide-docker", Some("dev"))]).len(), 1);
        assert_eq!(all(&[("runtide-conformance", None)]).len(), 1, "laws are for tests");
    }

    #[test]
    fn only_the_two_engines_import_what_they_share() {
        let of = |name: &str| imports(&[package("runtide-engine", &[]), package(name, &[("runtide-engine", None)])]);
        for engine in ["runtide-docker", "runtide-podman"] {
            assert_eq!(of(engine), [""; 0]);
        }
        for other in ["runtide-core", "runtide-conformance", "runtide-systemd", "runtide-incus", "runtide-examples"] {
            assert_eq!(of(other).len(), 1, "{other}");
        }
    }

    #[test]
    fn nothing_that_users_have_imports_the_laws() {
        let free = ["runtide-benches"];
        let imports = |rule: &&Imports| rule.normal.contains(&"runtide-conformance");
        assert!(IMPORTS.iter().filter(imports).all(|rule| free.contains(&rule.package)));
    }
}
