//! Runs one law on one harness: the clock, the skips, the report. What `runtime_suite!` expands to.

use std::{
    future::Future,
    panic::Location,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    Absent, Harness, Law, LawResult, Verdict, Violation,
    report::{Line, Outcome, is_required},
};

/// Which clock a suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// tokio's paused clock on one thread: waiting is free, and a run is repeatable.
    Virtual,
    /// The machine's clock.
    Real,
}

/// On a paused clock, a law that takes so much real time has met a loop which does not pause.
const STUCK_VIRTUAL: Duration = Duration::from_secs(120);
const STUCK_REAL: Duration = Duration::from_secs(420);

/// How one law ended on one harness.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The line of the report.
    pub line: Line,
}

impl Run {
    /// Whether a test may be green: it passed, or is skipped where that is allowed.
    pub fn is_acceptable(&self) -> bool {
        self.line.outcome != Outcome::Failed
    }
}

/// Runs one law as a test: builds the runtime, starts the harness, reports.
///
/// # Panics
/// If the law is broken, as a test does.
#[track_caller]
#[expect(clippy::panic, reason = "it is the body of a test")]
pub fn test<H, F>(clock: Clock, law: Law, start: impl FnOnce() -> F)
where
    H: Harness,
    F: Future<Output = Result<H, Absent>>,
{
    // Laws on a real runtime count what this process holds: a runtime of tokio's that another one builds meanwhile would
    // be taken for a leak.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = (clock == Clock::Real).then(|| lock(&ALONE));
    let place = Location::caller();
    let run = match block_on(clock, run(law, start, clock)) {
        Ok(run) => run,
        Err(error) => panic!("no tokio runtime for {law} at {place}: {error}"),
    };
    say(&run.line);
    if let Err(error) = run.line.append() {
        panic!("the report of {law} cannot be written: {error}");
    }
    let reason = run.line.reason.as_deref().unwrap_or_default();
    assert!(run.is_acceptable(), "{law} on {}: {reason}", run.line.backend);
}

#[expect(clippy::print_stdout, reason = "a test's output; skips are to be seen")]
fn say(line: &Line) {
    if line.outcome == Outcome::Skipped || line.reason.is_some() {
        let outcome = format!("{:?}", line.outcome).to_lowercase();
        println!(
            "{} {} on {}: {outcome}: {}",
            line.law,
            line.name,
            line.backend,
            line.reason.as_deref().unwrap_or("-")
        );
    }
}

/// Runs a future on the clock of a suite.
///
/// # Errors
/// What the system says if no runtime can be had.
pub fn block_on<T>(clock: Clock, future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = match clock {
        Clock::Virtual => tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?,
        Clock::Real => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
    };
    let done = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(done)
}

/// Runs one law; never panics, whatever becomes of it.
pub async fn run<H, F>(law: Law, start: impl FnOnce() -> F, clock: Clock) -> Run
where
    H: Harness,
    F: Future<Output = Result<H, Absent>>,
{
    let began = Instant::now();
    let h = match start().await {
        Ok(h) => h,
        Err(absent) => {
            let failed = absent.broken || is_required(absent.backend);
            let outcome = if failed { Outcome::Failed } else { Outcome::Skipped };
            return Run {
                line: Line::of_backend(absent.backend, false, law, outcome, Some(absent.reason), began.elapsed()),
            };
        }
    };
    let (outcome, reason) = match h.skips().iter().find(|(skipped, _)| *skipped == law) {
        Some((_, reason)) => (Outcome::Skipped, Some((*reason).to_owned())),
        None => judge(check(law, &h, clock).await),
    };
    h.finish().await;
    let line = Line::of_backend(h.name(), h.is_real(), law, outcome, reason, began.elapsed()).with_version(h.version());
    Run { line }
}

/// Tests one law on a harness that is fresh, within a limit of real time.
pub async fn check(law: Law, h: &dyn Harness, clock: Clock) -> LawResult {
    let limit = match clock {
        Clock::Virtual => STUCK_VIRTUAL,
        Clock::Real => STUCK_REAL,
    };
    within_real_time(limit, law.check(h)).await.unwrap_or_else(|| {
        Err(Violation::of(
            law,
            format!("an end within {limit:?} of real time"),
            "none: a loop that does not pause, or a call without a deadline",
        ))
    })
}

fn judge(result: LawResult) -> (Outcome, Option<String>) {
    match result {
        Ok(Verdict::Kept { without }) if without.is_empty() => (Outcome::Passed, None),
        Ok(Verdict::Kept { without }) => (Outcome::Passed, Some(format!("without: {}", without.join("; ")))),
        Ok(Verdict::NotApplicable(reason)) => (
            Outcome::Failed,
            Some(format!("not applicable, which the harness does not announce among its skips: {reason}")),
        ),
        Err(violation) => (Outcome::Failed, Some(violation.to_string())),
    }
}

/// Waits for `work`, but no longer than `limit` by the machine's clock, also where tokio's is paused.
pub(crate) async fn within_real_time<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut alarm = Alarm::set(limit);
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        Pin::new(&mut alarm).poll(cx).map(|()| None)
    })
    .await
}

/// A timer of the machine's clock, on a thread of its own: tokio's own timers stand still with a paused clock, and a loop
/// that never pauses keeps a paused clock from moving.
struct Alarm {
    shared: Arc<Shared>,
    armed: bool,
    limit: Duration,
}

#[derive(Default)]
struct Shared {
    rang: AtomicBool,
    over: Mutex<bool>,
    changed: std::sync::Condvar,
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    fn set(limit: Duration) -> Self {
        Self { shared: Arc::default(), armed: false, limit }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.rang.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *lock(&self.shared.waker) = Some(cx.waker().clone());
        if !self.armed {
            self.armed = true;
            let shared = Arc::clone(&self.shared);
            let limit = self.limit;
            std::thread::spawn(move || {
                let over = lock(&shared.over);
                let waited = shared.changed.wait_timeout_while(over, limit, |over| !*over);
                let timed_out = waited.map_or(true, |(_, waited)| waited.timed_out());
                if timed_out {
                    shared.rang.store(true, Ordering::Release);
                    if let Some(waker) = lock(&shared.waker).take() {
                        waker.wake();
                    }
                }
            });
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        *lock(&self.shared.over) = true;
        self.shared.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_never_pauses_is_ended_on_a_paused_clock() {
        let busy = async {
            tokio::spawn(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let ended = block_on(Clock::Virtual, within_real_time(Duration::from_millis(50), busy)).unwrap();
        assert_eq!(ended, None);
    }
}
