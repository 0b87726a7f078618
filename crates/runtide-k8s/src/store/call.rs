//! One write, with all its attempts: its deadline, and what is not known of it.

use std::time::Duration;

use runtide_core::{Error, ErrorKind, Result, Retry, store::ResourceRef};
use tokio::time::Instant;

/// First and longest pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    resource: &'a ResourceRef,
    end: Instant,
    limit: Duration,
    pause: Duration,
    /// The outcome of an attempt is not known.
    pub(super) is_uncertain: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, resource: &'a ResourceRef, limit: Duration) -> Self {
        let end = runtide_core::backend::instant_after(limit);
        Self { operation, resource, end, limit, pause: FIRST_PAUSE, is_uncertain: false }
    }

    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Runs a part of the call until its deadline.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout_at(self.end, work).await {
            Ok(done) => done,
            Err(_) => Err(self.timeout()),
        }
    }

    fn timeout(&self) -> Error {
        if self.is_uncertain {
            return self.unknown();
        }
        let message = format!("not done within {:?}", self.limit);
        Error::new(ErrorKind::Timeout, self.operation, message).with_context("resource", self.resource)
    }

    /// Error of a write whose outcome cannot be found out.
    pub(super) fn unknown(&self) -> Error {
        let message = "the outcome of the write is not known: it may be done, or be done later";
        Error::new(ErrorKind::Timeout, self.operation, message)
            .with_context("resource", self.resource)
            .with_context("outcome", "unknown")
    }

    /// Waits before another attempt, as long as the server asked for.
    ///
    /// # Errors
    /// The failure of the last attempt as the call's, if no time is left.
    pub(super) async fn wait(&mut self, failure: Option<Error>) -> Result<()> {
        let asked = failure.as_ref().and_then(|error| match error.retry() {
            Retry::After(pause) | Retry::Poll(pause) => Some(pause),
            _ => None,
        });
        let pause = asked.unwrap_or(self.pause);
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        if self.left() <= pause {
            return Err(match failure {
                Some(failure) if self.is_uncertain => self.unknown().with_source(failure),
                Some(failure) => failure.with_context("resource", self.resource),
                None => self.timeout(),
            });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Meaning of a failed attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It had no effect, and another may have one.
    Again,
    /// It may have had its effect, or may have it later.
    Uncertain,
    /// It had no effect, and the next will have none either.
    Final,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let is_answer = error.fact("status").is_some();
        match (error.kind(), error.retry()) {
            // No server was reached.
            (ErrorKind::Unavailable, Retry::Poll(_)) | (ErrorKind::RateLimited, _) => Self::Again,
            (ErrorKind::Unavailable, _) if is_answer => match (error.fact("status"), error.fact("reason")) {
                // It was not begun: the server says that it is to be sent again.
                (_, Some("ServerTimeout")) => Self::Again,
                (Some("500"), _) if !error.message().contains("etcdserver") => Self::Final,
                _ => Self::Uncertain,
            },
            (ErrorKind::Unavailable | ErrorKind::Timeout, _) => Self::Uncertain,
            (ErrorKind::Protocol, _) if !is_answer => Self::Uncertain,
            _ => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_did_not_begin_is_sent_again() {
        let error = |kind| Error::new(kind, "x", "y");
        let answered = |code: u16, reason: &'static str, message: &'static str| {
            Error::new(ErrorKind::Unavailable, "x", message).with_context("status", code).with_context("reason", reason)
        };
        for (error, failure) in [
            (error(ErrorKind::Unavailable).with_retry(Retry::Poll(Duration::ZERO)), Failure::Again),
            (error(ErrorKind::RateLimited), Failure::Again),
            (error(ErrorKind::Unavailable), Failure::Uncertain),
            (error(ErrorKind::Timeout), Failure::Uncertain),
            (error(ErrorKind::Protocol), Failure::Uncertain),
            (error(ErrorKind::InvalidInput), Failure::Final),
            (answered(500, "ServerTimeout", ""), Failure::Again),
            (answered(500, "InternalError", "failed calling webhook"), Failure::Final),
            (answered(500, "", "etcdserver: request timed out"), Failure::Uncertain),
            (answered(504, "Timeout", ""), Failure::Uncertain),
            (answered(503, "ServiceUnavailable", ""), Failure::Uncertain),
        ] {
            assert_eq!(Failure::of(&error), failure, "{error}");
        }
    }
}
