//! [`Reply`]: an answer of the API, as data or as an error.

use runtide_core::{Error, ErrorKind, Result, Retry};
use serde_json::Value;

/// Longest text of a server that an error repeats, in characters.
const LONGEST: usize = 300;

/// Says of a call if it can change anything: then an answer that got lost on the way leaves its outcome unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The call reads.
    No,
    /// The call changes something, or starts a task that does.
    Yes,
}

/// Answer of the API, whole.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Reason phrase of the status line, where Proxmox repeats its message; empty if there is none.
    pub reason: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Reply<'_> {
    /// The `data` of an answer that says yes, which may be null.
    ///
    /// # Errors
    ///
    /// By what the answer says, since nearly every refusal is a 500 with a text:
    ///
    /// | kind | answers |
    /// |---|---|
    /// | `NotFound` | a guest without a config file; `no such task` |
    /// | `AlreadyExists` | a vmid that is taken |
    /// | `Conflict` | a lock (repeated with a pause), a guest in another state, a config that another changed |
    /// | `InvalidInput` | any other 400, with the parameters that it names. The call **was** sent |
    /// | `Unauthenticated`, `PermissionDenied` | 401, 403 |
    /// | `Unsupported` | 501; paths that take no API token; a guest without an agent in its config |
    /// | `Unavailable` | 595: the node was not reached; a cluster without quorum; a guest's agent that is not there yet |
    /// | `Timeout` | 502, 503, 504, 596, 597, 599 to a change: it may still be done, so it must be looked for before it is sent again. To a reading they are `Unavailable` |
    /// | `RateLimited` | 429 |
    /// | `Protocol` | a redirect; a body that is not the API's |
    /// | `Unexpected` | any other |
    pub fn into_data(self, operation: &'static str, change: Change) -> Result<Value> {
        let body = serde_json::from_slice::<Value>(self.body);
        if !(200..300).contains(&self.status) {
            return Err(self.into_error(operation, change, body.ok().as_ref()));
        }
        match body {
            Ok(Value::Object(mut fields)) => fields
                .remove("data")
                .ok_or_else(|| Error::new(ErrorKind::Protocol, operation, "the answer has no data")),
            Ok(_) => Err(Error::new(ErrorKind::Protocol, operation, "the answer is no object")),
            // The error of the parser is not repeated: it may quote a secret of the body.
            Err(_) => Err(Error::new(ErrorKind::Protocol, operation, "the answer is no JSON")),
        }
    }

    fn into_error(self, operation: &'static str, change: Change, body: Option<&Value>) -> Error {
        let message = body.and_then(|body| body.get("message")).and_then(Value::as_str).unwrap_or(self.reason);
        let mut message = printable(message);
        if message.is_empty() {
            "the server gave no reason".clone_into(&mut message);
        }
        let (kind, retry) = self.meaning(change, &message);
        if kind == ErrorKind::Timeout {
            message.push_str(" (the change may still be made: look for its task before it is sent again)");
        }
        let mut error = Error::new(kind, operation, message).with_context("status", self.status);
        if let Some(retry) = retry {
            error = error.with_retry(retry);
        }
        if let Some(refused) = body.and_then(|body| body.get("errors")).and_then(Value::as_object) {
            let refused: Vec<_> =
                refused.iter().map(|(key, why)| format!("{key}: {}", why.as_str().unwrap_or("refused"))).collect();
            error = error.with_context("reason", printable(&refused.join("; ")));
        }
        error
    }

    /// Kind of a refusal, and its retry if it is not the one of the kind.
    fn meaning(self, change: Change, message: &str) -> (ErrorKind, Option<Retry>) {
        let kind = match self.status {
            300..=399 => return (ErrorKind::Protocol, Some(Retry::Never)),
            400 if message.contains("no such task") => ErrorKind::NotFound,
            400 => ErrorKind::InvalidInput,
            401 => ErrorKind::Unauthenticated,
            403 if message.contains("not available with API token") => ErrorKind::Unsupported,
            403 => ErrorKind::PermissionDenied,
            429 => ErrorKind::RateLimited,
            500 => return of_text(message),
            501 => ErrorKind::Unsupported,
            502..=504 | 596 | 597 | 599 if change == Change::Yes => return (ErrorKind::Timeout, Some(Retry::Never)),
            // 595 says that the node was not reached: nothing was changed.
            502..=504 | 595..=597 | 599 => ErrorKind::Unavailable,
            _ => ErrorKind::Unexpected,
        };
        (kind, None)
    }
}

