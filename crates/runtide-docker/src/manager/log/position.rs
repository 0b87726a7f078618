//! The position that a log was read to, and the search for it in a second read of the same log.
//!
//! Neither a time nor a count identifies it: entries of two outputs are not in order of time, the parts of a long line share
//! one time, and a count means reading the whole log again. A position is the last entry (its hash) and the number of equal
//! entries in a row up to it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::SystemTime,
};

use runtide_core::manager::LogSource;

/// The position after the last entry that was read; the default is the log's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position(Option<LastEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct LastEntry {
    digest: u64,
    /// Equal entries in a row, this one included.
    repeats: u64,
}

fn digest(source: LogSource, at: Option<SystemTime>, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (source, at, bytes).hash(&mut hasher);
    hasher.finish()
}

impl Position {
    /// Moves the position behind this entry.
    pub(super) fn advance(&mut self, source: LogSource, at: Option<SystemTime>, bytes: &[u8]) {
        let digest = digest(source, at, bytes);
        match &mut self.0 {
            Some(last) if last.digest == digest => last.repeats = last.repeats.saturating_add(1),
            last => *last = Some(LastEntry { digest, repeats: 1 }),
        }
    }

    /// No entry was read yet.
    pub(super) fn is_start(&self) -> bool {
        self.0.is_none()
    }
}

/// The search for a position in a second read of the log.
#[derive(Debug)]
pub(super) struct Search {
    position: Position,
    /// Entries in a row, so far, that equal the position's last one.
    repeats: u64,
    /// Only equal entries came yet, and the row may have begun before this read did.
    is_cut: bool,
    from_the_beginning: bool,
    found: bool,
}

impl Search {
    pub(super) fn new(position: Position, from_the_beginning: bool) -> Self {
        let found = position.is_start();
        Self { position, repeats: 0, is_cut: !from_the_beginning, from_the_beginning, found }
    }

    /// Takes the next entry; `true` if it is behind the position.
    pub(super) fn is_past(&mut self, source: LogSource, at: Option<SystemTime>, bytes: &[u8]) -> bool {
        if self.found {
            return true;
        }
        let Some(last) = &self.position.0 else { return true };
        if digest(source, at, bytes) == last.digest {
            self.repeats += u64::from(!self.is_cut);
        } else {
            (self.repeats, self.is_cut) = (0, false);
        }
        self.found = self.repeats > 0 && self.repeats == last.repeats;
        false
    }

    /// `true` if this read began at the log's start, so that no earlier entry is left to search.
    pub(super) fn is_everything(&self) -> bool {
        self.from_the_beginning
    }

    /// `true` once the position was reached.
    pub(super) fn is_found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(read: &str, again: &str, from_the_beginning: bool) -> Option<String> {
        let mut position = Position::default();
        for byte in read.bytes() {
            position.advance(LogSource::Stdout, None, &[byte]);
        }
        let mut search = Search::new(position, from_the_beginning);
        let rest =
            again.bytes().filter(|byte| search.is_past(LogSource::Stdout, None, &[*byte])).map(char::from).collect();
        search.is_found().then_some(rest)
    }

    #[test]
    fn the_entries_behind_the_position_are_found() {
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
        let mut position = Position::default();
        position.advance(LogSource::Stdout, Some(SystemTime::UNIX_EPOCH), b"x");
        let mut search = Search::new(position, true);
        assert!(!search.is_past(LogSource::Stderr, Some(SystemTime::UNIX_EPOCH), b"x"));
        assert!(!search.is_past(LogSource::Stdout, None, b"x"));
        assert!(!search.is_found());
        assert!(!search.is_past(LogSource::Stdout, Some(SystemTime::UNIX_EPOCH), b"x"));
        assert!(search.is_past(LogSource::Stdout, None, b"y"));
    }
}
