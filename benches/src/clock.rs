//! Wall time and CPU time of one round.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Measures from `start` to `stop`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    /// Starts to measure.
    pub fn start() -> Self {
        Self { cpu: process_cpu(), wall: Instant::now() }
    }

    /// Stops, after this many units.
    pub fn stop(self, units: u64) -> Round {
        Round { units, wall: self.wall.elapsed(), cpu: process_cpu().saturating_sub(self.cpu) }
    }
}

/// One round of a contender.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Events, deliveries, containers.
    pub units: u64,
    /// Wall time from begin to end.
    pub wall: Duration,
    /// CPU time of all threads of this process.
    pub cpu: Duration,
}

impl Round {
    /// The sum of two rounds.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { units: self.units + other.units, wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }

    /// The sum of all rounds.
    pub fn sum(rounds: impl Iterator<Item = Self>) -> Self {
        let nothing = Self { units: 0, wall: Duration::ZERO, cpu: Duration::ZERO };
        rounds.fold(nothing, Self::and)
    }

    /// Units per second of wall time.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }

    /// Seconds of CPU for each unit.
    pub fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() / self.units as f64
    }
}

fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// Resident bytes of the process, by the kernel's count; `None` without a `/proc`.
pub fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}
