//! What the testbed does with a daemon, whichever it is.

use std::collections::BTreeMap;

use crate::failure::Outcome;

pub(super) trait Service {
    /// Starts it, and makes it ready for tests; installs its packages if allowed to. Up already is success.
    fn up(&self, install: bool) -> Outcome<()>;

    /// Starts what does not run of a testbed that is up.
    fn start(&self) -> Outcome<()>;

    /// SIGTERM, and wait.
    fn stop(&self) -> Outcome<()>;

    /// SIGKILL, and wait.
    fn kill(&self) -> Outcome<()>;

    /// Ends it, and puts the machine back; whether there was anything to do.
    fn down(&self) -> Outcome<bool>;

    /// What is up, in a few words; an error if it is not.
    fn summary(&self) -> Outcome<String>;

    /// What a test needs to know; empty when it is not up.
    fn environment(&self) -> BTreeMap<&'static str, String>;
}
