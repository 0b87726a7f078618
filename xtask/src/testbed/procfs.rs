//! Processes, as `/proc` shows them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::TICK;

/// A process that runs; a zombie is not one.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) arguments: Vec<OsString>,
}

impl Process {
    /// The file name of the program.
    pub(super) fn program(&self) -> Option<String> {
        let program = PathBuf::from(self.arguments.first()?);
        Some(program.file_name()?.to_string_lossy().into_owned())
    }

    pub(super) fn has_argument(&self, wanted: &str) -> bool {
        self.arguments.iter().any(|argument| argument == wanted)
    }

    /// `true` if it uses the same network namespace as this process.
    pub(super) fn shares_our_network(&self) -> bool {
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
        namespace(&self.pid.to_string()) == namespace("self")
    }
}

/// Every process that runs and has a command line: zombies and kernel threads have none.
pub(super) fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let arguments: Vec<_> = line.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect();
        (!line.is_empty() && alive(pid)).then_some(Process { pid, arguments })
    })
    .collect()
}

/// `true` if the process runs. A zombie does not, though a signal can still be sent to it: if process 1 reaps late or
/// never, the zombie stays for long. One whose other threads have yet to end does: they have its sockets.
pub(super) fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parse_alive(&stat))
}

fn parse_alive(stat: &str) -> bool {
    // The name is in parentheses and may hold some itself.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<_> = rest.split_whitespace().collect();
    let threads = fields.get(17).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    match fields.first() {
        Some(&"Z") => threads > 1,
        Some(&state) => state != "X",
        None => false,
    }
}

/// The processes that this one started, those that they started, and so on.
pub(super) fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        processes().iter().filter_map(|child| Some((child.pid, parent(child.pid)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(at) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == at).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: i32) -> Option<i32> {
    parse_parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The other processes that have one of these namespaces of a process: `mnt`, `net`.
pub(super) fn sharing(pid: i32, namespaces: &[&str]) -> Vec<i32> {
    let of = |pid: i32, namespace: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).ok();
    let wanted: Vec<_> = namespaces.iter().map(|name| (*name, of(pid, name))).collect();
    let ours = |name: &str| of(rustix::process::getpid().as_raw_nonzero().get(), name);
    // Never those of the machine: the process may be gone, or not be in its own yet.
    let own: Vec<_> = wanted.into_iter().filter(|(name, link)| link.is_some() && *link != ours(name)).collect();
    let shares = |other: i32| own.iter().any(|(name, link)| of(other, name) == *link);
    processes().iter().map(|process| process.pid).filter(|other| *other != pid && shares(*other)).collect()
}

/// The program's name, as the kernel keeps it.
pub(super) fn name(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// `true` if it is the first of a process namespace that is directly below ours.
pub(super) fn is_first_below(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| parse_is_first_below(&status))
}

fn parse_is_first_below(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.is_some_and(|line| line.split_whitespace().skip(1).eq(["1"]))
}

/// Sends a signal; a process that is gone already is not an error.
pub(super) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until none of them runs; `false` if the limit passed first.
pub(super) fn wait_until_dead(pids: &[i32], limit: Duration) -> bool {
    wait_until(limit, || !pids.iter().any(|pid| alive(*pid)))
}

/// Polls until the condition holds; `true` if it did within the limit.
pub(super) fn wait_until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_state() {
        assert!(parse_alive("42 (a) Z (b)) S 7 42 42 0"));
        assert_eq!(parse_parent("42 (a) Z (b)) S 7 42 42 0"), Some(7));
        assert!(!parse_alive("nonsense"));
    }

    #[test]
    fn a_zombie_is_dead_once_its_last_thread_is() {
        let stat =
            |state: char, threads: u32| format!("42 (a) {state} 1 42 42 0 -1 4 0 0 0 0 5 6 0 0 20 0 {threads} 0 99");
        assert!(parse_alive(&stat('R', 1)) && parse_alive(&stat('Z', 2)));
        assert!(!parse_alive(&stat('Z', 1)) && !parse_alive(&stat('X', 1)));
    }

    #[test]
    fn the_first_of_a_namespace_is_distinguished_from_its_children_and_grandchildren() {
        let status = |nspid: &str| format!("Name:\tsystemd\nNSpid:\t{nspid}\nNSsid:\t1\n");
        assert!(parse_is_first_below(&status("4711\t1")));
        assert!(!parse_is_first_below(&status("4712\t2")));
        assert!(!parse_is_first_below(&status("1")));
        assert!(!parse_is_first_below(&status("4713\t3\t1")));
        assert!(!parse_is_first_below(""));
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(wait_until_dead(&[pid], Duration::from_secs(60)), "not reaped yet, and yet dead");
        child.wait().unwrap();
        assert!(!alive(pid));
    }

    #[test]
    fn this_process_is_found_with_its_arguments() {
        let this = i32::try_from(std::process::id()).unwrap();
        let found = processes().into_iter().find(|process| process.pid == this).unwrap();
        assert!(found.arguments.iter().map(|a| a.to_string_lossy()).eq(std::env::args()));
        assert!(found.shares_our_network());
    }
}
