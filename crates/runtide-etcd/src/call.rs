//! One call of a user, with all its attempts: [`Call`].

use std::time::Duration;

use runtide_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::error::Fault;

/// The pause after the first failure; it doubles from there.
const BASE: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(800);

/// One call of a user: until when, and whether an attempt of it may have had an effect.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: &'static str,
    pub(crate) end: Instant,
    limit: Duration,
    /// An attempt to write got no answer that says what became of it.
    pub(crate) maybe: bool,
    /// Whether the attempts that follow write.
    pub(crate) writes: bool,
    failures: u32,
}

impl Call {
    pub(crate) fn new(operation: &'static str, limit: Duration) -> Self {
        Self { operation, end: Instant::now() + limit, limit, maybe: false, writes: false, failures: 0 }
    }

    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, fault: &Fault) {
        self.maybe |= self.writes && fault.maybe;
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// The last failure, if no time is left.
    pub(crate) async fn pause(&mut self, last: Error) -> Result<()> {
        let full = BASE.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let pause = full.mul_f64(0.5 + 0.5 * fastrand::f64());
        if self.left() <= pause {
            return Err(self.gave_up(last));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// How the call ends when its last attempt ended so.
    pub(crate) fn gave_up(&self, last: Error) -> Error {
        if self.maybe { self.unknown().with_source(last) } else { last }
    }

    /// The time is over, or what became of a write cannot be found out.
    pub(crate) fn unknown(&self) -> Error {
        let message = "whether it was done is not known, and it may yet be done";
        Error::new(ErrorKind::Timeout, self.operation, message).with_context("outcome", "unknown")
    }

    /// Others were always quicker.
    pub(crate) fn outrun(&self) -> Error {
        if self.maybe {
            return self.unknown();
        }
        let message = format!("others changed it meanwhile, each time for {:?}", self.limit);
        Error::new(ErrorKind::Timeout, self.operation, message)
    }
}
