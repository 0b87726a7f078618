//! [`Completeness`]: what a listing, and the rows that were made of one, may lack.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Failure;

/// Most failures that the mark of a resync carries.
const MARKED: usize = 16;

/// Completeness of a listing, of a resync, or of the rows of a table.
///
/// In JSON `"complete"`, `{"partial":[…]}` or `"unknown"`. Where a form of an earlier version has no such field, it is read as
/// `Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Completeness {
    /// Every page read, every item decoded, permissions as before: an instance that is not in it does not exist.
    Complete,
    /// The items or pages that could not be read. An instance that is not in it may exist. A resync and a table name at most
    /// 16 failures; [`list_instances`](crate::RuntimeBackend::list_instances) names all.
    Partial(Vec<Failure>),
    /// Not recorded: no resync has ended yet, or the record is of a version that did not say it. Unknown is not complete.
    #[default]
    Unknown,
}

impl Completeness {
    /// `true` if absence means that the instance does not exist.
    pub fn is_complete(&self) -> bool {
        *self == Self::Complete
    }

    /// The items or pages that could not be read, as far as they are named.
    pub fn failures(&self) -> &[Failure] {
        match self {
            Self::Partial(failures) => failures,
            Self::Complete | Self::Unknown => &[],
        }
    }

    /// The same with a bounded number of failures: each subscriber gets a copy, and a journal stores it.
    pub(crate) fn bounded(mut self) -> Self {
        if let Self::Partial(failures) = &mut self {
            failures.truncate(MARKED);
        }
        self
    }
}

/// A missing content is `Unknown`: for an adjacently tagged variant, serde offers it to an option alone.
impl<'de> Deserialize<'de> for Completeness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Written {
            Complete,
            Partial(Vec<Failure>),
            Unknown,
        }
        Ok(match Option::deserialize(deserializer)? {
            Some(Written::Complete) => Self::Complete,
            Some(Written::Partial(failures)) => Self::Partial(failures),
            Some(Written::Unknown) | None => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_mark_names_a_bounded_number_of_failures() {
        let failures = vec![Failure::new(ErrorKind::Protocol, "x.list", "no number"); 1_000];
        let marked = Completeness::Partial(failures).bounded();
        assert_eq!((marked.failures().len(), marked.is_complete()), (MARKED, false));
        assert_eq!(Completeness::Complete.bounded(), Completeness::Complete);
    }

    #[derive(Deserialize)]
    struct Older {
        completeness: Completeness,
    }

    #[test]
    fn what_is_not_written_is_unknown() {
        for value in [Completeness::Complete, Completeness::Partial(vec![]), Completeness::Unknown] {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Completeness>(&json).unwrap(), value);
        }
        assert_eq!(serde_json::from_str::<Older>("{}").unwrap().completeness, Completeness::Unknown);
        assert_eq!(serde_json::from_str::<Completeness>("null").unwrap(), Completeness::Unknown);
        assert!(serde_json::from_str::<Completeness>("\"whole\"").is_err());
    }
}
