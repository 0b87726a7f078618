//! Running other programs: every one has a limit, and none outlives an interrupt.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::workspace;

/// Interval of the polls of a wait.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Longest time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Longest wait for output after the program has ended: a grandchild may hold the pipe indefinitely.
const DRAIN: Duration = Duration::from_secs(5);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on Ctrl-C, SIGTERM and SIGHUP end the running program, not this one, which has daemons to take down.
pub(crate) fn catch_interrupts() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .map_err(|error| Failure::failed(format_args!("cannot catch Ctrl-C: {error}")))?;
    }
    #[cfg(not(unix))]
    let _ = flag;
    Ok(())
}

/// `true` once a signal asked this run to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The output of a program.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The last line on stderr that is not blank, for people.
    pub(crate) fn complaint(&self) -> String {
        let last = self.stderr.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| self.status.to_string(), |line| line.trim().to_owned())
    }
}

/// Effect of an interrupt on the program: it ends early, or (a teardown) it must finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Ends,
    Waits,
}

/// Runs to the end and keeps the output.
pub(crate) fn capture(command: &mut Command, limit: Duration, interrupt: Interrupt) -> Outcome<Said> {
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    command.stderr(Stdio::piped());
    let status = pump(command, limit, interrupt, |source, line| match source {
        Source::Stdout => stdout.extend_from_slice(line),
        Source::Stderr => stderr.extend_from_slice(line),
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { status, stdout: text(&stdout), stderr: text(&stderr) })
}

/// Runs to the end, and hands each line of its stdout to `inspect`; its stderr goes to the terminal.
pub(crate) fn each_line(command: &mut Command, limit: Duration, mut inspect: impl FnMut(&str)) -> Outcome<ExitStatus> {
    command.stderr(Stdio::inherit());
    pump(command, limit, Interrupt::Ends, |_, line| inspect(&String::from_utf8_lossy(line)))
}

/// Runs to the end, and keeps all output in the order in which it came, also if the program is killed.
pub(crate) fn gather(
    command: &mut Command,
    limit: Duration,
    interrupt: Interrupt,
    text: &mut Vec<u8>,
) -> Outcome<ExitStatus> {
    command.stderr(Stdio::piped());
    pump(command, limit, interrupt, |_, line| text.extend_from_slice(line))
}

/// Runs to the end with the terminal as it is.
pub(crate) fn pass_through(command: &mut Command, limit: Duration) -> Outcome<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = spawn(command)?;
    wait(&mut child, command, limit, Interrupt::Ends, || {})
}

/// Runs to the end with the terminal as it is, for at most 25 minutes; anything but success is a failure that names the command.
pub(crate) fn must_succeed(command: &mut Command) -> Outcome<()> {
    const LIMIT: Duration = Duration::from_secs(25 * 60);
    let status = pass_through(command, LIMIT)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format_args!("{}: {status}", workspace::shown(command))))
}

/// The same command at a low priority: others have the processor first.
pub(crate) fn patient(command: &Command) -> Command {
    let words: &[&str] = if cfg!(unix) { &["nice", "-n", "19"] } else { &[] };
    through(words, command)
}

/// The same command as the last arguments of these words.
pub(crate) fn through(words: &[&str], command: &Command) -> Command {
    let mut whole = match words.split_first() {
        Some((program, arguments)) => {
            let mut whole = Command::new(program);
            whole.args(arguments).arg(command.get_program());
            whole
        }
        None => Command::new(command.get_program()),
    };
    whole.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        whole.current_dir(folder);
    }
    whole
}

enum Source {
    Stdout,
    Stderr,
}

fn pump(
    command: &mut Command,
    limit: Duration,
    interrupt: Interrupt,
    mut take: impl FnMut(Source, &[u8]),
) -> Outcome<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn(command)?;
    let (lines, arrived) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let lines = lines.clone();
        thread::spawn(move || read_lines(stdout, |line| lines.send((Source::Stdout, line)).is_ok()));
    }
    if let Some(stderr) = child.stderr.take() {
        let lines = lines.clone();
        thread::spawn(move || read_lines(stderr, |line| lines.send((Source::Stderr, line)).is_ok()));
    }
    drop(lines);
    let status = wait(&mut child, command, limit, interrupt, || {
        while let Ok((source, line)) = arrived.try_recv() {
            take(source, &line);
        }
    });
    let end = Instant::now() + DRAIN;
    while let Ok((source, line)) = arrived.recv_timeout(end.saturating_duration_since(Instant::now())) {
        take(source, &line);
    }
    status
}

