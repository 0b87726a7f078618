//! Parser of the output of `cargo test`.

use std::ops::AddAssign;

/// Tests that passed, failed and did not run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Sums over the lines of one `cargo test`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// The tests that failed, by name.
    pub(crate) failures: Vec<String>,
    /// The tests that failed beside others and passed alone, by name. They count as passed.
    pub(crate) flaky: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.failures.extend(other.failures);
        self.flaky.extend(other.flaky);
    }
}

impl Tally {
    /// The same, each failure with the name of its program.
    pub(crate) fn of(self, program: &str) -> Self {
        let failures = self.failures.into_iter().map(|failure| format!("{program}: {failure}")).collect();
        Self { failures, ..self }
    }

    /// A test that failed has passed when it ran again.
    pub(crate) fn passed_again(&mut self, name: &str) {
        let Some(at) = self.failures.iter().position(|failure| failure == name) else { return };
        self.flaky.push(self.failures.remove(at));
        self.counts.failed -= 1;
        self.counts.passed += 1;
    }

    pub(crate) fn take(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(counts) = result_line(line) {
            self.counts += counts;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s`
fn result_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_verdict, numbers) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => {}
        }
    }
    Some(counts)
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 2 tests\n",
            "test watch::ring::a_lagging_cursor_is_told ... ok\n",
            "test watch::ring::drop_closes ... FAILED\n",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 4 filtered out; finished in 1.00s\n",
        ] {
            tally.take(line);
        }
        assert_eq!(tally.counts, Counts { passed: 13, failed: 1, skipped: 3 });
        assert_eq!(tally.failures, ["watch::ring::drop_closes"]);
    }

    #[test]
    fn a_test_that_passes_again_is_flaky_and_no_failure() {
        let mut tally = Tally::default();
        for line in ["test a ... FAILED", "test b ... FAILED", "test result: FAILED. 3 passed; 2 failed"] {
            tally.take(line);
        }
        let mut tally = tally.of("it");
        tally.passed_again("it: b");
        tally.passed_again("it: of no failure");
        assert_eq!(tally.counts, Counts { passed: 4, failed: 1, skipped: 0 });
        assert_eq!((&tally.failures[..], &tally.flaky[..]), (&["it: a".to_owned()][..], &["it: b".to_owned()][..]));
    }

    #[test]
    fn colours_do_not_hide_a_result() {
        let mut tally = Tally::default();
        tally.take(
            "test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.counts.passed, 5);
    }

    #[test]
    fn a_test_that_prints_a_result_like_line_in_a_sentence_is_not_counted() {
        let mut tally = Tally::default();
        tally.take("it said: test result: ok. 5 passed; 0 failed\n");
        tally.take("test result: nothing\n");
        assert_eq!(tally.counts, Counts::default());
    }
}
