//! The programs of Kubernetes 1.20.2, the newest whose source Debian has whole.

use std::path::PathBuf;

use super::super::cache::Recipe;
use crate::failure::Outcome;

const RECIPE: Recipe = Recipe {
    name: "k8s-1.20.2",
    script: include_str!("build.sh"),
    sources: &[],
    programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"],
};

/// The folder with the programs; the first time they are built, which takes six minutes of one core.
pub(super) fn ensure() -> Outcome<PathBuf> {
    RECIPE.ensure()
}

/// The same of a testbed that is up.
pub(super) fn found() -> Option<PathBuf> {
    RECIPE.found()
}
