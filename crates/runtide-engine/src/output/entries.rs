//! [`Entries`]: the entries of a terminal's output that comes with times, pure.
//!
//! With a terminal the daemon sends no frames: the entries follow each other, each with its time in front, and nothing says where
//! one ends. Most end with a newline. These do not:
//!
//! * a part of a line that is longer than [`ENTRY`]: it has exactly that size, and the next part has the same time;
//! * the last part of such a line under the driver `local` (before Docker 23), which drops the newline there;
//! * the last output of a run, if the program wrote no newline. The next run's output follows.
//!
//! A time inside the output is the next entry's only if it is later than the entry's own. A program cannot print a time that is
//! later than that of its own line, which the daemon takes once the line is complete; and one that is ahead of the clock, as the
//! end of a certificate, is none of the daemon's.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use super::timestamp;

/// Bytes of an entry: the daemon cuts a longer line into entries of this size.
pub(super) const ENTRY: usize = 16 * 1024;

/// Bytes of an entry that goes on beyond [`ENTRY`], which come out together.
const MORE: usize = 32 * 1024;

/// The daemon's clock is at most this far ahead of ours.
const SKEW: Duration = Duration::from_secs(3600);

/// The daemon's own words in place of an entry.
const COMPLAINT: &[u8] = b"Error grabbing logs: ";

/// Position between the entries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    boundary: Boundary,
    /// Time of the present entry, or of the one before at a boundary.
    at: Option<SystemTime>,
    /// Bytes of the unfinished piece that were searched before, so that small chunks do not search them again and again.
    searched: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Boundary {
    /// An entry begins here.
    #[default]
    Sure,
    /// An entry of full size ended here, unless it goes on.
    Full,
    /// The entry goes on.
    None,
}

/// The next piece: the first `length` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) length: usize,
    pub(super) starts: bool,
    /// The daemon's own words, and no output.
    pub(super) complaint: bool,
}

impl Entries {
    /// Finds the end of the first piece in `bytes`; `None`: it needs more bytes, of which none are left if the output is `over`.
    pub(super) fn cut(&mut self, bytes: &[u8], over: bool) -> Option<Cut> {
        if bytes.is_empty() {
            return None;
        }
        let head = timestamp::parse(bytes);
        if self.boundary != Boundary::None && !over && timestamp::is_cut(bytes) {
            return None;
        }
        // A part of full size is followed by the next part, with the same time, or by a later entry.
        let starts = match self.boundary {
            Boundary::Sure => true,
            Boundary::Full => head.is_some_and(|(at, _)| self.at.is_none_or(|before| at >= before)),
            Boundary::None => false,
        };
        let (at, stamp) = match head.filter(|_| starts) {
            Some((at, length)) => (Some(at), length),
            None if starts => (None, 0),
            None => (self.at, 0),
        };
        let most = if starts { ENTRY } else { MORE };
        let payload = bytes.get(stamp..).unwrap_or_default();
        let window = payload.get(..most.min(payload.len())).unwrap_or_default();
        let searched = self.searched.min(window.len());
        let newline = window.iter().skip(searched).position(|byte| *byte == b'\n');
        let line = newline.map_or(window.len(), |at| searched + at + 1);
        let found = at.and_then(|at| next_entry(payload, searched..line, at));
        self.searched = window.len().saturating_sub(timestamp::LONGEST);
        let (length, boundary) = match (found, newline) {
            (Some(Found::At(next)), _) => (next, Boundary::Sure),
            (Some(Found::Open), _) if !over => return None,
            (_, Some(_)) => (line, Boundary::Sure),
            (_, None) if window.len() == most => (most, if starts { Boundary::Full } else { Boundary::None }),
            (_, None) if over => (line, Boundary::Sure),
            (_, None) => return None,
        };
        (self.at, self.boundary, self.searched) = (at, boundary, 0);
        let complaint = starts && stamp == 0 && payload.starts_with(COMPLAINT);
        Some(Cut { length: stamp + length, starts, complaint })
    }
}

enum Found {
    /// The next entry begins at this offset.
    At(usize),
    /// It may begin within the line; the bytes that decide are still to come.
    Open,
}

