//! Calls of the backend under test: each is timed against its deadline, and its error is judged.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::step_log::StepLog;

/// Time by which a call may outlast its deadline: the scheduler of a machine that is busy with daemons.
pub const SLACK: Duration = Duration::from_secs(5);

/// All calls of a run.
#[derive(Debug)]
pub(super) struct Calls {
    log: StepLog,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    /// Calls that ended, by verb.
    ended: BTreeMap<&'static str, u64>,
    /// Errors, by verb and kind.
    errors: BTreeMap<(&'static str, String), u64>,
    /// Faults that were caused, by kind.
    faults: BTreeMap<String, u64>,
    dropped: u64,
    beside: u64,
    /// The most by which a call outlasted its deadline.
    latest: Duration,
    wrong: Vec<String>,
    is_calm: bool,
    /// Times that connections were cut while both ends lived.
    cuts: u64,
}

/// A call of the backend.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) verb: &'static str,
    /// Name of the object.
    pub(super) on: String,
    /// The longest time that it may take by contract; `None`: as long as an instance runs.
    pub(super) limit: Option<Duration>,
    /// Time after which the caller drops it.
    pub(super) hurry: Option<Duration>,
}

/// The longest wait for what has no limit by contract, and for a step of the harness.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

impl Calls {
    pub(super) fn new() -> Self {
        Self { log: StepLog::new(), tally: Mutex::default() }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on there are no faults, or there are.
    pub(super) fn calm(&self, is_calm: bool) {
        self.tally().is_calm = is_calm;
    }

    pub(super) fn note(&self, step: impl fmt::Display) {
        self.log.note(step);
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Notes what must not be, and goes on: the check point ends the run.
    pub(super) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format_args!("WRONG: {what}"));
        self.tally().wrong.push(what);
    }

    /// As [`wrong`](Self::wrong), if there was no fault that could explain it.
    pub(super) fn wrong_if_calm(&self, what: impl Into<String>) {
        if self.tally().is_calm {
            self.wrong(what);
        }
    }

    pub(super) fn wrongs(&self) -> Vec<String> {
        self.tally().wrong.clone()
    }

    /// Counts a step of the harness.
    pub(super) fn beside(&self, step: impl fmt::Display, outcome: impl fmt::Display) {
        self.note(format_args!("beside: {step}: {outcome}"));
        self.tally().beside += 1;
    }

    /// Notes that connections are about to be cut.
    pub(super) fn cut(&self) {
        self.tally().cuts += 1;
    }

    pub(super) fn cuts(&self) -> u64 {
        self.tally().cuts
    }

    /// Counts a fault that was caused.
    pub(super) fn fault(&self, fault: &impl fmt::Debug) {
        let kind = format!("{fault:?}");
        let kind = kind.split(['(', ' ']).next().unwrap_or_default().to_owned();
        *self.tally().faults.entry(kind).or_default() += 1;
    }

    pub(super) fn faults(&self) -> BTreeMap<String, u64> {
        self.tally().faults.clone()
    }

    /// Makes a call, and returns its value unless it failed or was dropped.
    pub(super) async fn make<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Option<T> {
        let began = Instant::now();
        let deadline = call.limit.map_or(PATIENCE, |limit| limit + SLACK);
        let ended = tokio::time::timeout(call.hurry.unwrap_or(deadline).min(deadline), work).await;
        let took = began.elapsed();
        let Call { verb, on, limit, hurry } = call;
        match ended {
            Ok(outcome) => {
                let late = limit.map_or(Duration::ZERO, |limit| took.saturating_sub(limit));
                let shown = outcome.as_ref().map_or_else(|error| format!("{error:#}"), |_| "ok".to_owned());
                self.note(format_args!("{verb} {on}: {shown} ({} ms)", took.as_millis()));
                {
                    let mut tally = self.tally();
                    *tally.ended.entry(verb).or_default() += 1;
                    tally.latest = tally.latest.max(late);
                }
                outcome.inspect_err(|error| self.judge(verb, &on, error)).ok()
            }
            Err(_) if hurry.is_some_and(|hurry| hurry <= deadline) => {
                self.note(format_args!("{verb} {on}: dropped after {} ms", took.as_millis()));
                self.tally().dropped += 1;
                None
            }
            Err(_) => {
                let hung = format!("{verb} of {on} had not ended after {took:?}");
                match limit {
                    Some(limit) => self.wrong(format!("{hung}: its limit is {limit:?}, and {SLACK:?} on top")),
                    None => self.wrong_if_calm(format!("{hung}, and there was no fault")),
                }
                None
            }
        }
    }

    /// Counts an error, and notes one that nothing explains.
    fn judge(&self, verb: &'static str, on: &str, error: &Error) {
        let is_calm = {
            let mut tally = self.tally();
            *tally.errors.entry((verb, error.kind().to_string())).or_default() += 1;
            tally.is_calm
        };
        let explained = match error.kind() {
            // The object's own state, or a busy machine.
            ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::Timeout => true,
            // An import whose source broke off is the caller's.
            ErrorKind::InvalidInput => verb == "import" && !is_calm,
            ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
            | ErrorKind::Unauthenticated
            | ErrorKind::Corrupt
            | ErrorKind::Expired => false,
            _ => !is_calm,
        };
        if !explained {
            let when = if is_calm { ", and there was no fault" } else { "" };
            self.wrong(format!("{verb} of {on} failed with {}{when}: {error:#}", error.kind()));
        }
    }

    /// The counts, as lines of the report.
    pub(super) fn lines(&self) -> Vec<String> {
        let tally = self.tally();
        let sum: u64 = tally.ended.values().sum();
        let failed: u64 = tally.errors.values().sum();
        let by_verb: Vec<_> = tally.ended.iter().map(|(verb, count)| format!("{count} {verb}")).collect();
        let by_kind: Vec<_> =
            tally.errors.iter().map(|((verb, kind), count)| format!("{count} {verb}: {kind}")).collect();
        vec![
            format!(
                "{sum} calls of the backend ({failed} failed, {} dropped), {} beside it",
                tally.dropped, tally.beside
            ),
            format!("calls: {}", by_verb.join(", ")),
            format!("errors: {}", if by_kind.is_empty() { "none".to_owned() } else { by_kind.join(", ") }),
            format!("the latest call ended {:.1} s after its limit", tally.latest.as_secs_f64()),
        ]
    }
}
