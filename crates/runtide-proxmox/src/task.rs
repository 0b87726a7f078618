//! [`TaskState`]: what became of a task, and its log.

use runtide_core::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::loose;

/// State of a task, from `GET /nodes/{node}/tasks/{upid}/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// The task has not ended.
    Running,
    /// The task did what it was for.
    Done {
        /// Warnings in its log.
        warnings: u32,
    },
    /// The task failed, in its own words.
    Failed(String),
    /// The task ended and left no result, as if its worker was killed: only the state of its object tells what was done.
    Unknown(String),
}

impl TaskState {
    /// Reads the data of the answer.
    ///
    /// # Errors
    ///
    /// [`Protocol`](ErrorKind::Protocol) if it has no `status` that is known.
    pub fn of(data: &Value) -> Result<Self> {
        let unknown =
            || Error::new(ErrorKind::Protocol, "proxmox.task", "the state of a task is neither running nor stopped");
        let row = data.as_object().ok_or_else(unknown)?;
        match loose::text(row, "status").as_deref() {
            Some("running") => Ok(Self::Running),
            Some("stopped") => Ok(match loose::text(row, "exitstatus") {
                Some(exit) => Self::of_exit(exit.trim()),
                None => Self::Unknown("the task ended without a result".to_owned()),
            }),
            _ => Err(unknown()),
        }
    }

    /// Reads the result of a task that ended.
    fn of_exit(exit: &str) -> Self {
        if exit == "OK" {
            return Self::Done { warnings: 0 };
        }
        if let Some(warnings) = exit.strip_prefix("WARNINGS: ").and_then(|count| count.trim().parse().ok()) {
            return Self::Done { warnings };
        }
        if exit == "unexpected status" || exit.starts_with("unable to get last line") {
            return Self::Unknown(exit.to_owned());
        }
        Self::Failed(exit.to_owned())
    }
}

/// One line of a task's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// Number of the line, from 1.
    pub number: u64,
    /// The text, without the end of the line.
    pub text: String,
}

/// Reads the data of `GET /nodes/{node}/tasks/{upid}/log`. An empty log is answered with one line `no content`, which is left out.
///
/// # Errors
///
/// [`Protocol`](ErrorKind::Protocol) if it is no list, or a line has no number.
pub fn log_lines(data: &Value) -> Result<Vec<LogLine>> {
    let malformed =
        || Error::new(ErrorKind::Protocol, "proxmox.task", "the log of a task is not a list of numbered lines");
    let mut lines = Vec::new();
    for row in data.as_array().ok_or_else(malformed)? {
        let row = row.as_object().ok_or_else(malformed)?;
        let number = loose::number(row, "n").ok_or_else(malformed)?;
        lines.push(LogLine { number, text: loose::text(row, "t").unwrap_or_default() });
    }
    if let [LogLine { number: 1, text }] = &lines[..]
        && text == "no content"
    {
        lines.clear();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warnings_are_done_and_a_lost_result_is_unknown() {
        let state = |exit: &str| TaskState::of(&json!({"status": "stopped", "exitstatus": exit})).unwrap();
        assert_eq!(state("OK"), TaskState::Done { warnings: 0 });
        assert_eq!(state("WARNINGS: 3"), TaskState::Done { warnings: 3 });
        assert_eq!(state("VM 100 already running"), TaskState::Failed("VM 100 already running".to_owned()));
        assert!(matches!(state("WARNINGS: many"), TaskState::Failed(_)));
        assert!(matches!(state("unexpected status"), TaskState::Unknown(_)));
        assert!(matches!(TaskState::of(&json!({"status": "stopped"})).unwrap(), TaskState::Unknown(_)));
        assert_eq!(TaskState::of(&json!({"status": "running"})).unwrap(), TaskState::Running);
        for data in [json!(null), json!([]), json!({}), json!({"status": "OK"})] {
            assert_eq!(TaskState::of(&data).unwrap_err().kind(), ErrorKind::Protocol, "{data}");
        }
    }

    #[test]
    fn an_empty_log_has_no_line() {
        assert_eq!(log_lines(&json!([{"n": 1, "t": "no content"}])).unwrap(), []);
        assert_eq!(log_lines(&json!([{"n": 2, "t": "no content"}])).unwrap().len(), 1);
        assert!(log_lines(&json!([{"t": "x"}])).is_err());
    }
}
