//! A program of the cluster: found by an argument that no other process has, also after its files are gone.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::log::Log;
use super::super::procfs;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::TICK;
use crate::workspace;

const DIE: Duration = Duration::from_secs(10);

pub(super) struct Program {
    pub(super) name: &'static str,
    /// The argument, with the path of something in the testbed's folder.
    pub(super) mark: String,
    log: PathBuf,
}

/// A program that was started just now, or that ran already.
pub(super) struct Started {
    child: Option<(Child, Log)>,
    name: &'static str,
    log: PathBuf,
}

impl Program {
    pub(super) fn new(folder: &Path, name: &'static str, mark: String) -> Self {
        Self { name, mark, log: folder.join(format!("{name}.log")) }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        let ours = |process: &procfs::Process| {
            // Not the `nsenter` that becomes the program.
            process.has_argument(&self.mark) && process.program().as_deref() != Some("nsenter")
        };
        procfs::processes().into_iter().find(ours).map(|process| process.pid)
    }

    /// Runs the command, to which the argument is added, unless the program runs.
    pub(super) fn start(&self, command: &mut Command) -> Outcome<Started> {
        let started = |child| Started { child, name: self.name, log: self.log.clone() };
        if self.pid().is_some() {
            return Ok(started(None));
        }
        let (out, err, log) = Log::open(self.log.clone())?;
        command
            .arg(&self.mark)
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child = command.spawn().doing(format_args!("cannot run {}", self.name))?;
        Ok(started(Some((child, log))))
    }

    /// Ends it, also if it is paused; `false` if it still runs after the limit.
    pub(super) fn end(&self, signal: Signal, limit: Duration) -> bool {
        let Some(pid) = self.pid() else { return true };
        procfs::send(pid, signal);
        procfs::send(pid, Signal::CONT);
        procfs::wait_until_dead(&[pid], limit)
    }

    pub(super) fn must_end(&self, signal: Signal, limit: Duration) -> Outcome<()> {
        if self.end(signal, limit) {
            return Ok(());
        }
        let seconds = limit.as_secs();
        Err(Failure::failed(format_args!("{} still runs after {seconds} s", self.name)))
    }

    /// SIGKILL, and wait.
    pub(super) fn kill(&self) -> Outcome<()> {
        self.must_end(Signal::KILL, DIE)
    }

    pub(super) fn signal(&self, signal: Signal) -> Outcome<()> {
        let Some(pid) = self.pid() else { return Err(Failure::failed(format_args!("{} does not run", self.name))) };
        procfs::send(pid, signal);
        Ok(())
    }
}

impl Started {
    pub(super) fn is_new(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until it answers.
    pub(super) fn until(mut self, limit: Duration, answers: impl Fn() -> bool) -> Outcome<()> {
        let (name, log) = (self.name, workspace::relative(&self.log));
        let end = Instant::now() + limit;
        while !answers() {
            if let Some((child, lines)) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                let why = lines.last_line(|_| true).unwrap_or_else(|| status.to_string());
                return Err(Failure::failed(format_args!("{name} does not start: {why} (see {log})")));
            }
            if Instant::now() >= end {
                let seconds = limit.as_secs();
                return Err(Failure::failed(format_args!("{name} does not answer after {seconds} s: see {log}")));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}
