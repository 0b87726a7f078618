//! Real daemons under tests: one test at a time, and taking the daemon away.

use std::{fs::File, io, path::PathBuf, process::Command};

use crate::Supported;

/// The right to use a daemon, which one test on this machine has at a time, of whatever process, until it drops this.
#[derive(Debug)]
pub struct Turn {
    _locked: File,
}

impl Turn {
    /// Waits for it. `daemon` is a name as `docker`, which becomes part of a file's.
    ///
    /// # Errors
    /// What the file system says of a lock among the temporary files.
    ///
    /// # Cancel safety
    /// Whoever is dropped while it waits may get the turn all the same, and gives it back at once.
    pub async fn on(daemon: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("runtide-conformance-{daemon}.lock"));
        let file = File::options().create(true).append(true).open(path)?;
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        Ok(Self { _locked: locked.map_err(io::Error::other)?? })
    }
}

/// The program that `RUNTIDE_TESTBED` names, which kills, stops and starts a daemon: `<program> testbed <verb> <daemon>`.
#[derive(Clone, Debug)]
pub struct Testbed {
    program: PathBuf,
    daemon: &'static str,
}

impl Testbed {
    /// `None`: nobody named one.
    pub fn of(daemon: &'static str) -> Option<Self> {
        Some(Self { program: std::env::var_os("RUNTIDE_TESTBED")?.into(), daemon })
    }

    /// Has these done, one after the other: `kill`, `stop`, `start`, `restart`. Each takes as long as the program does.
    ///
    /// # Errors
    /// What the program said of the first that failed; the later ones are not tried.
    ///
    /// # Cancel safety
    /// A verb that was begun is carried out, whether or not anybody waits.
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

    /// The same as a harness says it of a fault.
    pub async fn fault(testbed: Option<&Self>, verbs: &[&str]) -> Supported {
        let Some(testbed) = testbed else { return Supported::No("RUNTIDE_TESTBED is not set".into()) };
        testbed.run(verbs).await.map_or_else(Supported::No, |()| Supported::Yes)
    }
}
