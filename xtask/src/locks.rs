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

    #[test]
    fn each_manifest_of_a_workspace_is_among_them() {
        let root = workspace::root();
        for manifest in MANIFESTS {
            assert!(root.join(manifest).is_file(), "{manifest}");
            assert!(root.join(manifest).with_extension("lock").is_file(), "{manifest}");
        }
    }
}
