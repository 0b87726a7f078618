//! [`Change`]: the items of a [`TransitionStream`](super::TransitionStream).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Evidence, Transition};
use crate::{
    completeness::Completeness,
    error::Failure,
    event::{Continuity, FieldSet, Gap},
};

/// One item of a [`TransitionStream`](super::TransitionStream): a step of one instance, or news of the link to the runtime.
///
/// From `Synced` to the next `Offline`, the stream's table shows everything that the runtime has shown, and every lifecycle edge
/// that it reports is a `Step`. A loop that acts on steps alone takes [`Change::step`]; one that serves requests from the
/// table is ready from `Synced` on, and knows all instances from a `Synced` that is complete.
///
/// `Display` is one line, with `+`, `~` or `-` for a step, `=` for `Synced` and `!` for the link: `= complete (the watch begins)`,
/// `= partial (the watch begins), not read: no number in 'db'`. Control characters in names and messages are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// One step of one instance.
    Step(Transition),
    /// The table shows everything that the runtime has shown, also where that is nothing. It ends the steps of every resync, the
    /// first one included, and the missed steps after an `Online` without a loss.
    Synced {
        /// Reason of the resync that ends here; `None`: nothing was missed, and what happened in between came as reported steps.
        gap: Option<Gap>,
        /// `Partial`: an instance that was cut off or could not be read is not in the table, unless an earlier listing showed it.
        /// Once a listing is complete, another `Synced` says so.
        completeness: Completeness,
    },
    /// The runtime cannot be reached, and the table may be stale from here. Once per outage, and at once if the runtime is
    /// down when the watch opens. The watch tries again indefinitely.
    Offline {
        /// `None`: the runtime closed the stream cleanly.
        cause: Option<Failure>,
    },
    /// The outage is over; `Synced` follows.
    Online {
        /// `Resumed`: the missed steps follow as reported, then `Synced`; until then the table is
        /// [`Replaying`](super::Freshness). `Lost`: a comparison shows their net effects.
        continuity: Continuity,
    },
}

impl Change {
    /// The step; `None` for news of the link.
    pub fn step(&self) -> Option<&Transition> {
        match self {
            Self::Step(step) => Some(step),
            _ => None,
        }
    }

    /// The step, by value; `None` for news of the link.
    pub fn into_step(self) -> Option<Transition> {
        match self {
            Self::Step(step) => Some(step),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Synced { gap, completeness } => {
                f.write_str(match completeness {
                    Completeness::Complete => "= complete",
                    Completeness::Partial(_) => "= partial",
                    Completeness::Unknown => "= perhaps partial",
                })?;
                match gap {
                    Some(gap) => write!(f, " ({gap})")?,
                    None => f.write_str(" (nothing was missed)")?,
                }
                let Some((first, others)) = completeness.failures().split_first() else { return Ok(()) };
                write!(f, ", not read: {}", Printable(&first.message))?;
                if others.is_empty() { Ok(()) } else { f.write_str(", and others") }
            }
            Self::Offline { cause: Some(cause) } => write!(f, "! offline: {}", Printable(&cause.message)),
            Self::Offline { cause: None } => f.write_str("! offline: the runtime closed the stream"),
            Self::Online { continuity: Continuity::Resumed } => f.write_str("! online: the missed steps follow"),
            Self::Online { .. } => f.write_str("! online: a comparison follows"),
        }
    }
}

/// Most fields that a line names.
const FIELDS: usize = 3;

// Here, with the text of the other items, so that `table` has no words for people.
impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(new)) => write!(f, "+ {} is {}", Printable(&new.name), new.state)?,
            (Some(old), Some(now)) => {
                write!(f, "~ {} is {}", Printable(&now.name), now.state)?;
                if old.state == now.state {
                    let changed = FieldSet::between(old, now);
                    let (shown, more) =
                        (changed.iter().take(FIELDS).collect::<Vec<_>>().join(","), changed.iter().nth(FIELDS));
                    write!(f, ", changed: {shown}{}", if more.is_some() { ",.." } else { "" })?;
                }
            }
            (Some(old), None) => write!(f, "- {} is gone", Printable(&old.name))?,
            (None, None) => f.write_str("nothing changed")?,
        }
        match self.evidence {
            Evidence::Reported => Ok(()),
            Evidence::Net(gap) => write!(f, " (by comparison: {gap})"),
        }
    }
}

/// Text from outside, as one line: a terminal would obey its control characters.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|char| f.write_char(if char.is_control() { '?' } else { char }))
    }
}
