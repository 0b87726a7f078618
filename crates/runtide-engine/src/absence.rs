//! [`Absence`]: the time for which a wait goes on without its daemon, and the pauses between its attempts.

use std::time::Duration;

use runtide_core::{Error, Result, Retry};
use tokio::time::Instant;

/// Longest absence of the daemon before the wait fails. A restart of it takes seconds; without live-restore Docker first stops the
/// surviving containers, 10 seconds each.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Shortest and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Time after which an attempt that ends is not one of those that fail at once.
const LASTED: Duration = Duration::from_secs(5);

/// The attempts of one wait. Each absence of the daemon counts for itself.
#[derive(Debug)]
pub struct Absence {
    /// Time of the first failure since the daemon was reached last.
    since: Option<Instant>,
    /// Begin of the attempt.
    begun: Instant,
    pause: Duration,
}

impl Default for Absence {
    fn default() -> Self {
        Self { since: None, begun: Instant::now(), pause: PAUSE.0 }
    }
}

impl Absence {
    /// The daemon answered this attempt.
    pub fn is_over(&mut self) {
        self.since = None;
    }

    /// Pauses before the next attempt: from 50 ms up to 2 s while attempts fail at once. `error` is that of a daemon which was not
    /// reached.
    ///
    /// # Errors
    /// This error, once the daemon was away for 120 s.
    ///
    /// # Cancel safety
    /// A dropped future leaves the pause as it was.
    pub async fn pause(&mut self, error: Option<Error>) -> Result<()> {
        if self.begun.elapsed() >= LASTED {
            self.pause = PAUSE.0;
        }
        let mut retry = None;
        if let Some(error) = error {
            let since = *self.since.get_or_insert_with(Instant::now);
            if since.elapsed() >= TIMEOUT {
                return Err(error);
            }
            retry = Some(error.retry());
        }
        if let Some(Retry::Poll(interval)) = retry {
            tokio::time::sleep(interval).await; // nothing listens: no daemon is spared by a longer pause
        } else {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        self.begun = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::ErrorKind;
    use tokio::time::sleep;

    use super::*;

    fn away() -> Error {
        Error::new(ErrorKind::Unavailable, "demo.wait", "away")
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_absence_is_borne_as_long_as_the_first() {
        let mut absence = Absence::default();
        for _ in 0..2 {
            let gone = Instant::now();
            while absence.pause(Some(away())).await.is_ok() {
                assert!(gone.elapsed() < TIMEOUT + PAUSE.1);
                if gone.elapsed() > TIMEOUT / 2 {
                    break;
                }
            }
            assert!(gone.elapsed() > TIMEOUT / 2, "it failed after {:?}", gone.elapsed());
            absence.is_over();
            sleep(Duration::from_secs(3600)).await;
        }
        let gone = Instant::now();
        while absence.pause(Some(away())).await.is_ok() {}
        assert!(gone.elapsed() >= TIMEOUT, "{:?}", gone.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_end_at_once_are_ever_rarer_and_one_that_lasted_is_repeated_soon() {
        let mut absence = Absence::default();
        let begun = Instant::now();
        for _ in 0..100 {
            absence.is_over();
            absence.pause(None).await.unwrap();
        }
        assert!(begun.elapsed() > Duration::from_secs(180), "100 attempts within {:?}", begun.elapsed());
        sleep(LASTED).await;
        let ended = Instant::now();
        absence.pause(None).await.unwrap();
        assert!(ended.elapsed() <= PAUSE.0 * 2, "{:?}", ended.elapsed());
    }
}
