//! One call of the store's API, with all its attempts: [`Call`]; and the [`Fate`] of one of them.

use std::time::Duration;

use runtide_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::error::Fault;

/// Pause after the first failure; it doubles with each further one.
const BASE: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(800);

/// Most receipts of later deletes that are read back to find out what a write without an answer did.
pub(crate) const MAX_RECEIPTS: usize = 64;

/// Outcome of an attempt that got no response.
pub(crate) enum Fate {
    /// The attempt landed, at this revision.
    Landed(u64),
    /// The attempt has not landed, and cannot land any more.
    Dead,
    /// The outcome cannot be found out.
    Unknown,
}

/// Deadline of a call, and the uncertainty that its attempts left.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: &'static str,
    pub(crate) end: Instant,
    limit: Duration,
    /// The outcome of an attempt to write is not known.
    pub(crate) uncertain: bool,
    /// The attempts that follow write.
    pub(crate) writes: bool,
    /// The attempts that follow must not be sent again once one of them may have had its effect.
    pub(crate) once: bool,
    failures: u32,
}

impl Call {
    pub(crate) fn new(operation: &'static str, limit: Duration) -> Self {
        Self {
            operation,
            end: Instant::now() + limit,
            limit,
            uncertain: false,
            writes: false,
            once: false,
            failures: 0,
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Records a failed attempt.
    pub(crate) fn failed(&mut self, fault: &Fault) {
        self.uncertain |= self.writes && fault.uncertain;
    }

    /// Waits before another attempt: for `poll`, or longer with each failure. Returns the last failure.
    ///
    /// # Errors
    /// The last failure as the call's, if no time is left.
    pub(crate) async fn pause(&mut self, poll: Option<Duration>, last: Error) -> Result<Error> {
        let full = poll.unwrap_or_else(|| {
            let failures = self.failures;
            self.failures = failures.saturating_add(1);
            BASE.saturating_mul(1 << failures.min(10)).min(LONGEST)
        });
        let pause = full.mul_f64(0.5 + 0.5 * fastrand::f64());
        if self.left() <= pause {
            return Err(self.gave_up(last));
        }
        tokio::time::sleep(pause).await;
        Ok(last)
    }

    /// Error of the call when this is the error of its last attempt.
    pub(crate) fn gave_up(&self, last: Error) -> Error {
        if self.uncertain { self.unknown().with_source(last) } else { last }
    }

    /// Error of a write whose outcome cannot be found out.
    pub(crate) fn unknown(&self) -> Error {
        let message = "the outcome of the write is not known: it may be done, or be done later";
        Error::new(ErrorKind::Timeout, self.operation, message).with_context("outcome", "unknown")
    }

    /// Error of a call that lost every race against other writers until its deadline.
    pub(crate) fn outrun(&self) -> Error {
        if self.uncertain {
            return self.unknown();
        }
        let message = format!("other writers changed it before each attempt, for {:?}", self.limit);
        Error::new(ErrorKind::Timeout, self.operation, message)
    }
}

/// The error that says what is wrong: the last one, or the one before where an attempt timed out in the short rest of the deadline.
pub(crate) fn telling(earlier: Option<Error>, last: Error, was_short: bool) -> Error {
    match earlier {
        Some(earlier) if was_short && last.kind() == ErrorKind::Timeout => earlier,
        _ => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_cut_short_does_not_hide_what_is_wrong() {
        let error = |kind| Error::new(kind, "etcd.get", "");
        let earlier = || Some(error(ErrorKind::Unavailable));
        for (earlier, last, was_short, told) in [
            (earlier(), ErrorKind::Timeout, true, ErrorKind::Unavailable),
            // It had its time: the member does not answer.
            (earlier(), ErrorKind::Timeout, false, ErrorKind::Timeout),
            (earlier(), ErrorKind::PermissionDenied, true, ErrorKind::PermissionDenied),
            (None, ErrorKind::Timeout, true, ErrorKind::Timeout),
        ] {
            assert_eq!(telling(earlier, error(last), was_short).kind(), told);
        }
    }
}
