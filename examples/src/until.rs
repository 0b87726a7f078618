//! [`Until`]: the end of `--for`.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// The time at which an example ends by itself, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Until(Option<Instant>);

impl Until {
    /// Ends after this time.
    pub fn after(time: Option<Duration>) -> Self {
        // A time too far away to be represented does not come.
        Self(time.and_then(|time| Instant::now().checked_add(time)))
    }

    /// The output of the future; `None` once the time is over, also if the future is always ready.
    pub async fn get<T>(self, next: impl Future<Output = T>) -> Option<T> {
        let Some(end) = self.0 else { return Some(next.await) };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(end) => None,
            next = next => Some(next),
        }
    }
}
