//! The outcome of a law: kept, broken, or not applicable here.

use std::fmt::{self, Write as _};

use runtide_core::RuntimeEvent;

use crate::{Law, Obstacle};

/// The result of testing a law.
pub type LawResult<L = Law> = Result<Verdict, Violation<L>>;

/// The law was not broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The law held, as far as the harness could drive the runtime to the point.
    Kept(Kept),
    /// The harness cannot produce the situation that the law is about. A failure unless the harness lists it among its skips.
    NotApplicable(String),
}

/// The extent of a test that found no law broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The number of cases, where the law counts them.
    pub looked: Option<Looked>,
    /// Parts that were left out, each with its reason.
    pub without: Vec<String>,
}

/// The number of cases that a law inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The number.
    pub count: u64,
    /// The unit, as "crash states".
    pub what: &'static str,
}

impl Looked {
    pub(crate) fn at(count: u64, what: &'static str) -> Self {
        Self { count, what }
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.what)
    }
}

impl Verdict {
    /// The law held in full.
    pub fn kept() -> LawResult {
        Self::kept_without(Vec::new())
    }

    /// The law held, but for the parts that this runtime does not have.
    pub fn kept_without(without: Vec<String>) -> LawResult {
        Ok(Self::Kept(Kept { looked: None, without }))
    }

    /// The law held for this many cases.
    pub(crate) fn looked_at(count: u64, what: &'static str, without: Vec<String>) -> Self {
        Self::Kept(Kept { looked: Some(Looked::at(count, what)), without })
    }

    /// The runtime or its harness cannot show this law.
    pub fn not_applicable(reason: impl Into<String>) -> LawResult {
        Ok(Self::NotApplicable(reason.into()))
    }
}

/// A report's facts about a harness.
#[derive(Clone, Debug)]
pub struct Subject<'a, L: 'static> {
    /// The name of the backend, log or store that the laws are tested on.
    pub name: &'a str,
    /// `true` if it is more than a simulation in this process.
    pub is_real: bool,
    /// Its version.
    pub version: Option<String>,
    /// Laws that do not apply, each with the reason.
    pub skips: &'static [(L, &'static str)],
}

/// A broken law: the expectation, the finding, and the events before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation<L = Law> {
    /// The law that is broken; a law's test can find another one broken on its way.
    pub law: Option<L>,
    /// The expected state or behaviour.
    pub expected: String,
    /// The state or behaviour that was found.
    pub found: String,
    /// The events that led to it, oldest first, one line each.
    pub trail: Vec<String>,
}

impl<L> Violation<L> {
    /// A violation of `law`.
    pub fn of(law: L, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { law: Some(law), expected: expected.into(), found: found.into(), trail: Vec::new() }
    }

    /// The test could not be carried out; no law is to blame, and yet it is no success.
    pub fn harness(doing: impl Into<String>, obstacle: impl fmt::Display) -> Self {
        let expected = format!("the harness to {}", doing.into());
        Self { law: None, expected, found: obstacle.to_string(), trail: Vec::new() }
    }

    /// With the events that led to it, one line each.
    #[must_use]
    pub fn after(mut self, trail: impl IntoIterator<Item = String>) -> Self {
        if self.trail.is_empty() {
            self.trail = trail.into_iter().collect();
        }
        self
    }
}

impl From<Obstacle> for Violation {
    fn from(obstacle: Obstacle) -> Self {
        Self::harness("drive the runtime", obstacle)
    }
}

impl<L: fmt::Display> fmt::Display for Violation<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.law {
            Some(law) => write!(f, "{law}: ")?,
            None => f.write_str("harness: ")?,
        }
        write!(f, "expected {}; found {}", self.expected, self.found)?;
        for line in &self.trail {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

impl<L: fmt::Debug + fmt::Display> std::error::Error for Violation<L> {}

/// One event on one line, in the form of violations and traces.
pub fn line(event: &RuntimeEvent) -> String {
    use runtide_core::RuntimeEventKind as Kind;
    let epoch = event.cursor.epoch.as_str();
    let epoch = epoch.get(epoch.len().saturating_sub(6)..).unwrap_or(epoch);
    // Writing to a `String` cannot fail.
    let mut line = format!("{epoch}/{} {}", event.cursor.seq, event.kind.name());
    if let Some(instance) = event.instance() {
        let _ = write!(line, " {} '{}' {}", instance.id, instance.name, instance.state);
        if let Some(incarnation) = &instance.incarnation {
            let _ = write!(line, " incarnation={incarnation}");
        }
        if let Some(exit) = &instance.exit {
            let _ = write!(line, " exit={:?}", exit.end);
        }
    }
    match &event.kind {
        Kind::Updated { changed, .. } => drop(write!(line, " changed=[{changed}]")),
        Kind::BackendDisconnected { cause } => {
            line.push_str(&cause.as_ref().map_or_else(|| " closed cleanly".to_owned(), |cause| format!(" {cause}")));
        }
        Kind::BackendReconnected { continuity } => drop(write!(line, " {continuity:?}")),
        Kind::ResyncBegin { gap } => drop(write!(line, " {gap:?}")),
        _ => {}
    }
    if let Some(token) = &event.token {
        let _ = write!(line, " token={token}");
    }
    line
}

/// Returns a [`Violation`] of `$law` unless `$condition` holds.
macro_rules! ensure {
    ($condition:expr, $law:ident, $expected:expr, $found:expr $(,)?) => {
        if !$condition {
            return Err($crate::Violation::of($crate::Law::$law, $expected, $found));
        }
    };
}
pub(crate) use ensure;