/// Kind of a 500, by its text: Proxmox has no other mark. The order counts, since a text may repeat a name that a user chose.
fn of_text(message: &str) -> (ErrorKind, Option<Retry>) {
    let has = |part: &str| message.contains(part);
    if message.starts_with("Configuration file '") && has("' does not exist") {
        return (ErrorKind::NotFound, None);
    }
    if has("got timeout") && has("can't lock file") || has(" is locked (") {
        return (ErrorKind::Conflict, Some(Retry::Backoff));
    }
    if has("checksum mismatch (file change by other user?)")
        || has("detected modified configuration - file changed by other user?")
    {
        return (ErrorKind::Conflict, None);
    }
    if has("no quorum?") || has("QEMU guest agent is not running") || message.starts_with("hostname lookup '") {
        return (ErrorKind::Unavailable, None);
    }
    if has("No QEMU guest agent configured") {
        return (ErrorKind::Unsupported, None);
    }
    if has("already exists on node") || has("config file already exists") {
        return (ErrorKind::AlreadyExists, None);
    }
    let is_of_state =
        [" already running", " not running", " is running", "must be disabled and fixed first", "cannot shutdown"];
    if is_of_state.iter().any(|part| has(part)) {
        return (ErrorKind::Conflict, None);
    }
    (ErrorKind::Unexpected, None)
}

/// A server's text as one line without control characters, cut at [`LONGEST`].
fn printable(text: &str) -> String {
    let mut characters = text.trim().chars();
    let mut line: String = characters
        .by_ref()
        .take(LONGEST)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, reason: &str, body: &str, change: Change) -> Error {
        Reply { status, reason, body: body.as_bytes() }.into_data("proxmox.test", change).unwrap_err()
    }

    #[test]
    fn a_lost_answer_to_a_change_is_never_to_be_repeated_blindly() {
        for status in [502, 503, 504, 596, 597, 599] {
            let change = error(status, "Connection timed out", "", Change::Yes);
            assert_eq!((change.kind(), change.retry()), (ErrorKind::Timeout, Retry::Never), "{status}");
            let reading = error(status, "Connection timed out", "", Change::No);
            assert_eq!((reading.kind(), reading.retry()), (ErrorKind::Unavailable, Retry::Backoff), "{status}");
        }
        let unreached = error(595, "No route to host", "", Change::Yes);
        assert_eq!((unreached.kind(), unreached.retry()), (ErrorKind::Unavailable, Retry::Backoff));
    }

    #[test]
    fn a_refusal_is_classified_by_its_text() {
        let kind = |status, text: &str| error(status, text, "", Change::Yes).kind();
        assert_eq!(kind(500, "VM is locked (backup)"), ErrorKind::Conflict);
        assert_eq!(kind(500, "can't lock file '/var/lock/lxc/pve-config-100.lock' - got timeout"), ErrorKind::Conflict);
        assert_eq!(kind(500, "checksum mismatch (file change by other user?)"), ErrorKind::Conflict);
        assert_eq!(
            kind(500, "detected modified configuration - file changed by other user? Try again."),
            ErrorKind::Conflict
        );
        assert_eq!(kind(500, "cluster not ready - no quorum?"), ErrorKind::Unavailable);
        assert_eq!(kind(500, "No QEMU guest agent configured"), ErrorKind::Unsupported);
        assert_eq!(kind(500, "QEMU guest agent is not running"), ErrorKind::Unavailable);
        assert_eq!(kind(500, "VM 100 is not running"), ErrorKind::Conflict);
        assert_eq!(kind(500, "got timeout"), ErrorKind::Unexpected);
        assert_eq!(kind(403, "not available with API token, need proper ticket"), ErrorKind::Unsupported);
        assert_eq!(kind(403, "Permission check failed (/vms/100, VM.PowerMgmt)"), ErrorKind::PermissionDenied);
        assert_eq!(kind(400, "no such task"), ErrorKind::NotFound);
    }

    #[test]
    fn a_hostile_answer_is_a_bounded_line() {
        let reason = format!("a\u{1b}[31m\r\nb{}", "x".repeat(100_000));
        let line = error(500, &reason, "", Change::No).to_string();
        assert!(line.len() < 1000 && !line.contains(char::is_control), "{line}");
        let body = format!(r#"{{"message":["x"],"errors":{{"a":1,"b":"{}"}}}}"#, "y".repeat(100_000));
        let line = error(400, "bad", &body, Change::No).to_string();
        assert!(line.len() < 1000 && line.contains("a: refused"), "{line}");
        assert_eq!(error(302, "Found", "", Change::No).kind(), ErrorKind::Protocol);
        for body in ["", "[]", "{}", "null", "{\"data\":", &"[".repeat(100_000)] {
            assert_eq!(error(200, "OK", body, Change::No).kind(), ErrorKind::Protocol);
        }
        let secret = format!("{:?}", error(200, "OK", "{\"data\":{\"ticket\":\"hunter2\"", Change::No));
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