/// The begin of the next entry at one of these offsets, if there is one.
fn next_entry(payload: &[u8], offsets: Range<usize>, at: SystemTime) -> Option<Found> {
    let latest = SystemTime::now().checked_add(SKEW)?;
    for start in offsets {
        let rest = payload.get(start..)?;
        if rest.first().is_some_and(u8::is_ascii_digit) {
            match timestamp::parse(rest) {
                Some((next, _)) if next > at && next <= latest => return Some(Found::At(start)),
                None if timestamp::is_cut(rest) => return Some(Found::Open),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds after a moment in 2023, as the daemon writes them.
    fn stamp(nanos: u32) -> String {
        format!("2023-11-14T22:13:20.{nanos:09}Z ")
    }

    /// The pieces, without their times: text, and true if an entry begins.
    fn pieces(input: &str, chunk: usize) -> Vec<(String, bool)> {
        let (mut entries, mut found, mut held, mut fed) = (Entries::default(), Vec::new(), Vec::new(), 0);
        loop {
            let over = fed == input.len();
            while let Some(cut) = entries.cut(&held, over) {
                let piece: Vec<u8> = held.drain(..cut.length).collect();
                let text = String::from_utf8(piece).unwrap();
                let skip =
                    if cut.starts { timestamp::parse(text.as_bytes()).map_or(0, |(_, length)| length) } else { 0 };
                found.push((text[skip..].to_owned(), cut.starts));
            }
            if over {
                assert!(held.is_empty());
                return found;
            }
            let next = (fed + chunk).min(input.len());
            held.extend_from_slice(&input.as_bytes()[fed..next]);
            fed = next;
        }
    }

    fn entries(parts: &[(u32, &str)]) -> Vec<String> {
        let input: String = parts.iter().map(|(nanos, text)| stamp(*nanos) + text).collect();
        let whole = pieces(&input, input.len());
        for chunk in [1, 7, 30, 31, 32, 4096] {
            assert_eq!(pieces(&input, chunk), whole, "chunks of {chunk}");
        }
        assert!(whole.iter().all(|(_, starts)| *starts));
        whole.into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn entries_end_at_newlines() {
        assert_eq!(entries(&[(1, "a\r\n"), (2, "\n"), (3, "login: ")]), ["a\r\n", "\n", "login: "]);
    }

    #[test]
    fn each_part_of_a_long_line_is_an_entry() {
        let part = "x".repeat(ENTRY);
        for rest in ["y\r\n", "y\r", "\n", "y"] {
            // Under `local` the newline of the last part is missing.
            assert_eq!(entries(&[(1, &part), (1, &part), (1, rest), (2, "next\n")]), [&part, &part, rest, "next\n"]);
        }
        let almost = "x".repeat(ENTRY - 5);
        assert_eq!(entries(&[(1, &part), (1, &almost), (2, "next")]), [&*part, &almost, "next"]);
        assert_eq!(entries(&[(1, &part), (2, "next")]), [&*part, "next"]);
        assert_eq!(entries(&[(1, &part)]), [&*part]);
        assert_eq!(entries(&[(1, &part), (1, ""), (2, "next\n")]), [&*part, "", "next\n"], "only the newline was left");
    }

    #[test]
    fn a_run_that_ends_without_a_newline_is_followed_by_the_next_one() {
        assert_eq!(entries(&[(1, "one\n"), (2, "end"), (3, "next run\n")]), ["one\n", "end", "next run\n"]);
    }

    #[test]
    fn a_time_that_the_program_printed_is_its_output() {
        let own = format!("{}text\n", stamp(5));
        let inside = format!("at {}text\n", stamp(5));
        let ahead = "until 2099-01-01T00:00:00.000000000Z then\n";
        let kept = [(5, &*own), (6, &*own), (7, &*inside), (8, ahead), (9, "2023-11-14T22:13:20Z \n")];
        assert_eq!(entries(&kept), kept.map(|(_, text)| text));
    }

    #[test]
    fn a_long_entry_of_another_daemon_goes_on() {
        let long = "x".repeat(ENTRY + MORE + 10);
        let found = pieces(&format!("{}{long}\n{}next\n", stamp(1), stamp(2)), 1000);
        assert_eq!(found.iter().map(|(_, starts)| *starts).collect::<Vec<_>>(), [true, false, false, true]);
        let text: String = found.iter().map(|(text, _)| &**text).collect();
        assert_eq!(text, format!("{long}\nnext\n"));
    }

    #[test]
    fn the_daemons_own_words_are_no_output() {
        let text = b"Error grabbing logs: unexpected EOF\n";
        assert!(Entries::default().cut(text, true).unwrap().complaint);
        let said = format!("{}Error grabbing logs: x\n", stamp(1));
        assert!(!Entries::default().cut(said.as_bytes(), true).unwrap().complaint);
    }
}
