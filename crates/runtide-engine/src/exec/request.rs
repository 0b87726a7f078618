//! The requests of exec, and the options that no process can have. Pure.

use runtide_core::manager::{ExecOptions, TtySize};
use serde::Serialize;

use crate::request::Request;

/// Keys that detach a terminal's client, if they come in this order. The daemon's own (Ctrl-P, Ctrl-Q) are what programs and users
/// send: it would hold the first one back until the next key, and on both it would end the session. There is no way to have none,
/// so these are too many to occur, and begin with a rare one. A session is left by dropping it.
pub const DETACH_KEYS: &str = "ctrl-^,ctrl-_,ctrl-],ctrl-^,ctrl-_,ctrl-@,ctrl-],ctrl-_,ctrl-^,ctrl-@,ctrl-_,ctrl-]";

/// Body of `POST /containers/{id}/exec`, the same for both engines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::struct_excessive_bools, reason = "the form is the daemon's")]
pub struct Create<'a> {
    /// The input is the client's.
    pub attach_stdin: bool,
    /// The standard output goes to the client.
    pub attach_stdout: bool,
    /// The standard error goes to the client.
    pub attach_stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
    /// Rows, columns, where the server takes them with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
    /// Keys that end the session; with `None` they are the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach_keys: Option<&'static str>,
    /// User, and optionally group; `None`: the container's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// Working directory; `None`: the container's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<&'a str>,
    /// Variables, as `NAME=value`.
    pub env: Vec<String>,
    /// Program and arguments.
    pub cmd: &'a [String],
}

impl<'a> Create<'a> {
    /// With both outputs, the input that the options ask for, and without a size.
    pub fn of(options: &'a ExecOptions) -> Self {
        Self {
            attach_stdin: options.stdin,
            attach_stdout: true,
            attach_stderr: true,
            tty: options.tty.is_some(),
            console_size: None,
            detach_keys: options.tty.map(|_| DETACH_KEYS),
            user: options.user.as_deref(),
            working_dir: options.working_dir.as_deref(),
            env: options.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            cmd: &options.argv,
        }
    }
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Start {
    /// The process is left to itself.
    pub detach: bool,
    /// As in the create.
    pub tty: bool,
    /// Rows of the terminal, where the server takes them with this request.
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Columns, likewise.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

/// The resize of the terminal of what this path names.
pub fn resize(path: &str, size: TtySize) -> Request {
    Request::post(format!("{path}/resize?h={}&w={}", size.rows, size.columns))
}

/// Refuses options that no process can have, and those that a daemon would read as others.
///
/// # Errors
/// The reason of the refusal.
pub fn check(options: &ExecOptions) -> Result<(), &'static str> {
    let words = options.argv.iter().chain(&options.user).chain(&options.working_dir);
    if options.argv.is_empty() {
        Err("there is no command")
    } else if words.chain(options.env.keys()).chain(options.env.values()).any(|word| word.contains('\0')) {
        Err("the command, the environment, the user or the working directory has a NUL in it")
    } else if options.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        Err("the name of an environment variable is empty, or has a '=' in it")
    } else if options.user.as_deref() == Some("") {
        // The daemon would take the container's own user, which is often root.
        Err("the user is empty")
    } else if options.working_dir.as_ref().is_some_and(|path| !path.starts_with('/')) {
        Err("the working directory is not an absolute path")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU16};

    use serde_json::json;

    use super::*;

    fn options(argv: &[&str]) -> ExecOptions {
        ExecOptions::default().with_argv(argv.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    fn size() -> TtySize {
        TtySize::new(NonZeroU16::new(100).unwrap(), NonZeroU16::new(30).unwrap())
    }

    #[test]
    fn words_travel_as_they_are() {
        let odd = ["sh", "-c", "echo \"$x\" `id`; 'é'\n", "", "--", "{}"];
        let body = serde_json::to_value(Create::of(&options(&odd))).unwrap();
        assert_eq!(body["Cmd"], json!(odd));
        assert_eq!(body["AttachStdout"], json!(true));
        for absent in ["User", "WorkingDir", "ConsoleSize", "DetachKeys"] {
            assert!(body.get(absent).is_none(), "{absent}: {body}");
        }
    }

    #[test]
    fn a_terminal_has_its_size_where_the_server_takes_it() {
        let asked = options(&["sh"]).with_tty(size()).with_stdin();
        let body = serde_json::to_value(Create { console_size: Some([30, 100]), ..Create::of(&asked) }).unwrap();
        assert_eq!(body["ConsoleSize"], json!([30, 100]), "rows come first");
        let body = serde_json::to_value(Create::of(&asked)).unwrap();
        assert!(body.get("ConsoleSize").is_none());
        assert!(body["DetachKeys"].as_str().is_some_and(|keys| !keys.contains("ctrl-p")));
        assert_eq!(resize("/exec/e1", size()).path_and_query(), "/exec/e1/resize?h=30&w=100");
        let start = Start { tty: true, rows: Some(30), columns: Some(100), ..Start::default() };
        assert_eq!(serde_json::to_value(start).unwrap(), json!({"Detach": false, "Tty": true, "h": 30, "w": 100}));
        assert_eq!(serde_json::to_value(Start::default()).unwrap(), json!({"Detach": false, "Tty": false}));
    }

    #[test]
    fn what_no_process_can_have_is_refused() {
        let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for wrong in [
            options(&[]),
            options(&["a\0b"]),
            options(&["a"]).with_env(env("", "x")),
            options(&["a"]).with_env(env("A=B", "x")),
            options(&["a"]).with_env(env("A", "\0")),
            options(&["a"]).with_user(String::new()),
            options(&["a"]).with_working_dir("tmp".to_owned()),
            options(&["a"]).with_working_dir(String::new()),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
        let right =
            options(&[""]).with_env(env("A", "=\n")).with_user("1:2".to_owned()).with_working_dir("/".to_owned());
        assert_eq!(check(&right), Ok(()));
    }
}
