//! Real daemons under tests: turns of tests that share one, and taking it away.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Supported;

/// The right to use a daemon, until it is dropped: exclusive, or shared with tests that do not disturb it. It holds for all tests,
/// of any process: those of one checkout for a daemon of its testbed, and those of the machine for any other daemon.
#[derive(Debug)]
pub struct Turn {
    _locked: File,
}

impl Turn {
    /// Waits until no other test has a turn: for a test that kills the daemon, reloads it, or lists everything that it has.
    /// `daemon` is a name as `docker`, which becomes part of a file's.
    ///
    /// # Errors
    /// The error of the file system for the lock file in the temporary folder.
    ///
    /// # Cancel safety
    /// A call that is dropped while it waits may get the turn all the same, and gives it back at once.
    pub async fn on(daemon: &str) -> io::Result<Self> {
        Self::of(daemon, File::lock).await
    }

    /// Waits until no test has the daemon exclusively: for a test that reads only its own instances.
    ///
    /// A test must not ask for a turn while it has one: a test that waits for the exclusive turn may come in between.
    ///
    /// # Errors
    /// As for [`on`](Self::on).
    ///
    /// # Cancel safety
    /// As for [`on`](Self::on).
    pub async fn shared(daemon: &str) -> io::Result<Self> {
        Self::of(daemon, File::lock_shared).await
    }

    async fn of(daemon: &str, lock: impl FnOnce(&File) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let path = lock_file(std::env::var_os("RUNTIDE_TESTBED").map(PathBuf::from).as_deref(), daemon);
        let file = File::options().create(true).append(true).open(path)?;
        let locked = tokio::task::spawn_blocking(move || lock(&file).map(|()| file)).await;
        Ok(Self { _locked: locked.map_err(io::Error::other)?? })
    }
}

/// The file that is locked: next to the testbed's program, so that checkouts with daemons of their own do not wait for each other.
fn lock_file(testbed: Option<&Path>, daemon: &str) -> PathBuf {
    match testbed.and_then(Path::parent).filter(|folder| folder.is_dir()) {
        Some(folder) => folder.join(format!("turn-{daemon}.lock")),
        None => std::env::temp_dir().join(format!("runtide-conformance-{daemon}.lock")),
    }
}

/// The program that `RUNTIDE_TESTBED` names, which kills, stops and starts a daemon: `<program> testbed <verb> <daemon>`.
#[derive(Clone, Debug)]
pub struct Testbed {
    program: PathBuf,
    daemon: &'static str,
}

impl Testbed {
    /// `None`: `RUNTIDE_TESTBED` is not set.
    pub fn of(daemon: &'static str) -> Option<Self> {
        Some(Self { program: std::env::var_os("RUNTIDE_TESTBED")?.into(), daemon })
    }

    /// Has these verbs done, one after the other: `kill`, `stop`, `start`, `restart`. Each takes as long as the program does.
    ///
    /// # Errors
    /// The program's message about the first verb that failed; the later ones are not tried.
    ///
    /// # Cancel safety
    /// A verb that was begun is carried out, also if no caller waits for it.
    pub async fn run(&self, verbs: &[&str]) -> Result<(), String> {
        for verb in verbs {
            let mut command = Command::new(&self.program);
            command.args(["testbed", verb, self.daemon]);
            let ran = tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other);
            let why = match ran.and_then(|ran| ran) {
                Ok(run) if run.status.success() => continue,
                Ok(run) => String::from_utf8_lossy(&run.stderr).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(format!("testbed {verb} {}: {why}", self.daemon));
        }
        Ok(())
    }

    /// [`run`](Self::run) as the result of a harness's fault.
    pub async fn fault(testbed: Option<&Self>, verbs: &[&str]) -> Supported {
        let Some(testbed) = testbed else { return Supported::No("RUNTIDE_TESTBED is not set".into()) };
        testbed.run(verbs).await.map_or_else(Supported::No, |()| Supported::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_a_testbed_is_locked_there_and_any_other_for_the_machine() {
        let folder = std::env::temp_dir();
        assert_eq!(lock_file(Some(&folder.join("xtask")), "docker"), folder.join("turn-docker.lock"));
        let machines = folder.join("runtide-conformance-docker.lock");
        assert_eq!(lock_file(None, "docker"), machines);
        assert_eq!(lock_file(Some(Path::new("/nonexistent/xtask")), "docker"), machines);
    }
}
