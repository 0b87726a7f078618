//! The state of one resource, and the results that a call on it may have there.

use runtide_core::store::{ApplyOutcome, Precondition, Revision};

/// The number in a body, which identifies it.
pub(super) type Body = u64;

/// A call on one resource, and its result.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Get(Option<(Body, u64)>),
    Apply(Body, Precondition, Gave<(ApplyOutcome, u64)>),
    Delete(Precondition, Gave<Option<u64>>),
}

/// The result of a write.
#[derive(Clone, Debug)]
pub(super) enum Gave<T> {
    Done(T),
    /// The actual revision, or `None` if the resource is absent.
    Conflict(Option<u64>),
    /// The store confirmed neither success nor failure.
    Unknown,
}

/// The state of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register {
    pub(super) body: Option<Body>,
    /// Revision of the stored body; `None` if its writer got no answer.
    pub(super) revision: Option<u64>,
    /// The last known revision: each later one is higher.
    pub(super) floor: u64,
}

impl Register {
    pub(super) const EMPTY: Self = Self { body: None, revision: None, floor: 0 };

    /// The same state, with its revision known, if that may be `revision`.
    fn at(&self, revision: u64) -> Option<Self> {
        match self.revision {
            _ if self.body.is_none() => None,
            Some(known) => (known == revision).then(|| self.clone()),
            None => (revision > self.floor).then(|| Self { revision: Some(revision), floor: revision, ..self.clone() }),
        }
    }

    /// The same state, if the precondition may hold in it.
    fn under(&self, precondition: Precondition) -> Option<Self> {
        match precondition {
            Precondition::Absent => self.body.is_none().then(|| self.clone()),
            Precondition::Is(Revision(revision)) => self.at(revision),
            _ => Some(self.clone()),
        }
    }

    /// The same state, if the precondition may fail in it with `actual` as the stored revision.
    fn against(&self, precondition: Precondition, actual: Option<u64>) -> Option<Self> {
        match (precondition, actual) {
            (Precondition::Absent, Some(actual)) => self.at(actual),
            (Precondition::Is(wanted), Some(actual)) if wanted.0 != actual => self.at(actual),
            (Precondition::Is(_), None) => self.body.is_none().then(|| self.clone()),
            _ => None,
        }
    }

    fn written(&self, body: Option<Body>, revision: Option<u64>) -> Option<Self> {
        let floor = revision.unwrap_or(self.floor);
        let rises = revision.is_none_or(|revision| revision > self.floor);
        rises.then_some(Self { body, revision: revision.filter(|_| body.is_some()), floor })
    }

    /// The state after a call, if the call may have had this result.
    pub(super) fn after(&self, op: &Op) -> Option<Self> {
        match *op {
            Op::Get(None) => self.body.is_none().then(|| self.clone()),
            Op::Get(Some((body, revision))) => self.at(revision).filter(|_| self.body == Some(body)),
            Op::Apply(body, precondition, Gave::Done((outcome, revision))) => {
                let state = self.under(precondition)?;
                match outcome {
                    ApplyOutcome::Created if state.body.is_none() => state.written(Some(body), Some(revision)),
                    ApplyOutcome::Changed if state.body.is_some_and(|there| there != body) => {
                        state.written(Some(body), Some(revision))
                    }
                    ApplyOutcome::Unchanged if state.body == Some(body) => state.at(revision),
                    _ => None,
                }
            }
            Op::Apply(body, precondition, Gave::Unknown) => self.under(precondition)?.written(Some(body), None),
            Op::Delete(precondition, Gave::Done(Some(revision))) => {
                let state = self.under(precondition).filter(|state| state.body.is_some())?;
                state.written(None, Some(revision))
            }
            Op::Delete(precondition, Gave::Done(None)) => self.under(precondition).filter(|state| state.body.is_none()),
            Op::Delete(precondition, Gave::Unknown) => {
                self.under(precondition).filter(|state| state.body.is_some())?.written(None, None)
            }
            Op::Apply(_, precondition, Gave::Conflict(actual)) | Op::Delete(precondition, Gave::Conflict(actual)) => {
                self.against(precondition, actual)
            }
        }
    }
}
