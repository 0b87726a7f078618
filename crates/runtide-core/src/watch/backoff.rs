//! The pause between two attempts to connect.

use std::time::Duration;

/// The pause after the first failure; it doubles from there.
const BASE: Duration = Duration::from_millis(50);

/// Bounds of the interval at which an address is dialled while nothing listens there.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(1);

/// Exponential, capped, with jitter, without an end. It counts failures of daemons that answer, and of links that fall; the
/// machine decides which those are, and when they are forgotten.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    max: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(max: Duration, seed: Option<u64>) -> Self {
        Self { failures: 0, max, rng: seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed) }
    }

    /// As after this many failures in a row.
    pub(super) fn set(&mut self, failures: u32) {
        self.failures = failures;
    }

    /// One more failure, and the least time from the dial that failed to the next one: between three quarters of the full
    /// pause and all of it, so that many clients of one daemon spread, and a daemon that fails is dialled at most three times
    /// a minute at the 30 s cap.
    pub(super) fn next(&mut self) -> Duration {
        let full = BASE.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.spread(full)
    }

    /// The pause before an address at which nothing listened is dialled again. It is no failure.
    pub(super) fn poll(&mut self, interval: Duration) -> Duration {
        self.spread(interval.clamp(POLL_MIN, POLL_MAX))
    }

    fn spread(&mut self, full: Duration) -> Duration {
        full.mul_f64(0.75 + 0.25 * self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_the_cap_and_never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(30), Some(1));
        let pauses: Vec<Duration> = (0..100_000).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= BASE && pauses[0] >= BASE.mul_f64(0.75));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)));
        assert!(pauses[10..].iter().all(|pause| *pause >= Duration::from_millis(22_500)));
        backoff.set(0);
        assert!(backoff.next() <= BASE);
    }

    #[test]
    fn the_jitter_spreads() {
        let mut backoff = Backoff::new(Duration::from_secs(30), None);
        let mut pauses: Vec<Duration> = (0..64).map(|_| backoff.next()).skip(10).collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 40, "{pauses:?}");
    }

    #[test]
    fn polls_are_bounded_and_no_failures() {
        let mut backoff = Backoff::new(Duration::from_secs(30), Some(1));
        for (asked, most) in [(Duration::ZERO, POLL_MIN), (BASE, BASE), (Duration::MAX, POLL_MAX)] {
            for _ in 0..1_000 {
                let pause = backoff.poll(asked);
                assert!(pause <= most && pause >= most.mul_f64(0.75), "{asked:?}: {pause:?}");
            }
        }
        assert!(backoff.next() <= BASE);
    }
}
