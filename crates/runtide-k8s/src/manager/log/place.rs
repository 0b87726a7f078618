//! The place that a reader has reached in an output, by the times of its lines.
//!
//! The server gives the output from a whole second on. Times of lines need not rise: each of the two outputs is stamped on its own, so
//! that a line may be up to a moment older than the one before. So the output is asked for again from the second before that of the
//! latest line on, and as many lines are skipped as were delivered from then on.

use jiff::Timestamp;

#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Earlier lines are not wanted.
    since: Option<Timestamp>,
    /// Second of the latest line, and the lines that were delivered of the second before, and of it.
    second: Option<i64>,
    before: u64,
    within: u64,
    /// Lines that come again.
    skip: u64,
    /// `true` while the earliest line that was delivered is the earliest that is wanted: the output was read from a line near its end.
    is_tail: bool,
    earliest: Option<Timestamp>,
}

impl Place {
    pub(super) fn new(since: Option<Timestamp>) -> Self {
        Self { since, ..Self::default() }
    }

    /// True once a line was delivered.
    pub(super) fn is_known(&self) -> bool {
        self.second.is_some()
    }

    /// The request that follows is for the last lines alone.
    pub(super) fn begins_with_tail(&mut self) {
        self.is_tail = true;
    }

    /// Nothing was there to be delivered before this time.
    pub(super) fn begins_at(&mut self, time: Timestamp) {
        self.since = self.since.max(Some(time));
    }

    /// The output is asked for again; returns the second from which on.
    pub(super) fn again(&mut self) -> Option<Timestamp> {
        self.since = self.since.max(self.earliest);
        self.skip = self.before + self.within;
        let second =
            self.second.map(|second| second.saturating_sub(1)).or_else(|| self.since.map(Timestamp::as_second));
        second.and_then(|second| Timestamp::from_second(second).ok())
    }

    /// The output of another run begins, of which nothing was read.
    pub(super) fn next_run(&mut self) {
        *self = Self::new(self.since);
    }

    /// True if the line is wanted, and was not delivered before.
    pub(super) fn takes(&mut self, at: Timestamp) -> bool {
        if self.since.is_some_and(|since| at < since) {
            return false;
        }
        let second = at.as_second();
        let ahead = self.second.map_or(i64::MAX, |reached| second.saturating_sub(reached));
        if self.skip > 0 && ahead >= -1 {
            self.skip -= 1;
            return false;
        }
        if self.is_tail {
            self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
        }
        match ahead {
            ..=-2 => {}
            -1 => self.before += 1,
            0 => self.within += 1,
            1.. => {
                self.before = if ahead == 1 { self.within } else { 0 };
                (self.second, self.within) = (Some(second), 1);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-12-01T00:00:{text}Z").parse().unwrap()
    }

    /// The lines that a server gives from this second on.
    fn from(all: &[&str], second: Option<Timestamp>) -> Vec<Timestamp> {
        all.iter().map(|text| at(text)).filter(|time| second.is_none_or(|second| *time >= second)).collect()
    }

    #[test]
    fn an_output_that_is_read_again_at_any_line_repeats_none_and_loses_none() {
        // Two lines at one moment, and two whose order is not that of their times, also across a second.
        let all = ["01.2", "01.9", "01.9", "02.1", "01.95", "02.0", "02.1", "04", "04", "03.9", "05.5"];
        for cut in 0..=all.len() {
            for second_cut in cut..=all.len() {
                let mut place = Place::new(None);
                let mut got = 0;
                for end in [cut, second_cut, all.len()] {
                    for time in from(&all, place.again()) {
                        if got < end && place.takes(time) {
                            assert_eq!(time, at(all[got]), "{cut} {second_cut}");
                            got += 1;
                        } else if got == end {
                            break;
                        }
                    }
                }
                assert_eq!(got, all.len(), "{cut} {second_cut}");
            }
        }
    }

    #[test]
    fn a_tail_that_is_read_again_does_not_grow_at_its_beginning() {
        let mut place = Place::new(None);
        assert_eq!(place.again(), None);
        place.begins_with_tail();
        assert!(place.takes(at("01.5")) && place.takes(at("01.4")));
        let again = place.again();
        assert_eq!(again, Some(at("00")));
        let all = from(&["01.1", "01.2", "01.5", "01.4", "01.6"], again);
        assert_eq!(all.into_iter().filter(|time| place.takes(*time)).collect::<Vec<_>>(), [at("01.6")]);
    }

    #[test]
    fn lines_before_the_time_asked_for_are_left_out_though_the_server_gives_whole_seconds() {
        let mut place = Place::new(Some(at("01.5")));
        assert_eq!(place.again(), Some(at("01")));
        let taken: Vec<_> =
            from(&["01.2", "01.5", "01.6"], None).into_iter().filter(|time| place.takes(*time)).collect();
        assert_eq!(taken, [at("01.5"), at("01.6")]);
        let again = place.again();
        let taken: Vec<_> =
            from(&["01.2", "01.5", "01.6", "01.7"], again).into_iter().filter(|time| place.takes(*time)).collect();
        assert_eq!(taken, [at("01.7")]);
    }
}
