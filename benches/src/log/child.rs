//! The bench's own executable as another process: to be killed with a log open, or to be watched while it replays.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{large, memory, runtide::Runtide, work::Peer};

const LEAVE_OPEN: &str = "--leave-log-open";
const REPLAY: &str = "--replay-log";
const VERIFY: &str = "--verify-log";

/// To be called first in `main`: where this process was started to play a part, it does, and does not come back.
pub fn play_role(peers: &[&dyn Peer]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, name, dir, ..] = args.as_slice() else { return };
    if ![LEAVE_OPEN, REPLAY, VERIFY].contains(&role.as_str()) {
        return;
    }
    let dir = Path::new(dir);
    let peer = peers.iter().find(|peer| peer.name() == name).expect("a contender of this name");
    if role == REPLAY {
        println!("{}", memory::grown(|| peer.replay(dir)));
    } else if role == VERIFY {
        let (took, peak) = large::verified(dir);
        println!("{} {peak}", took.as_nanos());
    } else {
        let log = peer.left_open(dir);
        println!("open");
        // Until it is killed; should the bench have gone, its end of the pipe is closed.
        let _ = std::io::stdin().lines().next();
        std::mem::forget(log);
    }
    std::process::exit(0);
}

/// Another process of this executable.
#[derive(Debug)]
pub struct Child;

impl Child {
    /// Has a contender open the log and append to it, and kills it: what is in the folder then is what a crash leaves,
    /// short of a power cut.
    pub fn leaves_open(name: &str, dir: &Path) {
        let mut child = Self::command(LEAVE_OPEN, name, dir).stdin(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        let told = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert!(matches!(told, Some(Ok(_))) && line.trim() == "open", "{name} did not open its log");
    }

    /// By how many bytes a contender's memory grows at most while it replays.
    pub fn replays(name: &str, dir: &Path) -> u64 {
        Self::told(REPLAY, name, dir).first().copied().expect("a number of bytes")
    }

    /// How long it takes to verify Runtide's log, and the most bytes that the process held meanwhile.
    pub fn verifies(dir: &Path) -> (Duration, u64) {
        let told = Self::told(VERIFY, Runtide::NAME, dir);
        let [nanos, peak] = told.as_slice() else { panic!("it told {told:?}") };
        (Duration::from_nanos(*nanos), *peak)
    }

    /// The numbers that it prints.
    fn told(role: &str, name: &str, dir: &Path) -> Vec<u64> {
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
