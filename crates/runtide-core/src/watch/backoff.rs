//! The pause before the next attempt to connect.

use std::time::Duration;

/// The pause after the first failure; it doubles from there.
const BASE: Duration = Duration::from_millis(250);

/// Exponential, capped, with jitter, without an end. Only a link that stayed healthy resets it: the driver decides when.
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

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Number of failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// One more failure, and the pause that follows: between three quarters of the full pause and all of it, so that many
    /// clients of one daemon spread, and a daemon that is down is dialled at most three times a minute at the 30 s cap.
    pub(super) fn next(&mut self) -> Duration {
        let full = BASE.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
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
        backoff.reset();
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
}
