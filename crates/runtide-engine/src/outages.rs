//! [`Outages`]: how long a stream goes on that asks the daemon again where its connection broke.

use std::time::Duration;

use runtide_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::absence::Absence;

/// Time within which an answer that breaks off is one of [`FRUITLESS`] in a row, at most.
const SOON: Duration = Duration::from_secs(5);

/// Answers in a row that break off soon and without an item, after which the stream ends.
const FRUITLESS: u32 = 4;

/// The outages of one stream. An absence of the daemon counts apart from answers that break off.
#[derive(Debug)]
pub struct Outages {
    soon: Duration,
    absence: Absence,
    /// Time of the last answer.
    answered: Instant,
    fruitless: u32,
}

impl Outages {
    /// Those of a stream that takes its connection for dead after this silence: what is only silent is never cut too soon.
    pub fn new(max_silence: Duration) -> Self {
        Self { soon: SOON.min(max_silence), absence: Absence::default(), answered: Instant::now(), fruitless: 0 }
    }

    /// The daemon answered the request.
    pub fn answered(&mut self) {
        self.answered = Instant::now();
        self.absence.is_over();
    }

    /// An item came.
    pub fn are_over(&mut self) {
        self.fruitless = 0;
        self.absence.is_over();
    }

    /// Pauses before the daemon is asked again. `in_answer`: the answer broke off; else there was none.
    ///
    /// # Errors
    /// This error, if it is none of the connection, if the daemon was away for 120 s, or if the answers of four requests in a row broke
    /// off within 5 s and without an item.
    ///
    /// # Cancel safety
    /// A dropped future leaves the pause as it was.
    pub async fn outlast(&mut self, error: Error, in_answer: bool) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            return Err(error);
        }
        if in_answer {
            self.fruitless = if self.answered.elapsed() < self.soon { self.fruitless + 1 } else { 0 };
            if self.fruitless >= FRUITLESS {
                return Err(error);
            }
        }
        tracing::debug!(%error, "the stream goes on after an outage");
        self.absence.pause(Some(error)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn broke() -> Error {
        Error::new(ErrorKind::Unavailable, "demo.logs", "it broke off")
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_break_off_at_once_end_it_and_an_item_in_between_does_not() {
        let mut outages = Outages::new(SOON * 2);
        for _ in 0..10 {
            for _ in 1..FRUITLESS {
                outages.answered();
                outages.outlast(broke(), true).await.unwrap();
            }
            outages.are_over();
        }
        for _ in 1..FRUITLESS {
            outages.answered();
            outages.outlast(broke(), true).await.unwrap();
        }
        outages.answered();
        assert_eq!(outages.outlast(broke(), true).await.unwrap_err().message(), "it broke off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_goes_on_for_ever() {
        let silence = Duration::from_secs(1);
        let mut outages = Outages::new(silence);
        for _ in 0..100 {
            outages.answered();
            sleep(silence).await;
            outages.outlast(broke(), true).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_may_be_away_for_two_minutes_and_another_error_ends_it_at_once() {
        let mut outages = Outages::new(SOON);
        let begun = Instant::now();
        while outages.outlast(broke(), false).await.is_ok() {}
        let lasted = begun.elapsed();
        assert!((Duration::from_secs(118)..Duration::from_secs(125)).contains(&lasted), "{lasted:?}");
        let other = Error::new(ErrorKind::NotFound, "demo.logs", "it is gone");
        assert_eq!(Outages::new(SOON).outlast(other, true).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
