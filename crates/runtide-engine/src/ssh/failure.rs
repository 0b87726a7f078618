//! [`Failure`]: the end of an `ssh` that was no good one, and what it means.

use std::{error::Error as StdError, fmt, io, process::ExitStatus};

use runtide_core::{Error, ErrorKind, backend::CallSite};

/// `ssh` could not be run, or ended with an error: its own, or that of the command there.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The command that was to run there.
    command: String,
    end: End,
    /// The end of its error output, of `ssh` and of the command there alike.
    stderr: String,
}

#[derive(Clone, Debug)]
enum End {
    NotRun {
        program: String,
        error: io::ErrorKind,
    },
    Exited(i32),
    /// By a signal, as text.
    Killed(String),
    /// The output ended, and `ssh` did not.
    Lingers,
}

impl Failure {
    pub(crate) fn not_run(program: &std::path::Path, command: &str, error: &io::Error) -> Self {
        let end = End::NotRun { program: program.display().to_string(), error: error.kind() };
        Self { command: command.to_owned(), end, stderr: error.to_string() }
    }

    pub(crate) fn ended(command: &str, status: ExitStatus, stderr: String) -> Self {
        let end = status.code().map_or_else(|| End::Killed(status.to_string()), End::Exited);
        Self { command: command.to_owned(), end, stderr }
    }

    pub(crate) fn lingers(command: &str) -> Self {
        Self { command: command.to_owned(), end: End::Lingers, stderr: String::new() }
    }

    /// An I/O error whose cause is this failure.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self.end {
            End::NotRun { error, .. } => *error,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, self)
    }

    pub(crate) fn into_error(self, site: CallSite<'_>) -> Error {
        let (kind, what) = self.meaning();
        let complaint = self.complaint();
        let message = if complaint.is_empty() { format!("{what} ({self})") } else { format!("{what}: {complaint}") };
        let mut error = site.error(kind, message);
        if let End::Exited(code) = self.end {
            error = error.with_context("exit_code", code);
        }
        if kind == ErrorKind::Unsupported {
            error = error.with_context("feature", "ssh").with_context("reason", what);
        }
        if !self.stderr.is_empty() {
            error = error.with_context("stderr", &self.stderr);
        }
        error.with_source(self)
    }

    fn meaning(&self) -> (ErrorKind, String) {
        let says = |parts: &[&str]| parts.iter().any(|part| self.stderr.contains(part));
        let command = &self.command;
        match &self.end {
            End::NotRun { program, error: io::ErrorKind::NotFound } => {
                (ErrorKind::Unsupported, format!("this machine has no program '{program}'"))
            }
            End::NotRun { program, error } => {
                let denied = *error == io::ErrorKind::PermissionDenied;
                let kind = if denied { ErrorKind::PermissionDenied } else { ErrorKind::Unavailable };
                (kind, format!("'{program}' cannot be run"))
            }
            End::Exited(255) if says(&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"]) => (
                ErrorKind::Unauthenticated,
                "ssh does not know the host's key, or knows another one (connect with ssh once, to check and accept it)".to_owned(),
            ),
            End::Exited(255) if says(&["Permission denied", "Too many authentication failures", "No more authentication methods"]) => {
                (ErrorKind::Unauthenticated, "the host accepts none of ssh's keys (prompts for a password are not answered)".to_owned())
            }
            End::Exited(255) if says(&["Bad configuration option", "Bad owner or permissions", "no argument after keyword"]) => {
                (ErrorKind::InvalidInput, "ssh does not accept its configuration".to_owned())
            }
            End::Exited(255) if says(&["timed out"]) => (ErrorKind::Timeout, "the host did not answer ssh in time".to_owned()),
            End::Exited(255) => {
                (ErrorKind::Unavailable, "ssh does not reach the host (is its name right, and the network up?)".to_owned())
            }
            End::Exited(127) => (ErrorKind::Unsupported, format!("the host has no such command as '{command}'")),
            End::Exited(126) => (ErrorKind::PermissionDenied, format!("the host does not let this user run '{command}'")),
            End::Exited(_) if says(&["is not a docker command", "unknown command", "unrecognized command", "unknown shorthand flag"]) => {
                (ErrorKind::Unsupported, format!("the host's command line is too old for '{command}'"))
            }
            End::Exited(_) if says(&["permission denied"]) => {
                (ErrorKind::PermissionDenied, "this user may not open the daemon's socket on the host".to_owned())
            }
            End::Exited(_) => (ErrorKind::Unavailable, format!("'{command}' failed on the host (is the daemon up?)")),
            End::Killed(_) | End::Lingers => (ErrorKind::Unavailable, "the connection broke".to_owned()),
        }
    }

    /// The last line of the error output: banners and warnings stand before it.
    fn complaint(&self) -> &str {
        self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::NotRun { program, .. } => write!(f, "'{program}' was not run")?,
            End::Exited(code) => write!(f, "ssh exited with code {code}")?,
            End::Killed(how) => write!(f, "ssh was killed ({how})")?,
            End::Lingers => f.write_str("ssh closed its output and goes on")?,
        }
        if self.complaint().is_empty() { Ok(()) } else { write!(f, ": {}", self.complaint()) }
    }
}

