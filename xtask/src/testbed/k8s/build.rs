//! The programs of Kubernetes 1.20.2, the newest whose source Debian has whole, and an API server made of the libraries of a newer one.

use std::path::PathBuf;

use super::super::cache::Recipe;
use crate::failure::Outcome;

const RECIPE: Recipe = Recipe {
    name: "k8s-1.20.2",
    script: include_str!("build.sh"),
    sources: &[],
    programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"],
};

const LIBRARIES: Recipe = Recipe {
    name: "k8s-apilib",
    script: include_str!("apilib/build.sh"),
    sources: &[("main.go", include_str!("apilib/main.go"))],
    programs: &["k8s-apilib", "etcd"],
};

/// The folder with the programs; the first time they are built, which takes six minutes of one core.
pub(super) fn ensure() -> Outcome<PathBuf> {
    RECIPE.ensure()
}

/// The same of a testbed that is up.
pub(super) fn found() -> Option<PathBuf> {
    RECIPE.found()
}

/// The folder with the API server of the libraries, and the etcd that it needs; built as the others are.
pub(super) fn ensure_libraries() -> Outcome<PathBuf> {
    LIBRARIES.ensure()
}

/// The same of a testbed that is up.
pub(super) fn found_libraries() -> Option<PathBuf> {
    LIBRARIES.found()
}