fn read_lines(from: impl Read, mut send: impl FnMut(Vec<u8>) -> bool) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if send(line) => {}
            Ok(_) => return,
        }
    }
}

fn spawn(command: &mut Command) -> Outcome<Child> {
    // Its own process group: Ctrl-C at the terminal reaches this tool alone, which then ends the whole group.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command.spawn().map_err(|error| Failure::refused(format_args!("cannot run {}: {error}", workspace::shown(command))))
}

fn wait(
    child: &mut Child,
    command: &Command,
    limit: Duration,
    interrupt: Interrupt,
    mut on_tick: impl FnMut(),
) -> Outcome<ExitStatus> {
    let end = Instant::now() + limit;
    let reason = loop {
        on_tick();
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => {
                break Failure::failed(format_args!("cannot wait for {}: {error}", workspace::shown(command)));
            }
        }
        if interrupt == Interrupt::Ends && interrupted() {
            break Failure::interrupted();
        }
        if Instant::now() >= end {
            let seconds = limit.as_secs();
            break Failure::failed(format_args!("{} took longer than {seconds} s", workspace::shown(command)));
        }
        thread::sleep(TICK);
    };
    end_within_grace(child, on_tick);
    Err(reason)
}

/// Ends a program that was started in a process group of its own, with that group.
pub(crate) fn end(child: &mut Child) {
    end_within_grace(child, || {});
}

fn end_within_grace(child: &mut Child, mut on_tick: impl FnMut()) {
    end_group(child, false);
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        on_tick();
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        thread::sleep(TICK);
    }
    // Also if the leader is gone: its children may have stayed.
    end_group(child, true);
    let _ = child.wait();
}

#[cfg(unix)]
fn end_group(child: &mut Child, by_force: bool) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = if by_force { Signal::KILL } else { Signal::TERM };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The group may be empty already.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn end_group(child: &mut Child, _by_force: bool) {
    let _ = child.kill();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Limit of a command that ends by itself: one of low priority gets no processor for long on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(300);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_are_kept_apart() {
        let said = capture(&mut sh("echo out; echo err >&2; exit 3"), PATIENCE, Interrupt::Waits).unwrap();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.status.code()), ("out\n", "err\n", Some(3)));
        assert_eq!(said.complaint(), "err");
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_with_its_children() {
        let folder = std::env::temp_dir().join(format!("xtask-grandchild-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut script = sh("sleep 600 & echo $! > new; mv new pid; sleep 600");
        let mut limit = Duration::from_millis(100);
        let pid = loop {
            let failure = capture(script.current_dir(&folder), limit, Interrupt::Waits).unwrap_err();
            assert!(failure.to_string().contains("took longer"), "{failure}");
            match std::fs::read_to_string(folder.join("pid")) {
                Ok(pid) => break pid,
                // It was ended before it had a child.
                Err(_) => limit *= 2,
            }
        };
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let end = Instant::now() + PATIENCE;
        while rustix::process::test_kill_process(pid).is_ok() {
            assert!(Instant::now() < end, "a grandchild is left");
            thread::sleep(TICK);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_program_that_does_not_exist_is_refused() {
        let failure =
            capture(&mut Command::new("no-such-program"), Duration::from_secs(1), Interrupt::Waits).unwrap_err();
        assert_eq!(failure.code(), 2);
    }
    #[test]
    fn a_low_priority_command_is_the_same_command_and_gives_way() {
        let mut command = sh("echo $A, $(pwd), $(nice)");
        command.env("A", "a").current_dir("/");
        let nice = |command: &mut Command| {
            let said = capture(command, PATIENCE, Interrupt::Waits).unwrap();
            said.stdout.trim().strip_prefix("a, /, ").and_then(|nice| nice.parse::<i32>().ok())
        };
        let own = nice(&mut command).unwrap();
        assert_eq!(nice(&mut patient(&command)), Some((own + 19).min(19)), "less priority than this one");
    }
}
