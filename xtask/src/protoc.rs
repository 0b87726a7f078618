//! Whether the crates that call protoc can be built here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::failure::{Doing, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::{testbed, workspace};

/// The Debian packages: the compiler, and what its users' files include. The first only recommends the second.
pub(crate) const PACKAGES: &str = "protobuf-compiler libprotobuf-dev";

/// What cannot be built without, nor with all its features.
const LEFT_OUT: [&str; 2] = ["runtide-etcd", "runtide-examples"];
/// What of it can be built with fewer features.
const WITH_FEWER_FEATURES: [&str; 1] = ["runtide-examples"];

/// What of the workspace can be built.
#[derive(Debug)]
pub(crate) struct Buildable {
    /// Why not all of it.
    pub(crate) missing: Option<String>,
}

impl Buildable {
    /// Looks, and installs what is missing if it may.
    pub(crate) fn find(install: bool) -> Self {
        let mut missing = look();
        if install && missing.is_some() {
            missing = match testbed::install_protoc() {
                Ok(()) => look(),
                Err(failure) => Some(failure.to_string()),
            };
        }
        if let Some(why) = &missing {
            say!("protoc: {why}; runtide-etcd is left out (packages: {PACKAGES})");
        }
        Self { missing }
    }

    /// For one cargo after the other: the arguments that select these packages, with all features that can be had.
    pub(crate) fn selections_of(&self, packages: &[String]) -> Vec<Vec<String>> {
        let fewer = |name: &str| self.missing.is_some() && WITH_FEWER_FEATURES.contains(&name);
        let left_out = |name: &str| self.missing.is_some() && LEFT_OUT.contains(&name) && !fewer(name);
        // Together where they can be: cargo builds them beside each other then.
        let mut all = vec!["--all-features".to_owned()];
        let mut selections = Vec::new();
        for name in packages.iter().filter(|name| !left_out(name)) {
            let chosen = ["--package".to_owned(), name.clone()];
            if fewer(name) { selections.push(chosen.to_vec()) } else { all.extend(chosen) }
        }
        if all.len() > 1 {
            selections.insert(0, all);
        }
        selections
    }

    /// For one cargo after the other: the arguments that select everything that can be built, with all features that can be.
    pub(crate) fn selections(&self) -> Vec<Vec<&'static str>> {
        if self.missing.is_none() {
            return vec![vec!["--workspace", "--all-features"]];
        }
        let mut most = vec!["--workspace", "--all-features"];
        for name in LEFT_OUT {
            most.extend(["--exclude", name]);
        }
        let mut selections = vec![most];
        selections.extend(WITH_FEWER_FEATURES.map(|name| vec!["--package", name]));
        selections
    }
}

/// Why protoc is of no use here, if it is of none: asked by having it compile a file, as build scripts do.
fn look() -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(20);
    let folder = workspace::target("protoc");
    let probe = "syntax = \"proto3\";\nimport \"google/protobuf/descriptor.proto\";\n";
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("probe.proto"), probe));
    if let Err(failure) = written.doing("cannot write target/protoc/probe.proto") as Outcome<()> {
        return Some(failure.to_string());
    }
    let program = env::var_os("PROTOC").unwrap_or_else(|| OsString::from("protoc"));
    let mut command = Command::new(program);
    if let Some(include) = env::var_os("PROTOC_INCLUDE") {
        command.arg("--proto_path").arg(include);
    }
    command.arg("--proto_path").arg(&folder).arg("--descriptor_set_out").arg(folder.join("probe.bin"));
    match process::capture(command.arg("probe.proto"), LIMIT, Interrupt::Ends) {
        Ok(said) if said.status.success() => None,
        Ok(said) => Some(format!("it cannot compile: {}", said.complaint())),
        Err(failure) => Some(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_not_selected() {
        assert_eq!(Buildable { missing: None }.selections(), [["--workspace", "--all-features"]]);
        let without = Buildable { missing: Some("it is not there".to_owned()) }.selections();
        assert_eq!(without[0][2..4], ["--exclude", "runtide-etcd"]);
        assert!(without[1..].iter().all(|selection| !selection.contains(&"--all-features")));
    }
    #[test]
    fn chosen_packages_are_built_together_as_far_as_they_can_be() {
        let names = ["runtide-core", "runtide-etcd", "runtide-examples"].map(str::to_owned);
        let all = Buildable { missing: None }.selections_of(&names);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].iter().filter(|word| *word == "--package").count(), 3);
        let without = Buildable { missing: Some("it is not there".to_owned()) }.selections_of(&names);
        assert_eq!(without[0], ["--all-features", "--package", "runtide-core"]);
        assert_eq!(without[1..], [["--package", "runtide-examples"]]);
        assert!(Buildable { missing: None }.selections_of(&[]).is_empty());
    }
}
