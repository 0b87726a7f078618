//! Programs that the testbed builds from source once, and keeps outside of every checkout.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::log::Log;
use super::{packages, suite};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, TICK};
use crate::terminal::complain;

/// The folder of all builds, if this variable is set.
const VARIABLE: &str = "RUNTIDE_TESTBED_CACHE";

/// The list of a build's programs with their hashes, in the format of `sha256sum`. Written last: a build without it is not one.
const SUMS: &str = "SHA256SUMS";

/// Limit of a build, on a busy machine.
const BUILD: Duration = Duration::from_secs(40 * 60);

/// Programs, and the shell script that makes them: `script WORK OUT MIRROR`, which may find its own earlier work in `WORK`.
pub(super) struct Recipe {
    /// With the version of what is built.
    pub(super) name: &'static str,
    pub(super) script: &'static str,
    /// Files that the script reads in `WORK`: a name and the text.
    pub(super) sources: &'static [(&'static str, &'static str)],
    pub(super) programs: &'static [&'static str],
}

impl Recipe {
    /// The folder with the programs, which are built unless they are there with the hashes that they had.
    pub(super) fn ensure(&self) -> Outcome<PathBuf> {
        let cache = folder()?;
        let out = cache.join(self.key());
        fs::create_dir_all(&cache).doing(format_args!("cannot make {}", cache.display()))?;
        if !is_whole(&out, self.programs) {
            let lock = self.lock(&cache)?;
            // Built in the meantime, by the process that held the lock.
            if !is_whole(&out, self.programs) {
                self.build(&cache, &out, &lock)?;
            }
        }
        Ok(out)
    }

    /// The folder with the programs if they are there; their hashes are not checked.
    pub(super) fn found(&self) -> Option<PathBuf> {
        let out = folder().ok()?.join(self.key());
        out.join(SUMS).exists().then_some(out)
    }

    /// Changes with the recipe, so that a checkout never meets the programs of another recipe.
    fn key(&self) -> String {
        let mut text = String::from(self.script);
        for (_, source) in self.sources {
            text.push_str(source);
        }
        let hash = hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
        format!("{}-{}-{}", self.name, env::consts::ARCH, hash.get(..8).unwrap_or(&hash))
    }

    fn lock(&self, cache: &Path) -> Outcome<File> {
        let path = cache.join(format!("{}.lock", self.key()));
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.doing(format_args!("cannot write {}", path.display()))?;
        let end = Instant::now() + BUILD;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(Failure::failed(format_args!("cannot lock {}: {error}", path.display())));
                }
                Err(TryLockError::WouldBlock) if process::interrupted() => return Err(Failure::interrupted()),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    let minutes = BUILD.as_secs() / 60;
                    return Err(Failure::failed(format_args!("{} is not built after {minutes} min", self.name)));
                }
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut said, true) {
                        complain!("testbed: another process builds {}", self.name);
                    }
                    thread::sleep(TICK);
                }
            }
        }
    }

    fn build(&self, cache: &Path, out: &Path, lock: &File) -> Outcome<()> {
        let key = self.key();
        let (work, new) = (cache.join(format!("{key}.work")), cache.join(format!("{key}.new")));
        remove(out)?;
        remove(&new)?;
        for folder in [&work, &new] {
            fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))?;
        }
        for (name, text) in self.sources {
            fs::write(work.join(name), text).doing(format_args!("cannot write {name}"))?;
        }
        let path = cache.join(format!("{key}.log"));
        complain!("testbed: builds {} in {}, which takes minutes", self.name, cache.display());
        let (stdout, stderr, log) = Log::open(path.clone())?;
        let begin = Instant::now();
        let mut command = packages::command("nice");
        command
            .args(["-n", "10", "sh", "-c", self.script, self.name])
            .args([&work, &new])
            .arg(suite::mirror()?)
            .current_dir(&work)
            .process_group(0)
            // The lock is the script's as well: a build whose parent was killed still has it.
            .stdin(Stdio::from(lock.try_clone().doing("cannot keep the lock")?))
            .stdout(stdout)
            .stderr(stderr);
        let mut child = command.spawn().doing("cannot run nice")?;
        let status = loop {
            if let Some(status) = child.try_wait().doing("cannot wait for the build")? {
                break status;
            }
            let ends = process::interrupted() || begin.elapsed() >= BUILD;
            if ends && let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            thread::sleep(TICK);
        };
        if process::interrupted() {
            return Err(Failure::interrupted());
        }
        if !status.success() {
            let why = log.last_line(|_| true).unwrap_or_else(|| status.to_string());
            return Err(Failure::refused(format_args!(
                "{} cannot be built: {why} (see {})",
                self.name,
                path.display()
            )));
        }
        fs::write(new.join(SUMS), sums(&new, self.programs)?).doing("cannot write the hashes")?;
        fs::rename(&new, out).doing(format_args!("cannot make {}", out.display()))?;
        remove(&work)?;
        complain!("testbed: {} is built, after {} s", self.name, begin.elapsed().as_secs());
        Ok(())
    }
}

fn folder() -> Outcome<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let found = set(VARIABLE)
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("runtide-testbed")))
        .or_else(|| Some(set("HOME")?.join(".cache/runtide-testbed")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/runtide-testbed"));
    if found.is_absolute() {
        Ok(found)
    } else {
        Err(Failure::refused(format_args!("{VARIABLE}: not an absolute path")))
    }
}

fn is_whole(folder: &Path, programs: &[&str]) -> bool {
    let listed = fs::read_to_string(folder.join(SUMS));
    listed.is_ok_and(|listed| sums(folder, programs).is_ok_and(|found| found == listed))
}

fn sums(folder: &Path, programs: &[&str]) -> Outcome<String> {
    let mut lines = String::new();
    for program in programs {
        let path = folder.join(program);
        let hash = sha256(&path).doing(format_args!("cannot read {}", path.display()))?;
        let _ = writeln!(lines, "{hash}  {program}");
    }
    Ok(lines)
}

fn sha256(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else { break };
        context.update(read);
    }
    Ok(hex(context.finish().as_ref()))
}

/// Bytes in lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn remove(folder: &Path) -> Outcome<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::failed(format_args!("cannot remove {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_program_is_not_a_whole_build() {
        let folder = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a"), "").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n";
        let listed = sums(&folder, &["a"]).unwrap();
        fs::write(folder.join(SUMS), &listed).unwrap();
        let whole = is_whole(&folder, &["a"]);
        let further = is_whole(&folder, &["a", "b"]);
        fs::write(folder.join("a"), "changed").unwrap();
        let changed = is_whole(&folder, &["a"]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(listed, empty);
        assert_eq!((whole, further, changed), (true, false, false));
    }

    #[test]
    fn another_recipe_has_another_folder() {
        let recipe = |script, sources| Recipe { name: "x-1", script, sources, programs: &["a"] };
        assert!(recipe("make", &[]).key().starts_with("x-1-"));
        assert_ne!(recipe("make", &[]).key(), recipe("make all", &[]).key());
        assert_ne!(recipe("make", &[]).key(), recipe("make", &[("a.go", "package main")]).key());
    }
}
