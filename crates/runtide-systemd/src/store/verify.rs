//! Verdict of `systemd-analyze verify` on a unit before it is written.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use runtide_core::{Error, ErrorKind, Result};
use tokio::process::Command;

use super::name::UnitFileName;
use crate::config::{Config, Scope};

const VERIFY: &str = "store.apply";

/// Messages without a verdict: an option that versions before 250 do not have, and that it cannot act as a manager
/// here.
const UNABLE: [&str; 3] = ["unrecognized option", "Failed to initialize manager", "Failed to start manager"];

/// Limit of its message that is passed on, in bytes.
const WORDS: usize = 4 << 10;

/// Verifies these units, with copies of the files in a separate folder, which comes before all others. A dependency
/// that is missing does not count against them.
///
/// # Errors
/// `InvalidInput`, with its message. That the program cannot be run is none.
pub(super) async fn verify(config: &Config, files: &[(&UnitFileName, &Bytes)], units: &BTreeSet<&str>) -> Result<()> {
    let deadline = config.deadline;
    let verdict = match tokio::time::timeout(deadline, asked(config, files, units)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => {
            tracing::debug!(%error, ?units, "systemd-analyze cannot be run: systemd itself will judge");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!(?units, "systemd-analyze did not end in time: systemd itself will judge");
            return Ok(());
        }
    };
    match verdict {
        None => Ok(()),
        Some(words) => {
            Err(Error::new(ErrorKind::InvalidInput, VERIFY, words).with_context("program", "systemd-analyze verify"))
        }
    }
}

/// Returns its message, if it refuses a unit.
async fn asked(
    config: &Config,
    files: &[(&UnitFileName, &Bytes)],
    units: &BTreeSet<&str>,
) -> io::Result<Option<String>> {
    let folder = Folder::new(files).await?;
    let mut path = OsString::from(&folder.0);
    // The default path follows.
    path.push(":");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    if config.scope == Scope::User {
        command.arg("--user");
        if let Some(runtime) = config.runtime_dir() {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
    }
    command.arg("--").args(units).env("SYSTEMD_UNIT_PATH", path).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await?;
    let words = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(None),
        Some(_) if UNABLE.iter().any(|why| words.contains(why)) => Err(io::Error::other(words.into_owned())),
        Some(_) => Ok(Some(plain(&words, &folder.0))),
        None => Err(io::Error::other("it was killed")),
    }
}

/// Removes the path of the folder, which has no meaning for the caller.
fn plain(words: &str, folder: &Path) -> String {
    let folder = format!("{}/", folder.display());
    let mut plain = words.replace(&folder, "").trim().to_owned();
    let mut most = WORDS.min(plain.len());
    while !plain.is_char_boundary(most) {
        most -= 1;
    }
    plain.truncate(most);
    if plain.is_empty() { "systemd-analyze refuses it, without a reason".to_owned() } else { plain }
}

/// A temporary folder for one call.
struct Folder(PathBuf);

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Folder {
    async fn new(files: &[(&UnitFileName, &Bytes)]) -> io::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("runtide-verify-{}-{number}", std::process::id()));
        // No other user may put files in it; an existing folder may be another user's, and is refused.
        tokio::fs::DirBuilder::new().mode(0o700).create(&path).await?;
        let folder = Self(path);
        for (file, text) in files {
            if file.drop_in_name().is_some() {
                tokio::fs::create_dir_all(folder.0.join(file.drop_ins())).await?;
            }
            tokio::fs::write(folder.0.join(file.path()), text).await?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_message_is_truncated_and_has_no_path_of_our_folder() {
        let folder = Path::new("/tmp/x-1");
        assert_eq!(plain("/tmp/x-1/a.service:3: Unknown\n", folder), "a.service:3: Unknown");
        assert!(plain("", folder).contains("without a reason"));
        assert!(plain(&"ä".repeat(WORDS), folder).len() <= WORDS);
    }

    #[tokio::test]
    async fn a_unit_that_is_wrong_is_refused_where_the_program_is() {
        let file = UnitFileName::unit("runtide-verify-test.service").unwrap();
        let check = async |text: &'static str| {
            let units = BTreeSet::from([file.unit_name()]);
            verify(&Config::system(), &[(&file, &Bytes::from(text))], &units).await
        };
        check("[Service]\nExecStart=/bin/sh -c true\n").await.unwrap();
        if std::process::Command::new("systemd-analyze").arg("--version").output().is_ok() {
            let error = check("[Service]\nExecStart=/no/such/program\n").await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("/no/such/program"), "{error}");
        }
    }
}
