//! The folder of an engine, a short path to it, and what it takes to leave the machine as it was: a record of its state, or a guest
//! that is kept apart from it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::before::Before;
use super::guest::Guest;
use super::log::Log;
use super::network::Owner;
use super::places::in_run;
use super::{folder, mounts, packages, procfs};
use crate::failure::{Doing, Failure, Outcome};
use crate::workspace;

pub(super) struct Home {
    /// `target/testbed/docker`.
    pub(super) folder: PathBuf,
    /// The same, or a link to it that leaves room for the paths of sockets in it.
    pub(super) short: PathBuf,
    /// Record of the machine's earlier state. Not in the folder: it must outlive a `cargo clean`, but no boot.
    record: PathBuf,
    owner: Owner,
    name: &'static str,
    /// Of an engine that is not in the machine's own network.
    guest: Option<Guest>,
}

impl Home {
    /// `limit` is the longest path of the folder that leaves room for the engine's own, in bytes.
    pub(super) fn below(testbed: &Path, name: &'static str, owner: Owner, limit: usize) -> Self {
        let folder = testbed.join(name);
        let short = short(&folder, limit);
        let record = in_run(&folder).with_extension("json");
        Self { folder, short, record, owner, name, guest: None }
    }

    /// The same of an engine of another Debian.
    pub(super) fn of_guest(testbed: &Path, name: &'static str, owner: Owner, limit: usize) -> Self {
        let home = Self::below(testbed, name, owner, limit);
        let guest = Guest::below(testbed, &home.folder, &home.short);
        Self { guest: Some(guest), ..home }
    }

    pub(super) fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// A command of the engine's, where the engine runs.
    pub(super) fn command(&self, program: &str) -> Outcome<Command> {
        self.guest.as_ref().map_or_else(|| Ok(packages::command(program)), |guest| guest.command(program))
    }

    /// The control group of its containers, by which they are found without the daemon: each checkout has its own.
    pub(super) fn group(&self) -> String {
        in_run(&self.folder).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    pub(super) fn is_up(&self) -> bool {
        match &self.guest {
            Some(guest) => guest.pid().is_some(),
            None => matches!(Before::read(&self.record), Ok(Some(_))),
        }
    }

    pub(super) fn must_be_up(&self) -> Outcome<()> {
        if self.is_up() {
            return Ok(());
        }
        let name = self.name;
        Err(Failure::refused(format_args!("the testbed's {name} is not up: cargo xtask testbed up {name}")))
    }

    /// Makes the folder and the link to it, and records the machine's state, or starts what keeps the guest.
    pub(super) fn prepare(&self) -> Outcome<()> {
        fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
        if !self.is_up() {
            // Left from before the machine booted.
            self.remove_files()?;
        }
        if self.short != self.folder && fs::read_link(&self.short).ok().as_ref() != Some(&self.folder) {
            let _ = fs::remove_file(&self.short);
            symlink(&self.folder, &self.short).doing(format_args!("cannot make {}", self.short.display()))?;
        }
        let Some(guest) = &self.guest else { return Before::take(&self.record, &self.folder, self.owner) };
        let (out, err, log) = self.log()?;
        guest.keep(out, err, &log)
    }

    /// Restores the machine; returns what could not be restored, one line each.
    pub(super) fn restore(&self) -> Outcome<Vec<String>> {
        if let Some(guest) = &self.guest {
            let left = (!guest.end()).then(|| "processes of its Debian".to_owned());
            return Ok(left.into_iter().collect());
        }
        let Some(before) = Before::read(&self.record)? else {
            // No daemon starts where another one's objects are, so everything with its names is the testbed's.
            let mut left = Before::unknown(self.owner).restore();
            left.push("ip_forward: how it was before is not known".to_owned());
            return Ok(left);
        };
        Ok(before.restore())
    }

    /// The machine's earlier state is restored: the record has done its work.
    pub(super) fn forget(&self) -> Outcome<()> {
        Before::forget(&self.record)
    }

    /// Makes these folders in it.
    pub(super) fn make(&self, folders: &[&str]) -> Outcome<()> {
        for folder in folders {
            let path = self.folder.join(folder);
            fs::create_dir_all(&path).doing(format_args!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).doing(format_args!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Opens the log, which stays after a teardown so that a failure can be diagnosed, twice: for stdout and for stderr.
    pub(super) fn log(&self) -> Outcome<(File, File, Log)> {
        Log::open(self.folder.join(self.log_name()))
    }

    fn log_name(&self) -> &'static str {
        match self.owner {
            Owner::Docker => "dockerd.log",
            Owner::Podman => "podman.log",
        }
    }

    /// Unmounts everything below the folder, and returns the mounts that are left.
    pub(super) fn unmount(&self) -> Vec<PathBuf> {
        // The mounts table shows paths without links.
        let real = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        mounts::unmount_below(&real)
    }

    /// Removes all of the files but the logs, and the mounts that a killed daemon left.
    pub(super) fn remove_files(&self) -> Outcome<()> {
        if let Some(mount) = self.unmount().first() {
            return Err(Failure::failed(format_args!("{} is mounted, and cannot be unmounted", mount.display())));
        }
        if self.short != self.folder {
            let _ = fs::remove_file(&self.short);
        }
        folder::clear(&self.folder)
    }
}

/// A testbed of another checkout may have been killed together with its daemon, and its checkout be gone: then its remains would
/// stand in the way of every other, and no other process restores the machine.
pub(super) fn put_back_after_the_dead() -> Outcome<()> {
    for (file, before) in Before::of_the_dead(is_in_use) {
        let left = before.restore();
        if !left.is_empty() {
            let folder = before.folder().display();
            return Err(Failure::failed(format_args!(
                "left by the testbed at {folder}, which is gone: {}",
                left.join("; ")
            )));
        }
        Before::forget(&file)?;
    }
    Ok(())
}

/// `true` if the testbed's daemon at `folder`, `target/testbed/docker` of some checkout, may still be needed: a part of it runs,
/// or tests do, which kill it and start it again.
fn is_in_use(folder: &Path) -> bool {
    let in_run = in_run(folder);
    let names_it = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        [folder, &in_run].iter().any(|path| argument.contains(&*path.to_string_lossy()))
    };
    let is_locked = |file: PathBuf| {
        File::open(file).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    // `target/testbed/docker`: the locks of a run of all tests, and of a verb that is under way.
    let above = |nth: usize, name: &str| folder.ancestors().nth(nth).is_some_and(|at| is_locked(at.join(name)));
    above(2, workspace::TEST_LOCK)
        || above(1, super::LOCK)
        || procfs::processes().iter().any(|process| process.arguments.iter().any(names_it))
}

/// The folder, or a short name for it if its path is longer than `limit`, in bytes.
fn short(folder: &Path, limit: usize) -> PathBuf {
    if folder.as_os_str().len() <= limit { folder.to_path_buf() } else { in_run(folder) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_name_that_is_always_the_same() {
        let near = Path::new("/srv/runtide/target/testbed/docker");
        assert_eq!(short(near, 62), near);
        let far = Path::new("/home/user/with/a/long/name/and/many/folders/runtide/target/testbed/docker");
        assert_eq!(short(far, 62), short(far, 62));
        assert!(short(far, 44).as_os_str().len() < 44);
    }
}
