//! [`LeftOut`]: the containers that a list request must leave out, since Podman lists all or none.
//!
//! One container whose state it cannot read, as one whose network namespace is gone (Podman before 5.0), makes every listing answer
//! 500. The error names it; a listing of all others and its own inspection together show what there is.

use std::collections::{BTreeMap, BTreeSet};

use runtide_core::{Error, InstanceId};

use crate::client::is_status;

/// Containers left out at most; a service with more of them is broken as a whole.
const MOST: usize = 16;

/// Digits of an id that tell one container from any other, as its short id does.
const TELLING: usize = 12;

/// Ids that a list request leaves out.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(BTreeSet<InstanceId>);

impl LeftOut {
    /// Leaves out the container to which this answer is due; `false`: the answer is due to none, or to one that was left out.
    pub(crate) fn learn(&mut self, refusal: &Error) -> bool {
        if !is_status(refusal, "500") || self.0.len() == MOST {
            return false;
        }
        let mut words = refusal.message().split(|c: char| !c.is_ascii_alphanumeric());
        let id = words.find(|word| word.len() == 64 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        id.is_some_and(|id| self.0.insert(InstanceId::from(id)))
    }

    pub(crate) fn contains(&self, id: &InstanceId) -> bool {
        self.0.contains(id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &InstanceId> {
        self.0.iter()
    }

    /// Patterns of which every other container's id matches one, and none that is left out; empty if none is. Podman takes any filter
    /// for ids as a regular expression, which in Go cannot say *not*: so an id matches where it first differs from all of these.
    pub(crate) fn all_others(&self) -> Vec<String> {
        let mut next: BTreeMap<&str, BTreeSet<char>> = BTreeMap::new();
        for id in self.0.iter().map(InstanceId::as_str) {
            for (at, digit) in id.char_indices().take(TELLING) {
                next.entry(id.get(..at).unwrap_or_default()).or_default().insert(digit);
            }
        }
        next.into_iter()
            .map(|(begin, digits)| format!("^{begin}[^{}]", digits.into_iter().collect::<String>()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::ErrorKind;

    use super::*;

    fn refusal(status: &str, message: &str) -> Error {
        Error::new(ErrorKind::Unexpected, "podman.list", message.to_owned()).with_context("status", status)
    }

    /// As Go's `regexp` and Podman match: one pattern of any.
    fn is_listed(patterns: &[String], id: &str) -> bool {
        patterns.iter().any(|pattern| {
            let (begin, not) = pattern.strip_prefix('^').unwrap().strip_suffix(']').unwrap().split_once("[^").unwrap();
            id.strip_prefix(begin).and_then(|rest| rest.chars().next()).is_some_and(|next| !not.contains(next))
        })
    }

    #[test]
    fn the_container_to_which_a_failed_list_is_due_is_left_out_and_no_other() {
        let (one, two) = ("a1b2".repeat(16), format!("a1b2{}", "0".repeat(60)));
        let mut out = LeftOut::default();
        assert!(out.all_others().is_empty());
        for id in [&one, &two] {
            let message =
                format!("joining network namespace of container {id}: failed to Statfs \"/run/netns/netns-1\"");
            assert!(out.learn(&refusal("500", &message)), "{message}");
            assert!(!out.learn(&refusal("500", &message)), "it was left out, and the list failed all the same");
        }
        let patterns = out.all_others();
        assert!(!is_listed(&patterns, &one) && !is_listed(&patterns, &two), "{patterns:?}");
        for other in ["b".repeat(64), "a1b2c".repeat(13), format!("a1b2a1b2a1b{}", "0".repeat(53)), "0".repeat(64)] {
            assert!(is_listed(&patterns, &other), "{other}: {patterns:?}");
        }
    }

    #[test]
    fn another_failure_leaves_nothing_out() {
        let id = "a".repeat(64);
        let mut out = LeftOut::default();
        for (status, message) in [("404", id.as_str()), ("500", "database is locked"), ("500", "container web")] {
            assert!(!out.learn(&refusal(status, message)), "{status} {message}");
        }
        for n in 0..MOST {
            assert!(out.learn(&refusal("500", &format!("container {n:064x}"))));
        }
        assert!(!out.learn(&refusal("500", &format!("container {id}"))), "a list has a bound");
    }
}
