//! Selection of a run of `cargo xtask test`: everything, or some crates with the daemons that they need.

use crate::failure::{Failure, Outcome};
use crate::{targets, workspace};

/// Packages whose tests need daemons, each with their names.
const MEETS: [(&str, &[&str]); 6] = [
    ("runtide-docker", &["docker", "registry", "sshd"]),
    ("runtide-podman", &["podman", "registry"]),
    ("runtide-etcd", &["etcd"]),
    ("runtide-systemd", &["systemd", "systemd2", "systemd-user"]),
    ("runtide-k8s", &["k8s", "k8s-node", "k8s-fake", "k8s-libs"]),
    ("runtide-examples-tests", &["docker", "systemd", "k8s", "k8s-node"]),
];

/// A package, and the one that has its tests.
const TESTED_BY: [(&str, &str); 1] = [("runtide-examples", "runtide-examples-tests")];

/// The packages that are tested.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Everything,
    Packages(Vec<String>),
}

impl Part {
    /// Finds the packages of these names, as cargo calls them or without `runtide-`; without names, everything.
    pub(crate) fn named(names: &[String]) -> Outcome<Self> {
        if names.is_empty() {
            return Ok(Self::Everything);
        }
        let known: Vec<String> = targets::packages()?.into_iter().map(|package| package.name).collect();
        Self::among(names, &known)
    }

    fn among(names: &[String], known: &[String]) -> Outcome<Self> {
        let mut packages = Vec::new();
        for name in names {
            let whole = format!("runtide-{name}");
            let Some(package) = known.iter().find(|package| *package == name || **package == whole) else {
                let short: Vec<&str> = known.iter().map(|name| name.strip_prefix("runtide-").unwrap_or(name)).collect();
                return Err(Failure::refused(format_args!(
                    "test: nothing is named {name}; there are {}",
                    short.join(", ")
                )));
            };
            let tests = TESTED_BY.iter().find(|(of, _)| of == package).map(|(_, by)| (*by).to_owned());
            for package in std::iter::once(package.clone()).chain(tests) {
                if !packages.contains(&package) {
                    packages.push(package);
                }
            }
        }
        Ok(Self::Packages(packages))
    }

    /// The packages whose documentation has examples to run, if any: cargo refuses to test those of a package without a library.
    pub(crate) fn documented(&self) -> Outcome<Option<Self>> {
        let Self::Packages(chosen) = self else { return Ok(Some(Self::Everything)) };
        let with_library = targets::packages()?.into_iter().filter(targets::Package::has_library);
        let names: Vec<_> = with_library.map(|package| package.name).filter(|name| chosen.contains(name)).collect();
        Ok((!names.is_empty()).then_some(Self::Packages(names)))
    }

    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// `true` if this package is tested.
    pub(crate) fn has(&self, package: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Packages(packages) => packages.iter().any(|name| name == package),
        }
    }

    /// `true` if a test needs this daemon.
    pub(crate) fn meets(&self, daemon: &str) -> bool {
        self.is_everything() || MEETS.iter().any(|(package, daemons)| self.has(package) && daemons.contains(&daemon))
    }

    /// The arguments of cargo that select it, with all features.
    pub(crate) fn selection(&self) -> Vec<String> {
        match self {
            Self::Everything => workspace::ALL.map(str::to_owned).to_vec(),
            Self::Packages(packages) => {
                let named = packages.iter().flat_map(|name| ["--package".to_owned(), name.clone()]);
                std::iter::once("--all-features".to_owned()).chain(named).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(names: &[&str]) -> Outcome<Part> {
        let known = ["runtide-core", "runtide-docker", "runtide-examples", "runtide-examples-tests", "xtask"];
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Part::among(&owned(names), &owned(&known))
    }

    #[test]
    fn a_package_is_found_by_its_name_and_by_the_end_of_it() {
        assert_eq!(part(&["core"]).unwrap(), part(&["runtide-core", "core"]).unwrap());
        assert!(part(&["xtask"]).unwrap().has("xtask"));
        assert!(!part(&["core"]).unwrap().has("runtide-docker"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let failure = part(&["dokcer"]).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().ends_with("core, docker, examples, examples-tests, xtask"), "{failure}");
    }

    #[test]
    fn the_daemons_are_those_that_its_tests_meet() {
        assert!(part(&["docker"]).unwrap().meets("docker") && !part(&["docker"]).unwrap().meets("systemd"));
        assert!(!part(&["core"]).unwrap().meets("docker"));
        assert!(Part::Everything.meets("etcd"));
        let examples = part(&["examples"]).unwrap();
        assert!(examples.meets("systemd") && examples.meets("k8s-node"), "its tests are a package of their own");
        assert!(!examples.has("runtide-k8s"), "no run of the examples alone builds Kubernetes, unless it is required");
    }
}
