//! Processes inside a container, over a WebSocket of the API server.
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

use self::session::Session;
use super::subject::Subject;
use crate::{client::Client, list::with_query};

const EXEC: &str = "k8s.exec";

/// The reasons why there are no such verbs.
pub(crate) const ATTACH: &str = "not implemented in this version";
pub(crate) const RESIZE: &str = "only the terminal of an exec can be resized, by its session";
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
            let known = self.client.last_server().filter(|server| server.version.is_some());
            let server = match known {
                Some(server) => server,
                None => self.client.identify(EXEC).await?,
            };
            if !server.version.as_deref().is_some_and(is_new) {
                return Err(self.refuse(EXEC, "exec_run", INPUT));
            }
        }
        Ok(())
    }

    async fn open(&self, id: &InstanceId, options: &ExecOptions, is_detached: bool) -> Result<Session> {
        self.client.check_open(EXEC)?;
        self.check(options).await?;
        let subject = Subject::find(&self.client, EXEC, id).await?;
        let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
        if !seen.is_running {
            return Err(subject.error(ErrorKind::Conflict, format!("its container does not run: it is {}", seen.state)));
        }
        let flag = |is: bool| if is { "true" } else { "false" };
        let mut query = vec![
            ("container", seen.container.as_str()),
            ("stdin", flag(options.stdin)),
            ("stdout", "true"),
            ("stderr", flag(options.tty.is_none())),
            ("tty", flag(options.tty.is_some())),
        ];
        query.extend(options.argv.iter().map(|word| ("command", word.as_str())));
        let path = with_query(format!("{}/exec", subject.path()), &query);
        let (socket, closes) = self.client.upgrade(EXEC, &path).await?;
        Ok(Session::start(subject, socket, closes, options, is_detached))
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
        Ok(self.open(id, &options, false).await?.into_pipes())
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        if options.stdin {
            let site = self.client.site(EXEC);
            return Err(site.error(ErrorKind::InvalidInput, "a detached process has an empty input"));
        }
        Ok(self.open(id, &options, true).await?.into_control())
    }

    async fn attach(&self, _: &InstanceId, _: AttachOptions) -> Result<ExecSession> {
        Err(self.refuse("k8s.attach", "exec_attach", ATTACH))
    }

    async fn start_attached(&self, _: &InstanceId, _: AttachOptions) -> Result<ExecSession> {
        Err(self.refuse("k8s.start_attached", "exec_attach", ATTACH))
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