impl StdError for Failure {}

/// The end of an error output, of bounded length, without what a terminal would obey.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    /// Bytes that are kept.
    const KEPT: usize = 4096;

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(Self::KEPT);
        self.0.drain(..surplus);
    }

    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0).replace("\r\n", "\n");
        text.trim().chars().filter(|c| !c.is_control() || *c == '\n').collect()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use runtide_core::{BackendId, Retry};

    use super::*;

    #[test]
    fn every_end_has_its_kind_and_the_words_of_ssh() {
        use ErrorKind::{InvalidInput, PermissionDenied, Timeout, Unauthenticated, Unavailable, Unsupported};
        let table = [
            (255, "ssh: connect to host h port 22: Connection refused", Unavailable),
            (255, "ssh: connect to host h port 22: Connection timed out", Timeout),
            (255, "ssh: connect to host h port 22: No route to host", Unavailable),
            (255, "ssh: Could not resolve hostname h: Name or service not known", Unavailable),
            (255, "kex_exchange_identification: Connection closed by remote host", Unavailable),
            (255, "", Unavailable),
            (255, "me@h: Permission denied (publickey,password).", Unauthenticated),
            (255, "Received disconnect from ::1 port 22:2: Too many authentication failures", Unauthenticated),
            (255, "No ED25519 host key is known for h.\nHost key verification failed.", Unauthenticated),
            (
                255,
                "/x: line 1: Bad configuration option: x\n/x: terminating, 1 bad configuration options",
                InvalidInput,
            ),
            (127, "bash: line 1: docker: command not found", Unsupported),
            (126, "bash: /usr/bin/docker: Permission denied", PermissionDenied),
            (1, "docker: 'system' is not a docker command.\nSee 'docker --help'", Unsupported),
            (
                1,
                "failed to open the raw stream connection: dial unix /x: connect: no such file or directory",
                Unavailable,
            ),
            (1, "failed to open the raw stream connection: dial unix /x: connect: permission denied", PermissionDenied),
        ];
        let id = BackendId::from("engine:test");
        for (code, stderr, kind) in table {
            let failure =
                Failure::ended("docker system dial-stdio", ExitStatus::from_raw(code << 8), stderr.to_owned());
            let error = failure.into_error(CallSite::new("engine.test", &id));
            assert_eq!(error.kind(), kind, "{stderr}");
            assert!(error.message().contains(stderr.lines().last().unwrap_or("code 255")), "{error}");
            // Each attempt is a process here and a login there.
            assert!(!matches!(error.retry(), Retry::Poll(_)), "{stderr}");
        }
        let killed = Failure::ended("x", ExitStatus::from_raw(9), String::new());
        assert_eq!(killed.into_error(CallSite::new("engine.test", &id)).kind(), Unavailable);
        let missing = Failure::not_run("ssh".as_ref(), "x", &io::ErrorKind::NotFound.into());
        assert_eq!(missing.into_error(CallSite::new("engine.test", &id)).kind(), Unsupported);
    }

    #[test]
    fn the_tail_is_bounded_and_obeys_no_terminal() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(b"a banner of many words\r\n");
        }
        tail.push(b"\x1b[31mthe end\xff\r\n");
        assert!(tail.0.len() <= Tail::KEPT);
        assert!(tail.text().ends_with("words\n[31mthe end\u{fffd}"), "{}", tail.text());
    }
}
