//! The end of a process, as the server says it: text of a `Status` on a channel of its own (trap K12).

use runtide_core::ExitStatus;
use serde::Deserialize;

/// The code of a program that is not there, and of one that may not be run, as a shell has them.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "status")]
    outcome: String,
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Option<Vec<Cause>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exit(ExitStatus),
    /// It was not run: the code that a shell has for that, and the node's words.
    NotRun(ExitStatus, String),
    /// How it ended was not seen, and why.
    Unseen(String),
}

impl End {
    pub(super) fn of(status: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Status>(status) else {
            return Self::Unseen("the server's word on the end cannot be read".to_owned());
        };
        if status.outcome == "Success" {
            return Self::Exit(ExitStatus::code(0));
        }
        if status.reason == "NonZeroExitCode" {
            let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
            let code =
                causes.iter().find(|cause| cause.reason == "ExitCode").and_then(|cause| cause.message.parse().ok());
            return match code {
                Some(code) => Self::Exit(ExitStatus::code(code)),
                None => Self::Unseen("the server names no exit code".to_owned()),
            };
        }
        let says = |words: &str| status.message.contains(words);
        let of_program = says("exec failed") || says("failed to exec") || says("unable to start container process");
        if of_program && (says("executable file not found") || says("no such file or directory")) {
            return Self::NotRun(ExitStatus::code(NOT_FOUND), status.message);
        }
        if of_program && (says("permission denied") || says("exec format error")) {
            return Self::NotRun(ExitStatus::code(NOT_RUNNABLE), status.message);
        }
        Self::Unseen(status.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_the_code_that_the_server_names_and_never_an_invented_one() {
        let code = |code| End::Exit(ExitStatus::code(code));
        assert_eq!(End::of(br#"{"metadata":{},"status":"Success"}"#), code(0));
        let exit = br#"{"status":"Failure","message":"command terminated","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#;
        assert_eq!(End::of(exit), code(137));
        let oci = |why: &str| {
            format!(
                r#"{{"status":"Failure","reason":"InternalError","message":"OCI runtime exec failed: exec failed: {why}: unknown"}}"#
            )
        };
        for (why, expected) in [
            ("\\\"x\\\": executable file not found in $PATH", 127),
            ("stat /x: no such file or directory", 127),
            ("permission denied", 126),
        ] {
            assert!(
                matches!(End::of(oci(why).as_bytes()), End::NotRun(exit, _) if exit == ExitStatus::code(expected)),
                "{why}"
            );
        }
        for unseen in [
            &br#"{"status":"Failure","reason":"InternalError","message":"container not running"}"#[..],
            br#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
            b"{}",
            b"",
            b"\xff",
        ] {
            assert!(matches!(End::of(unseen), End::Unseen(_)), "{unseen:?}");
        }
    }
}
