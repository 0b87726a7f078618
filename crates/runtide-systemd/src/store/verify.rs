//! What `systemd-analyze verify` says of a unit before it is written.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use runtide_core::{Error, ErrorKind, Result};
use tokio::process::Command;

use super::name::UnitFileName;
use crate::config::Scope;

const VERIFY: &str = "store.apply";

/// The most of its words that are passed on, in bytes.
const WORDS: usize = 4 << 10;

/// Asks about a copy of the file in a folder of its own, which comes before all others. What the unit needs and is not there is
/// no fault of it.
///
/// # Errors
/// `InvalidInput`, in its words. That the program cannot be run is none.
pub(super) async fn verify(scope: Scope, deadline: Duration, file: &UnitFileName, text: &Bytes) -> Result<()> {
    let said = match tokio::time::timeout(deadline, asked(scope, file, text)).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            tracing::debug!(%error, unit = file.unit_name(), "systemd-analyze cannot be run: systemd itself will judge");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!(unit = file.unit_name(), "systemd-analyze did not end in time: systemd itself will judge");
            return Ok(());
        }
    };
    match said {
        None => Ok(()),
        Some(words) => {
            Err(Error::new(ErrorKind::InvalidInput, VERIFY, words).with_context("program", "systemd-analyze verify"))
        }
    }
}

/// Its words, if it refuses the unit.
async fn asked(scope: Scope, file: &UnitFileName, text: &Bytes) -> io::Result<Option<String>> {
    let folder = Folder::new(file, text).await?;
    let mut path = OsString::from(&folder.0);
    // What comes after is where it always looks.
    path.push(":");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    if scope == Scope::User {
        command.arg("--user");
    }
    command.arg("--").arg(file.unit_name()).env("SYSTEMD_UNIT_PATH", path).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await?;
    let words = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(None),
        // Before 250 it did not know this option.
        Some(_) if words.contains("unrecognized option") => Err(io::Error::other(words.into_owned())),
        Some(_) => Ok(Some(plain(&words, &folder.0))),
        None => Err(io::Error::other("it was killed")),
    }
}

/// Without the folder, which means nothing to anybody.
fn plain(words: &str, folder: &Path) -> String {
    let folder = format!("{}/", folder.display());
    let mut plain = words.replace(&folder, "").trim().to_owned();
    let mut most = WORDS.min(plain.len());
    while !plain.is_char_boundary(most) {
        most -= 1;
    }
    plain.truncate(most);
    if plain.is_empty() { "systemd-analyze refuses it, and does not say why".to_owned() } else { plain }
}

/// A folder for one question, which goes with it.
struct Folder(PathBuf);

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Folder {
    async fn new(file: &UnitFileName, text: &Bytes) -> io::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("runtide-verify-{}-{number}", std::process::id()));
        // Nobody else may put anything in it; one that is there already is somebody else's.
        tokio::fs::DirBuilder::new().mode(0o700).create(&path).await?;
        let folder = Self(path);
        if file.drop_in_name().is_some() {
            tokio::fs::create_dir(folder.0.join(file.drop_ins())).await?;
        }
        tokio::fs::write(folder.0.join(file.path()), text).await?;
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
    fn its_words_are_cut_and_freed_of_our_folder() {
        let folder = Path::new("/tmp/x-1");
        assert_eq!(plain("/tmp/x-1/a.service:3: Unknown\n", folder), "a.service:3: Unknown");
        assert!(plain("", folder).contains("does not say why"));
        assert!(plain(&"ä".repeat(WORDS), folder).len() <= WORDS);
    }

    #[tokio::test]
    async fn a_unit_that_is_wrong_is_refused_where_the_program_is() {
        let file = UnitFileName::unit("runtide-verify-test.service").unwrap();
        let check =
            async |text: &'static str| verify(Scope::System, Duration::from_secs(20), &file, &Bytes::from(text)).await;
        check("[Service]\nExecStart=/bin/sh -c true\n").await.unwrap();
        if std::process::Command::new("systemd-analyze").arg("--version").output().is_ok() {
            let error = check("[Service]\nExecStart=/no/such/program\n").await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("/no/such/program"), "{error}");
        }
    }
}
