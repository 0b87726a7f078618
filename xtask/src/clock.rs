//! The minutes of a run: the start and the duration of each step.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::report;

/// Records the start and the end of steps, from several threads.
#[derive(Debug)]
pub(crate) struct Clock {
    begin: Instant,
    rows: Mutex<Vec<Row>>,
}

#[derive(Debug, Clone)]
struct Row {
    what: String,
    from: Duration,
    took: Duration,
}

/// Shortest step that the table lists.
const LEAST: Duration = Duration::from_secs(1);

impl Clock {
    pub(crate) fn start() -> Self {
        Self { begin: Instant::now(), rows: Mutex::default() }
    }

    /// Runs `work` and records its duration, however it ended.
    pub(crate) fn time<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let from = self.begin.elapsed();
        let done = work();
        let took = self.begin.elapsed().saturating_sub(from);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.push(Row { what: what.to_owned(), from, took });
        done
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The steps in the order in which they began; steps that ran in parallel overlap.
    pub(crate) fn table(&self) -> String {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rows.retain(|row| row.took >= LEAST);
        rows.sort_by_key(|row| row.from);
        let mut lines = vec![["minutes", "from", "took"].map(str::to_owned)];
        lines.extend(rows.into_iter().map(|row| [row.what, minutes(row.from), minutes(row.took)]));
        report::aligned(&lines)
    }
}

/// `3:07`
fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_in_which_they_began_and_short_ones_do_not() {
        let clock = Clock::start();
        let row = |what: &str, from: u64, took: u64| Row {
            what: what.to_owned(),
            from: Duration::from_secs(from),
            took: Duration::from_secs(took),
        };
        *clock.rows.lock().unwrap() = vec![row("docs", 70, 187), row("links", 1, 0), row("build", 2, 60)];
        let table = clock.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [vec!["minutes", "from", "took"], vec!["build", "0:02", "1:00"], vec!["docs", "1:10", "3:07"]];
        assert_eq!(lines.iter().filter(|line| !line.is_empty()).cloned().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_timed_step_runs_and_its_result_is_kept() {
        let clock = Clock::start();
        assert_eq!(clock.time("something", || 7), 7);
        assert_eq!(clock.rows.lock().unwrap().len(), 1);
    }
}
