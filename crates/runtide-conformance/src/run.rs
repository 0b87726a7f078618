//! Runs one law of any kind on one harness: the clock, the deadline, the skips, the report. The macros of the suites expand to
//! calls of [`test()`].

use std::{
    future::Future,
    io::Write,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    Absent, Kept, LawResult, LawSet, Verdict, Violation,
    report::{Line, Outcome, is_required},
};

/// The clock that a suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// tokio's paused clock on one thread: waiting is free, and a run is repeatable.
    Virtual,
    /// The machine's clock.
    Real,
    /// No clock, and no tokio runtime: nothing waits.
    None,
}

impl Clock {
    /// Longest duration of a law, in real time: one that takes longer has met a call without a deadline, or an endless loop; on a
    /// paused clock, a loop that does not pause. A law that computes for half a minute takes many on a busy machine.
    fn limit(self) -> Duration {
        match self {
            Self::Virtual => Duration::from_secs(900),
            Self::Real | Self::None => Duration::from_secs(1200),
        }
    }
}

/// The outcome of one law on one harness.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The line of the report.
    pub line: Line,
    /// The extent of the test, if the law held.
    pub kept: Option<Kept>,
}

impl Run {
    fn of<L: LawSet>(law: L, backend: &str, ended: Ended, began: Instant) -> Self {
        Self { line: Line::of(law, backend, ended.outcome, ended.reason, began.elapsed()), kept: ended.kept }
    }
}

/// The outcome of one law, without its harness.
struct Ended {
    outcome: Outcome,
    reason: Option<String>,
    kept: Option<Kept>,
}

impl Ended {
    fn without(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()), kept: None }
    }
}

/// Runs one law as a test: builds the runtime, starts the harness, reports, and panics with the violation if the law is broken.
/// Returns the extent of the test, unless the law was skipped.
///
/// # Panics
/// If the law is broken, or cannot be tested though it should, or the report cannot be written.
#[track_caller]
pub fn test<L, H, F>(law: L, clock: Clock, start: impl FnOnce() -> F, as_harness: fn(&H) -> &L::Harness) -> Option<Kept>
where
    L: LawSet,
    F: Future<Output = Result<H, Absent>>,
{
    test_by_law(law, clock, |_| start(), as_harness)
}

/// As [`test()`]; the harness is started for this law.
///
/// # Panics
/// As [`test()`].
#[track_caller]
#[expect(clippy::panic, reason = "it is the body of a test")]
pub fn test_by_law<L, H, F>(
    law: L,
    clock: Clock,
    start: impl FnOnce(L) -> F,
    as_harness: fn(&H) -> &L::Harness,
) -> Option<Kept>
where
    L: LawSet,
    F: Future<Output = Result<H, Absent>>,
{
    // Another law's tokio runtime, built at the same time, would count as a leak.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = (L::ALONE && clock == Clock::Real).then(|| lock(&ALONE));
    let Run { line, kept } = match block_on(clock, run(law, clock, || start(law), as_harness)) {
        Ok(run) => run,
        Err(error) => panic!("{law} cannot be run: {error}"),
    };
    show(law, &line, kept.as_ref());
    if line.outcome == Outcome::Skipped {
        warn_of_skip(law, &line);
    }
    if let Err(error) = line.append() {
        panic!("the report of {law} cannot be written: {error}");
    }
    let reason = line.reason.as_deref().unwrap_or_default();
    assert!(line.outcome != Outcome::Failed, "{law} on {}: {reason}", line.backend);
    kept
}

/// Prints the number of cases, and the reason of a part that was left out.
#[expect(clippy::print_stdout, reason = "a test's output; skips are to be seen")]
fn show(law: impl LawSet, line: &Line, kept: Option<&Kept>) {
    let looked = kept.and_then(|kept| kept.looked).map(|looked| looked.to_string());
    let parts: Vec<String> = looked.into_iter().chain(line.reason.clone()).collect();
    if !parts.is_empty() || line.outcome != Outcome::Passed {
        let outcome = format!("{:?}", line.outcome).to_lowercase();
        println!("{law} on {}: {outcome}: {}", line.backend, parts.join("; "));
    }
}

/// Says that a law was not tested. The test's own output is hidden once it passes, and a name with `ok` behind it would be all that
/// is seen: this goes past the capture of the test program.
fn warn_of_skip(law: impl LawSet, line: &Line) {
    let reason = line.reason.as_deref().unwrap_or_default();
    let text = format!("SKIPPED, NOT TESTED: {law} on {}: {reason}\n", line.backend);
    // A standard error that is closed shows nothing, and is no failure of the law.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs a future on the clock of a suite.
///
/// # Errors
/// The error of the system if no runtime can be had, and, without a clock, that the future waits.
pub fn block_on<T>(clock: Clock, future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = match clock {
        Clock::Virtual => tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?,
        Clock::Real => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
        Clock::None => {
            let polled = std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()));
            return match polled {
                Poll::Ready(done) => Ok(done),
                Poll::Pending => Err(std::io::Error::other("it waits, and there is no clock")),
            };
        }
    };
    let done = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(done)
}

/// Runs one law; never panics, also if the law is broken.
pub async fn run<L, H, F>(law: L, clock: Clock, start: impl FnOnce() -> F, as_harness: fn(&H) -> &L::Harness) -> Run
where
    L: LawSet,
    F: Future<Output = Result<H, Absent>>,
{
    let began = Instant::now();
    let h = match start().await {
        Ok(h) => h,
        Err(absent) => {
            let failed = absent.broken || is_required(absent.backend);
            let outcome = if failed { Outcome::Failed } else { Outcome::Skipped };
            return Run::of(law, absent.backend, Ended::without(outcome, absent.reason), began);
        }
    };
    let h = as_harness(&h);
    let subject = L::subject(h);
    let ended = match subject.skips.iter().find(|(skipped, _)| *skipped == law) {
        Some((_, reason)) => Ended::without(Outcome::Skipped, *reason),
        None => judge(check(law, clock, h).await),
    };
    L::finish(h).await;
    let Run { line, kept } = Run::of(law, subject.name, ended, began);
    Run { line: line.with_real(subject.is_real).with_version(subject.version), kept }
}

/// Tests one law on a fresh harness, within a limit of real time.
pub async fn check<L: LawSet>(law: L, clock: Clock, h: &L::Harness) -> LawResult<L> {
    let limit = clock.limit();
    within_real_time(limit, law.check(h)).await.unwrap_or_else(|| {
        Err(Violation::of(
            law,
            format!("an end within {limit:?} of real time"),
            "none: a loop that does not pause, or a call without a deadline",
        ))
    })
}

fn judge<L: LawSet>(result: LawResult<L>) -> Ended {
    match result {
        Ok(Verdict::Kept(kept)) => {
            let reason = (!kept.without.is_empty()).then(|| format!("without: {}", kept.without.join("; ")));
            Ended { outcome: Outcome::Passed, reason, kept: Some(kept) }
        }
        Ok(Verdict::NotApplicable(reason)) => {
            let why = "not applicable, which the harness does not announce among its skips";
            Ended::without(Outcome::Failed, format!("{why}: {reason}"))
        }
        Err(violation) => Ended::without(Outcome::Failed, violation.to_string()),
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

/// A timer of the machine's clock, on its own thread: tokio's own timers stand still with a paused clock, and a loop that
/// never pauses keeps a paused clock from moving.
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
