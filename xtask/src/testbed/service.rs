//! The testbed's operations on any daemon.

use std::collections::BTreeMap;

use crate::failure::{Failure, Outcome};

pub(super) trait Service {
    /// Builds what no package has, so that `up` need not; installs the packages for that if allowed to.
    fn build(&self, _install: bool) -> Outcome<()> {
        Ok(())
    }

    /// Starts it, and makes it ready for tests; installs its packages if allowed to. Up already is success.
    fn up(&self, install: bool) -> Outcome<()>;

    /// Starts the stopped parts of a testbed that is up.
    fn start(&self) -> Outcome<()>;

    /// SIGTERM, and wait.
    fn stop(&self) -> Outcome<()>;

    /// SIGKILL, and wait.
    fn kill(&self) -> Outcome<()>;

    /// SIGSTOP: it is there, and does not answer.
    fn pause(&self) -> Outcome<()> {
        Err(Failure::refused("only the parts of k8s can be paused"))
    }

    /// SIGCONT, after a pause.
    fn proceed(&self) -> Outcome<()> {
        self.pause()
    }

    /// Drops the history of what it keeps.
    fn compact(&self) -> Outcome<()> {
        Err(Failure::refused("only k8s has a history to compact"))
    }

    /// Ends it, and restores the machine; `true` if there was anything to do.
    fn down(&self) -> Outcome<bool>;

    /// A short description of the running daemon; an error if it is not up.
    fn summary(&self) -> Outcome<String>;

    /// The environment of the tests; empty if it is not up.
    fn environment(&self) -> BTreeMap<&'static str, String>;
}
