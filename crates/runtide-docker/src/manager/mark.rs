//! How far a log was read, and finding that place again in another reading of the same log.
//!
//! Neither a time nor a count will do: entries of two outputs are not in order of time, the parts of a long line share one,
//! and a count means reading all of it again. What is kept is the last entry (a hash of it) and how many like it came in a
//! row; the place is after so many of them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::SystemTime,
};

use runtide_core::manager::LogSource;

/// The place after the last entry that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark(Option<Run>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    entry: u64,
    times: u64,
}

fn digest(source: LogSource, at: Option<SystemTime>, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (source, at, bytes).hash(&mut hasher);
    hasher.finish()
}

impl Mark {
    /// One more entry was read.
    pub(super) fn note(&mut self, source: LogSource, at: Option<SystemTime>, bytes: &[u8]) {
        let entry = digest(source, at, bytes);
        match &mut self.0 {
            Some(run) if run.entry == entry => run.times = run.times.saturating_add(1),
            last => *last = Some(Run { entry, times: 1 }),
        }
    }

    /// Nothing was read yet.
    pub(super) fn is_start(&self) -> bool {
        self.0.is_none()
    }
}

/// Looks for a mark in another reading.
#[derive(Debug)]
pub(super) struct Search {
    mark: Mark,
    /// Equal entries in a row so far.
    times: u64,
    /// Nothing but equal entries came yet, and the row may have begun before the reading did.
    is_cut: bool,
    from_the_beginning: bool,
    found: bool,
}

impl Search {
    pub(super) fn new(mark: Mark, from_the_beginning: bool) -> Self {
        let found = mark.is_start();
        Self { mark, times: 0, is_cut: !from_the_beginning, from_the_beginning, found }
    }

    /// Whether this entry comes after the mark.
    pub(super) fn is_past(&mut self, source: LogSource, at: Option<SystemTime>, bytes: &[u8]) -> bool {
        if self.found {
            return true;
        }
        let Some(run) = &self.mark.0 else { return true };
        if digest(source, at, bytes) == run.entry {
            self.times += u64::from(!self.is_cut);
        } else {
            (self.times, self.is_cut) = (0, false);
        }
        self.found = self.times > 0 && self.times == run.times;
        false
    }

    /// Whether all of the log was searched.
    pub(super) fn is_everything(&self) -> bool {
        self.from_the_beginning
    }

    /// Whether the mark was met.
    pub(super) fn is_found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(read: &str, again: &str, from_the_beginning: bool) -> Option<String> {
        let mut mark = Mark::default();
        for byte in read.bytes() {
            mark.note(LogSource::Stdout, None, &[byte]);
        }
        let mut search = Search::new(mark, from_the_beginning);
        let rest =
            again.bytes().filter(|byte| search.is_past(LogSource::Stdout, None, &[*byte])).map(char::from).collect();
        search.is_found().then_some(rest)
    }

    #[test]
    fn what_comes_after_the_mark_is_found() {
        assert_eq!(after("abc", "abcde", true).as_deref(), Some("de"));
        assert_eq!(after("abc", "bcde", false).as_deref(), Some("de"));
        assert_eq!(after("abc", "abc", false).as_deref(), Some(""));
        assert_eq!(after("abb", "abbbb", true).as_deref(), Some("bb"));
        assert_eq!(after("abb", "abbc", true).as_deref(), Some("c"));
        assert_eq!(after("", "ab", true).as_deref(), Some("ab"));
    }

    #[test]
    fn a_row_whose_beginning_is_not_seen_is_not_guessed() {
        assert_eq!(after("abbb", "bbbb", false), None);
        assert_eq!(after("aaaa", "aaaab", true).as_deref(), Some("b"));
        assert_eq!(after("abc", "xyz", true), None);
    }

    #[test]
    fn entries_differ_by_output_and_time_too() {
        let mut mark = Mark::default();
        mark.note(LogSource::Stdout, Some(SystemTime::UNIX_EPOCH), b"x");
        let mut search = Search::new(mark, true);
        assert!(!search.is_past(LogSource::Stderr, Some(SystemTime::UNIX_EPOCH), b"x"));
        assert!(!search.is_past(LogSource::Stdout, None, b"x"));
        assert!(!search.is_found());
        assert!(!search.is_past(LogSource::Stdout, Some(SystemTime::UNIX_EPOCH), b"x"));
        assert!(search.is_past(LogSource::Stdout, None, b"y"));
    }
}
