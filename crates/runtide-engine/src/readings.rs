//! [`readings`]: the usage of one run, read again and again until it ends.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::stream;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{Usage, UsageStream},
};
use tokio::time::{Interval, MissedTickBehavior};

/// Longest time between two readings: a year. The clock cannot add any longer ones.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A stream of readings of one run, `first` at once and then one per period. It ends once `end` is there, or a reading that finds the
/// run over (`None`, or `NotFound`); an error is its last item.
///
/// # Panics
/// Outside of a runtime of tokio, and for a period of zero.
pub fn readings<R, F>(
    every: Duration,
    first: Usage,
    end: impl Future<Output = Result<Option<ExitStatus>>> + Send + 'static,
    read: R,
) -> UsageStream
where
    R: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<Option<Usage>>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(every.min(LONGEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let readings = Readings { ticks, first: Some(first), end: Box::pin(end), read };
    UsageStream::new(stream::unfold(Some(readings), |readings| async {
        let mut readings = readings?;
        match readings.next().await {
            Ok(Some(usage)) => Some((Ok(usage), Some(readings))),
            Err(error) if error.kind() != ErrorKind::NotFound => Some((Err(error), None)),
            _ => None,
        }
    }))
}

struct Readings<R> {
    ticks: Interval,
    first: Option<Usage>,
    /// The end of the run. It is polled to its end only once: the stream is over then.
    end: Pin<Box<dyn Future<Output = Result<Option<ExitStatus>>> + Send>>,
    read: R,
}

impl<R, F> Readings<R>
where
    R: FnMut() -> F,
    F: Future<Output = Result<Option<Usage>>>,
{
    /// The next reading; `None`: the run is over.
    async fn next(&mut self) -> Result<Option<Usage>> {
        tokio::select! {
            biased;
            end = &mut self.end => return end.map(|_| None),
            _ = self.ticks.tick() => {}
        }
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => (self.read)().await,
        }
    }
}
