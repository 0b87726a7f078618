//! The files of another Debian than the machine's: made once, kept below `target`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::{mounts, packages};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::complain;
use crate::workspace;

const ASK: Duration = Duration::from_secs(30);
const MAKE: Duration = Duration::from_secs(15 * 60);

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Makes sure that the files of `suite`, with these packages, are at `folder`.
pub(super) fn ensure(suite: &str, with: &str, folder: &Path) -> Outcome<()> {
    // In a file beside it: an earlier checkout may have asked for fewer.
    let packages = folder.with_extension("packages");
    if folder.join("etc/debian_version").exists() && fs::read_to_string(&packages).is_ok_and(|made| made == with) {
        return Ok(());
    }
    let new = folder.with_extension("new");
    remove(&new)?;
    remove(folder)?;
    let shown = workspace::relative(folder);
    complain!("testbed: making the files of Debian {suite} in {shown}");
    let mut command = packages::command("unshare");
    // In its own mount namespace: its mounts in the folder are gone with it, however it ends.
    command.args([
        "--mount",
        "--propagation",
        "slave",
        "--",
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
    ]);
    command.args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""]);
    for unneeded in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unneeded}/*"));
    }
    command.arg(format!("--include={with}")).arg(suite).arg(&new);
    command.arg(format!("deb [signed-by={KEYS}] {} {suite} main", mirror()?));
    let said = process::capture(&mut command, MAKE, Interrupt::Waits)?;
    if !said.status.success() {
        remove(&new)?;
        return Err(Failure::refused(format_args!("Debian {suite} cannot be had: {}", said.complaint())));
    }
    fs::rename(&new, folder).and_then(|()| fs::write(&packages, with)).doing(format_args!("cannot make {shown}"))
}

fn remove(folder: &Path) -> Outcome<()> {
    // Never through a mount.
    if !mounts::unmount_all(folder) || !mounts::below(folder).is_empty() {
        return Err(Failure::failed(format_args!("cannot unmount what is below {}", workspace::relative(folder))));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::failed(format_args!("cannot remove {}: {error}", workspace::relative(folder))))
        }
        _ => Ok(()),
    }
}

/// The mirror from which this machine's apt installs Debian.
pub(super) fn mirror() -> Outcome<String> {
    let mut command = packages::command("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)", "Identifier: Packages"]);
    let said = process::capture(&mut command, ASK, Interrupt::Waits)?;
    let none = || Failure::refused("apt does not say where this machine has Debian from");
    of_debian(&said.stdout).map(str::to_owned).ok_or_else(none)
}

/// Debian itself, not its security updates, which are elsewhere.
fn of_debian(targets: &str) -> Option<&str> {
    let mut addresses = targets.lines().filter_map(|line| line.strip_prefix("Debian main "));
    addresses.find(|address| !address.contains("security"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_that_apt_uses() {
        let targets = "Node nodistro https://node.example/\nDebian main http://near/debian-security/\n\
                       Debian contrib http://other/debian/\nDebian main http://near/debian/\nDebian main http://far/debian/\n";
        assert_eq!(of_debian(targets), Some("http://near/debian/"));
        assert_eq!(of_debian("  http://near/debian/\n"), None);
    }
}
