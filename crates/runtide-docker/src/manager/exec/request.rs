//! The bodies of exec's requests, and the options that no process can have. Pure.

use runtide_core::manager::{ExecOptions, TtySize};
use runtide_engine::Request;
use serde::Serialize;

/// Keys that detach a terminal's client, if they come in this order. The daemon's own (Ctrl-P, Ctrl-Q) are what programs and users
/// send: it would hold the first one back until the next key, and on both it would end the session. There is no way to have none,
/// so these are too many to occur, and begin with a rare one. A session is left by dropping it.
pub(super) const DETACH_KEYS: &str =
    "ctrl-^,ctrl-_,ctrl-],ctrl-^,ctrl-_,ctrl-@,ctrl-],ctrl-_,ctrl-^,ctrl-@,ctrl-_,ctrl-]";

/// Body of `POST /containers/{id}/exec`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::struct_excessive_bools, reason = "the form is the daemon's")]
pub(super) struct Create<'a> {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    /// Rows, columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    console_size: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detach_keys: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    env: Vec<String>,
    cmd: &'a [String],
}

impl<'a> Create<'a> {
    pub(super) fn new(options: &'a ExecOptions, is_attached: bool, takes_size: bool) -> Self {
        Self {
            attach_stdin: options.stdin,
            attach_stdout: is_attached,
            attach_stderr: is_attached,
            tty: options.tty.is_some(),
            console_size: options.tty.filter(|_| takes_size).map(|size| [size.rows.get(), size.columns.get()]),
            detach_keys: options.tty.map(|_| DETACH_KEYS),
            user: options.user.as_deref(),
            working_dir: options.working_dir.as_deref(),
            env: options.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            cmd: &options.argv,
        }
    }
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Start {
    pub(super) detach: bool,
    pub(super) tty: bool,
}

/// The resize of the terminal of what this path names.
pub(super) fn resize(path: &str, size: TtySize) -> Request {
    Request::post(format!("{path}/resize?h={}&w={}", size.rows, size.columns))
}

/// Refuses options that no process can have, and those that the daemon would read as others.
pub(super) fn check(options: &ExecOptions) -> Result<(), &'static str> {
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
        let body = serde_json::to_value(Create::new(&options(&odd), true, false)).unwrap();
        assert_eq!(body["Cmd"], json!(odd));
        assert_eq!(body["AttachStdout"], json!(true));
        for absent in ["User", "WorkingDir", "ConsoleSize", "DetachKeys"] {
            assert!(body.get(absent).is_none(), "{absent}: {body}");
        }
    }

    #[test]
    fn a_terminal_has_its_size_where_the_server_takes_it() {
        let asked = options(&["sh"]).with_tty(size()).with_stdin();
        let body = |takes_size| serde_json::to_value(Create::new(&asked, true, takes_size)).unwrap();
        assert_eq!(body(true)["ConsoleSize"], json!([30, 100]), "rows come first");
        assert!(body(false).get("ConsoleSize").is_none());
        assert!(body(false)["DetachKeys"].as_str().is_some_and(|keys| !keys.contains("ctrl-p")));
        assert_eq!(resize("/exec/e1", size()).path_and_query(), "/exec/e1/resize?h=30&w=100");
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
