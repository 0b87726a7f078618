//! Runs one law of stores: the skips, the time, the report. What `store_suite!` expands to.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use super::{Kept, StoreHarness, StoreLaw, StoreLawResult, StoreVerdict};
use crate::{
    Absent, Clock, Violation,
    report::{Line, Outcome, is_required},
    run::{block_on, within_real_time},
};

/// A law that takes so long has met a call without a deadline, or a loop without an end.
const STUCK: Duration = Duration::from_secs(600);

/// Runs one law as a test: starts the harness, tests, reports, and panics with what was found if the law is broken; what was
/// looked at, unless it was skipped.
///
/// # Panics
/// If the law is broken, or cannot be tested though it should, or the report cannot be written.
#[track_caller]
#[expect(clippy::panic, clippy::print_stdout, reason = "it is the body of a test")]
pub fn test<H, F>(law: StoreLaw, start: impl FnOnce() -> F) -> Option<Kept>
where
    H: StoreHarness,
    F: Future<Output = Result<H, Absent>>,
{
    let (line, kept) = match block_on(Clock::Real, run(law, start)) {
        Ok(run) => run,
        Err(error) => panic!("no tokio runtime for {law}: {error}"),
    };
    if let Err(error) = line.append() {
        panic!("the report of {law} cannot be written: {error}");
    }
    let reason = line.reason.as_deref().unwrap_or_default();
    assert!(line.outcome != Outcome::Failed, "{law} on {}: {reason}", line.backend);
    match &kept {
        Some(kept) => println!("{law} on {}: {} {reason}", line.backend, kept.looked),
        None => println!("{law} on {}: skipped: {reason}", line.backend),
    }
    kept
}

/// Runs one law; never panics, whatever becomes of it.
pub async fn run<H, F>(law: StoreLaw, start: impl FnOnce() -> F) -> (Line, Option<Kept>)
where
    H: StoreHarness,
    F: Future<Output = Result<H, Absent>>,
{
    let began = Instant::now();
    let h = match start().await {
        Ok(h) => h,
        Err(absent) => {
            let failed = absent.broken || is_required(absent.backend);
            let outcome = if failed { Outcome::Failed } else { Outcome::Skipped };
            let reason = Some(absent.reason);
            return (Line::of_store(absent.backend, false, law, outcome, reason, began.elapsed()), None);
        }
    };
    let (outcome, reason, kept) = match h.skips().iter().find(|(skipped, _)| *skipped == law) {
        Some((_, reason)) => (Outcome::Skipped, Some((*reason).to_owned()), None),
        None => judge(check(law, &h).await),
    };
    h.finish().await;
    let line = Line::of_store(h.name(), h.is_real(), law, outcome, reason, began.elapsed()).with_version(h.version());
    (line, kept)
}

/// Tests one law on a harness that is fresh, within a limit of real time.
pub async fn check(law: StoreLaw, h: &dyn StoreHarness) -> StoreLawResult {
    within_real_time(STUCK, law.check(h)).await.unwrap_or_else(|| {
        let found = "none: a loop that does not pause, or a call without a deadline";
        Err(Violation::of(law, format!("an end within {STUCK:?}"), found))
    })
}

fn judge(result: StoreLawResult) -> (Outcome, Option<String>, Option<Kept>) {
    match result {
        Ok(StoreVerdict::Kept(kept)) if kept.without.is_empty() => (Outcome::Passed, None, Some(kept)),
        Ok(StoreVerdict::Kept(kept)) => {
            (Outcome::Passed, Some(format!("without: {}", kept.without.join("; "))), Some(kept))
        }
        Ok(StoreVerdict::NotApplicable(reason)) => {
            let said = format!("not applicable, which the harness does not announce among its skips: {reason}");
            (Outcome::Failed, Some(said), None)
        }
        Err(violation) => (Outcome::Failed, Some(violation.to_string()), None),
    }
}
