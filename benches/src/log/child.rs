//! [`Child`]: the bench's own executable as another process, killed with a log open or measured while it replays. The child's
//! side is in [`role`](super::role).

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

pub(super) const LEAVE_OPEN: &str = "--leave-log-open";
pub(super) const REPLAY: &str = "--replay-log";
pub(super) const VERIFY: &str = "--verify-log";

/// Another process of this executable.
#[derive(Debug)]
pub struct Child;

impl Child {
    /// Starts a child whose contender opens the log and appends to it, and kills the child: the folder is then as a crash of
    /// the process leaves it.
    pub fn leaves_open(name: &str, dir: &Path) {
        let mut child = Self::command(LEAVE_OPEN, name, dir).stdin(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert!(matches!(read, Some(Ok(_))) && line.trim() == "open", "{name} did not open its log");
    }

    /// Most bytes by which a contender's memory grows while it replays.
    pub fn replays(name: &str, dir: &Path) -> u64 {
        Self::numbers(REPLAY, name, dir).first().copied().expect("a number of bytes")
    }

    /// Time to verify a contender's log, and the child's peak memory in bytes.
    pub fn verifies(name: &str, dir: &Path) -> (Duration, u64) {
        let numbers = Self::numbers(VERIFY, name, dir);
        let [nanos, peak] = numbers.as_slice() else { panic!("the child printed {numbers:?}") };
        (Duration::from_nanos(*nanos), *peak)
    }

    /// The numbers that the child prints.
    fn numbers(role: &str, name: &str, dir: &Path) -> Vec<u64> {
        let output = Self::command(role, name, dir).output().expect("a process");
        String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    fn command(role: &str, name: &str, dir: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this executable"));
        command.args([role, name]).arg(dir).stdout(Stdio::piped());
        if crate::is_trial() {
            command.arg("--test");
        }
        command
    }
}
