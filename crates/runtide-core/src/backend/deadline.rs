//! Deadlines that a caller chose: zero is refused, and one that is too far away for the clock is shortened to thirty years.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// Thirty years: later than any caller waits for, and near enough for every platform's clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Checks the deadline that the configuration has under `key`.
///
/// # Errors
/// `InvalidInput` for zero, since no call can meet it; the context names the key.
pub fn check_deadline(operation: &'static str, key: &'static str, deadline: Duration) -> Result<()> {
    if !deadline.is_zero() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, operation, "a deadline of zero can never be met").with_context("key", key))
}

/// The instant at which `limit` has passed, counted from now; at most thirty years ahead, where `Instant::now() + limit` could
/// panic.
pub fn instant_after(limit: Duration) -> Instant {
    saturating_add(Instant::now(), limit)
}

/// As [`instant_after`], counted from `start`.
pub fn saturating_add(start: Instant, limit: Duration) -> Instant {
    start + limit.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_zero_is_refused_by_its_key() {
        let error = check_deadline("docker.config", "connect_deadline", Duration::ZERO).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidInput, "docker.config"));
        assert_eq!(error.context(), [("key".into(), "connect_deadline".to_owned())]);
        check_deadline("docker.config", "deadline", Duration::from_nanos(1)).unwrap();
    }

    #[test]
    fn the_longest_duration_is_an_instant() {
        assert!(instant_after(Duration::MAX) > instant_after(Duration::from_secs(3600)));
    }
}
