//! The command of a container, as a process of this machine, and the file with its output.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::super::super::packages;

/// The command of a container, from its specification; `None` if it has none, and thus no process.
pub(super) fn command(spec: &Value, pod: &str) -> Option<Command> {
    let words = |key: &str| spec.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut all = words("command").chain(words("args"));
    let mut command = packages::command(all.next()?);
    command.args(all).env("HOSTNAME", pod).current_dir("/").process_group(0);
    for variable in spec.get("env").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| variable.get(key).and_then(Value::as_str);
        if let Some(name) = text("name") {
            command.env(name, text("value").unwrap_or_default());
        }
    }
    Some(command)
}

/// Runs it with its output into the log, and calls `ended` with its exit code; returns its process id.
pub(super) fn run(mut command: Command, log: &Path, ended: impl FnOnce(i32) + Send + 'static) -> std::io::Result<i32> {
    let file = Arc::new(Mutex::new(OpenOptions::new().create(true).append(true).open(log)?));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let outputs = [
        child.stdout.take().map(|from| copy(from, "stdout", Arc::clone(&file))),
        child.stderr.take().map(|from| copy(from, "stderr", file)),
    ];
    thread::spawn(move || {
        let code = child.wait().map_or(255, code);
        for output in outputs.into_iter().flatten() {
            let _ = output.join();
        }
        ended(code);
    });
    Ok(pid)
}

/// The exit code, of a signal 128 and more.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

fn copy(from: impl Read + Send + 'static, stream: &'static str, into: Arc<Mutex<File>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            // As containerd writes it: with all nine digits.
            let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ");
            let mut entry = format!("{time} {stream} F ").into_bytes();
            entry.extend_from_slice(text);
            entry.push(b'\n');
            let mut file = into.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all(&entry);
            line.clear();
        }
    })
}

/// Sends it to the process and all of its children.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(pid) {
        let _ = kill_process_group(group, signal);
    }
}

/// The log of the run before this one.
pub(super) fn previous(log: &Path) -> PathBuf {
    log.with_extension("previous")
}

/// Puts the log of a run aside, for the next one.
pub(super) fn turn(log: &Path) {
    let _ = fs::rename(log, previous(log));
}
