//! The example `journal` as a process.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use runtide_core::{RuntimeEvent, wal::Anchor};

/// Deadline of any step.
const LIMIT: Duration = Duration::from_secs(120);

const SIGKILL: i32 = 9;

/// The example's program, which cargo builds next to the tests.
fn example() -> Command {
    let mut folder = env::current_exe().unwrap();
    folder.pop();
    folder.set_file_name("examples");
    let mut command = Command::new(folder.join("journal"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Verifies the journal with each of the anchors, also while it is written.
pub(crate) fn verify(dir: &Path, anchors: &[Anchor]) {
    for anchor in anchors {
        let said = example().arg("--dir").arg(dir).args(["--verify", &anchor.to_string()]).output().unwrap();
        assert!(said.status.success(), "{anchor}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

pub(crate) struct Journal {
    process: Child,
    events: Receiver<RuntimeEvent>,
}

impl Journal {
    pub(crate) fn start(dir: &Path, host: &str) -> Self {
        let mut command = example();
        command.arg("--dir").arg(dir).args(["--backend", "docker", "--host", host, "--json"]);
        let mut process = command.stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (out, events) = channel();
        // A line that a kill tears does not parse, and is skipped.
        let read = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        thread::spawn(move || read.take_while(|event: &RuntimeEvent| out.send(event.clone()).is_ok()).for_each(drop));
        Self { process, events }
    }

    fn next(&self, limit: Duration) -> Option<RuntimeEvent> {
        match self.events.recv_timeout(limit) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the journal ended by itself"),
        }
    }

    pub(crate) fn wait_for_events(&self, count: u32) {
        for number in 0..count {
            assert!(self.next(LIMIT).is_some(), "it reported only {number} events");
        }
    }

    pub(crate) fn wait_until_reported(&self, name: &str) {
        while self.next(LIMIT).expect("it reports it").instance().is_none_or(|instance| instance.name != name) {}
    }

    pub(crate) fn wait_until_quiet(&self, quiet: Duration) {
        while self.next(quiet).is_some() {}
    }

    /// Kills the journal, which must not have ended by itself.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        assert_eq!(self.process.wait().unwrap().signal(), Some(SIGKILL), "it ended by itself");
    }
}
