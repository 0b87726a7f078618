//! Every `Cargo.lock` is up to date: a stale one is changed by the next build, in an unrelated commit.

use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::workspace;

/// The manifests with a lock file next to them.
const MANIFESTS: [&str; 3] = ["Cargo.toml", "benches/peers/Cargo.toml", "fuzz/Cargo.toml"];

pub(crate) fn check() -> Outcome<()> {
    const LIMIT: Duration = Duration::from_secs(120);
    let mut stale = Vec::new();
    for manifest in MANIFESTS {
        let mut command = workspace::cargo();
        // Unlike `cargo metadata`, this fetches none of the packages.
        command.args(["update", "--workspace", "--quiet", "--locked", "--manifest-path", manifest]);
        let said = process::capture(&mut command, LIMIT, Interrupt::Ends)?;
        if !said.status.success() {
            let lock = Path::new(manifest).with_extension("lock");
            let why =
                said.stderr.lines().find(|line| line.starts_with("error")).unwrap_or("cargo refuses it").to_owned();
            stale.push(format!(
                "{}: {why} (`cargo update --workspace --manifest-path {manifest}` brings it up to date)",
                lock.display()
            ));
        }
    }
    if stale.is_empty() { Ok(()) } else { Err(Failure::failed(stale.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `Cargo.lock`s below a folder, outside of what is built.
    fn locks(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            if name == "Cargo.lock" {
                found.push(workspace::relative(&path.with_extension("toml")));
            } else if entry.file_type().unwrap().is_dir() && name != "target" && name != ".git" {
                locks(&path, found);
            }
        }
    }

    #[test]
    fn each_lock_file_of_the_checkout_is_checked() {
        let mut found = Vec::new();
        locks(&workspace::root(), &mut found);
        found.sort();
        assert_eq!(found, MANIFESTS);
    }
}
