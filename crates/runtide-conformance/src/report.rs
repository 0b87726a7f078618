//! The report of a run: one JSON line per law, from which the support matrix is made, and one per test without a law that
//! could not run.

use std::{fs::OpenOptions, io::Write, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::LawSet;

/// The variable that names the folder of the reports.
pub const REPORT_DIR: &str = "RUNTIDE_REPORT_DIR";

/// The variable that names the backends, separated by commas, of which a skipped law is a failure.
pub const REQUIRE_REAL: &str = "RUNTIDE_REQUIRE_REAL";

/// One law on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Line {
    /// The suite: `runtime`, `store` for the laws of stores, or `wal` for the laws of the log; without a law, the test names it.
    pub suite: String,
    /// The backend's name.
    pub backend: String,
    /// `true` if a real runtime answered.
    pub real: bool,
    /// The law's number, as `R1`; empty for a test without a law.
    pub law: String,
    /// The law's name, or the test's.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason of a failure or a skip, or the parts that were left out.
    pub reason: Option<String>,
    /// Duration in milliseconds, by the wall clock.
    pub millis: u64,
    /// The runtime's version.
    pub version: Option<String>,
}

/// The outcome of a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The law held.
    Passed,
    /// The law was broken, or could not be tested.
    Failed,
    /// The law does not apply, or there is no runtime to test it on.
    Skipped,
}

impl Line {
    /// A line of a suite about the law with this number and name, or about a test, whose number is empty.
    pub fn new(
        suite: &str,
        backend: &str,
        number: &str,
        name: &str,
        outcome: Outcome,
        reason: Option<String>,
        took: Duration,
    ) -> Self {
        Self {
            suite: suite.to_owned(),
            backend: backend.to_owned(),
            real: false,
            law: number.to_owned(),
            name: name.to_owned(),
            outcome,
            reason,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            version: None,
        }
    }

    /// A line about a law on this backend, log or store.
    pub fn of<L: LawSet>(law: L, backend: &str, outcome: Outcome, reason: Option<String>, took: Duration) -> Self {
        let (number, name) = law.number_and_name();
        Self::new(L::SUITE, backend, number, name, outcome, reason, took)
    }

    /// With `real`: whether a real runtime answered.
    #[must_use]
    pub fn with_real(mut self, is_real: bool) -> Self {
        self.real = is_real;
        self
    }

    /// With the runtime's version.
    #[must_use]
    pub fn with_version(mut self, version: Option<String>) -> Self {
        self.version = version;
        self
    }

    /// Appends it to `<backend>.jsonl` in the folder that the environment names, if it names one.
    ///
    /// A line is one `write` to a file opened for appending, so that lines of parallel tests do not mix.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn append(&self) -> std::io::Result<()> {
        let Some(folder) = std::env::var_os(REPORT_DIR).filter(|folder| !folder.is_empty()).map(PathBuf::from) else {
            return Ok(());
        };
        std::fs::create_dir_all(&folder)?;
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let path = folder.join(format!("{}.jsonl", self.backend));
        OpenOptions::new().create(true).append(true).open(path)?.write_all(&text)
    }
}

/// `true` if a skip of this backend is a failure in this run.
pub fn is_required(backend: &str) -> bool {
    std::env::var(REQUIRE_REAL).is_ok_and(|wanted| wanted.split(',').any(|one| one.trim() == backend))
}

/// Reports that a test without a law does not run, so that it is counted: to cargo it has passed. Its name is that of its
/// thread, as the test's harness gives it.
///
/// # Panics
/// If this backend is required for real, and if the report cannot be written.
#[expect(clippy::panic, clippy::print_stdout, reason = "it ends a test, and reports that")]
pub fn skip(suite: &str, backend: &str, why: impl Into<String>) {
    let why = why.into();
    assert!(!is_required(backend), "{backend} is required for real: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    println!("skipped: {test}: {why}");
    let line = Line::new(suite, backend, "", test, Outcome::Skipped, Some(why), Duration::ZERO);
    if let Err(error) = line.append() {
        panic!("the report cannot be written: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Law;

    #[test]
    fn a_line_is_written_in_the_documented_form() {
        let line = Line::of(Law::R1, "docker", Outcome::Passed, None, Duration::from_millis(123))
            .with_real(true)
            .with_version(Some("20.10.24".into()));
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(
            json,
            r#"{"suite":"runtime","backend":"docker","real":true,"law":"R1","name":"bracket","outcome":"passed","reason":null,"millis":123,"version":"20.10.24"}"#
        );
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }
}
