//! Processes inside a container, and its main process, over a WebSocket of the API server.
//!
//! kube's own exec is not used: its pipes do not close with their halves, one that is not read stops the other, and at the end of the
//! input it closes the whole connection where the server knows no other end (traps K9 to K11).

mod end;
mod input;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{AttachOptions, ExecControl, ExecManager, ExecOptions, ExecSession, TtySize},
};

use self::session::{Pipes, Process, Session};
use super::subject::{Seen, Subject};
use crate::{client::Client, list::with_query};

const EXEC: &str = "k8s.exec";
const ATTACH: &str = "k8s.attach";

/// The reasons why there are no such verbs.
pub(crate) const RESIZE: &str = "a terminal is resized by the session that has it: of an exec, or of an attach";
const START_ATTACHED: &str = "a pod starts when it is created, and none can be attached to before it runs";
const PROGRAM_ALONE: &str =
    "Kubernetes runs a program with its arguments, as the container's user and in its directory";
const INPUT: &str = "a server before 1.30 cannot be told of the end of an input without losing the output";

/// The first minor version whose server speaks the protocol in which a stream can end.
const STREAMS_END: u32 = 30;

/// Runs processes inside containers.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    client: Client,
}

impl Exec {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn refuse(&self, operation: &'static str, feature: &'static str, reason: &'static str) -> Error {
        let error = self.client.site(operation).error(ErrorKind::Unsupported, reason);
        error.with_context("feature", feature).with_context("reason", reason)
    }

    /// Refuses what cannot be had, before the process is made.
    async fn check(&self, options: &ExecOptions) -> Result<()> {
        let invalid = |why: &str| self.client.site(EXEC).error(ErrorKind::InvalidInput, why);
        if options.argv.first().is_none_or(String::is_empty) {
            return Err(invalid("no program is named"));
        }
        if options.argv.iter().any(|word| word.contains('\0')) {
            return Err(invalid("an argument has a zero byte, which no process can get"));
        }
        if !options.env.is_empty() || options.user.is_some() || options.working_dir.is_some() {
            return Err(self.refuse(EXEC, "exec_run", PROGRAM_ALONE));
        }
        // A terminal's input ends by a character.
        if options.stdin && options.tty.is_none() {
            self.check_end(EXEC, "exec_run").await?;
        }
        Ok(())
    }

    /// Refuses an input of which the server cannot be told the end.
    async fn check_end(&self, operation: &'static str, feature: &'static str) -> Result<()> {
        let known = self.client.last_server().filter(|server| server.version.is_some());
        let server = match known {
            Some(server) => server,
            None => self.client.identify(operation).await?,
        };
        if server.version.as_deref().is_some_and(is_new) {
            return Ok(());
        }
        Err(self.refuse(operation, feature, INPUT))
    }

    /// The container, which runs.
    async fn running(&self, operation: &'static str, id: &InstanceId) -> Result<(Subject, Seen)> {
        let subject = Subject::find(&self.client, operation, id).await?;
        let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
        if !seen.is_running {
            return Err(subject.error(ErrorKind::Conflict, format!("its container does not run: it is {}", seen.state)));
        }
        Ok((subject, seen))
    }

    /// Opens the connection of a session.
    async fn connect(
        &self,
        subject: Subject,
        seen: &Seen,
        verb: &str,
        argv: &[String],
        pipes: Pipes,
        process: Process,
    ) -> Result<Session> {
        let flag = |is: bool| if is { "true" } else { "false" };
        let mut query = vec![
            ("container", seen.container.as_str()),
            ("stdin", flag(pipes.stdin)),
            ("stdout", "true"),
            ("stderr", flag(!pipes.has_terminal)),
            ("tty", flag(pipes.has_terminal)),
        ];
        query.extend(argv.iter().map(|word| ("command", word.as_str())));
        let path = with_query(format!("{}/{verb}", subject.path()), &query);
        let (socket, closes) = self.client.upgrade(subject.operation, &path).await?;
        Ok(Session::start(subject, socket, closes, pipes, process))
    }

    async fn open(&self, id: &InstanceId, options: &ExecOptions, process: Process) -> Result<Session> {
        self.client.check_open(EXEC)?;
        self.check(options).await?;
        let (subject, seen) = self.running(EXEC, id).await?;
        let pipes = Pipes { stdin: options.stdin, has_terminal: options.tty.is_some(), size: options.tty };
        self.connect(subject, &seen, "exec", &options.argv, pipes, process).await
    }

    async fn attach_to(&self, id: &InstanceId, options: &AttachOptions) -> Result<Session> {
        self.client.check_open(ATTACH)?;
        let (subject, seen) = self.running(ATTACH, id).await?;
        if options.stdin && !seen.streams.has_input {
            return Err(subject.error(ErrorKind::InvalidInput, "its container was made without an open input"));
        }
        // Any other input stays open for the next that is attached, so that there is no end to be told of.
        if options.stdin && seen.streams.input_ends && !seen.streams.has_terminal {
            self.check_end(ATTACH, "exec_attach").await?;
        }
        let pipes = Pipes { stdin: options.stdin, has_terminal: seen.streams.has_terminal, size: None };
        self.connect(subject, &seen, "attach", &[], pipes, Process::Main(seen.run)).await
    }
}

/// True for a version that is new enough, as `v1.30.2+k3s1`.
fn is_new(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next(), parts.next());
    let digits = |text: Option<&str>| text?.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
    match (digits(major), digits(minor)) {
        (Some(1), Some(minor)) => minor >= STREAMS_END,
        (Some(major), _) => major > 1,
        _ => false,
    }
}

#[async_trait]
impl ExecManager for Exec {
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession> {
        Ok(self.open(id, &options, Process::Exec).await?.into_pipes())
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        if options.stdin {
            let site = self.client.site(EXEC);
            return Err(site.error(ErrorKind::InvalidInput, "a detached process has an empty input"));
        }
        Ok(self.open(id, &options, Process::Detached).await?.into_control())
    }

    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        Ok(self.attach_to(id, &options).await?.into_pipes())
    }

    async fn start_attached(&self, _: &InstanceId, _: AttachOptions) -> Result<ExecSession> {
        Err(self.refuse("k8s.start_attached", "exec_attach", START_ATTACHED))
    }

    async fn resize(&self, _: &InstanceId, _: TtySize) -> Result<()> {
        Err(self.refuse("k8s.resize", "exec_resize", RESIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_if_an_input_can_end() {
        for (version, new) in [
            ("v1.30.0", true),
            ("v1.36.4+k3s1", true),
            ("v2.0.0", true),
            ("v1.29+", false),
            ("v1.20.2", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(is_new(version), new, "{version}");
        }
    }
}
