//! Locks, atomics and threads of the hand-over between appenders and the commit thread: those of the standard library, or, in a
//! build with `--cfg shuttle`, those of a checker that tries the orders in which threads may run (`tests/handover.rs`).

#[cfg(not(all(test, shuttle)))]
pub(super) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
    thread, thread_local,
    time::Instant,
};

#[cfg(all(test, shuttle))]
pub(super) use self::checked::Instant;
#[cfg(all(test, shuttle))]
pub(super) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
    thread, thread_local,
};

#[cfg(all(test, shuttle))]
mod checked {
    use std::{
        ops::Add,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use shuttle::rand::{Rng, thread_rng};

    static NOW: AtomicU64 = AtomicU64::new(0);

    /// A clock that the checker drives: between two readings it advances by nothing, a microsecond, or four milliseconds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(in crate::wal) struct Instant(Duration);

    impl Instant {
        pub(in crate::wal) fn now() -> Self {
            let step = thread_rng().gen_range(0..3_u64).pow(12);
            Self(Duration::from_micros(NOW.fetch_add(step, Ordering::Relaxed) + step))
        }

        pub(in crate::wal) fn saturating_duration_since(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }
}
