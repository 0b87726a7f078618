//! What a failure means: [`Fault`], by the status that came back.

use std::error::Error as StdError;

use runtide_core::{Error, ErrorKind};
use tonic::{Code, ConnectError, Status};

/// Why one attempt at one member failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Whether the request may have had, or may yet have, its effect.
    pub(crate) maybe: bool,
    /// What can be done about it.
    pub(crate) cure: Cure,
}

/// What can be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Nothing: another attempt gives the same.
    None,
    /// Another attempt, at another member if there is one.
    Elsewhere,
    /// Another attempt after authenticating anew.
    Authenticate,
    /// Ask for less at a time.
    Less,
    /// The revision that was asked for is not kept any more.
    Compacted,
    /// The revision that was asked for has not been reached.
    Future,
}

/// Where and in which call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) operation: &'static str,
    pub(crate) store: &'a str,
    pub(crate) endpoint: &'a str,
}

impl Place<'_> {
    pub(crate) fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, self.operation, message)
            .with_context("store", self.store)
            .with_context("endpoint", self.endpoint)
    }

    /// Nothing came back in time.
    pub(crate) fn silent(self, limit: std::time::Duration) -> Fault {
        let error = self.error(ErrorKind::Timeout, format!("no answer within {limit:?}"));
        Fault { error, maybe: true, cure: Cure::Elsewhere }
    }

    pub(crate) fn fault(self, status: Status) -> Fault {
        if let Some(why) = unreachable(&status) {
            let error = self.error(ErrorKind::Unavailable, why).with_source(status);
            return Fault { error, maybe: false, cure: Cure::Elsewhere };
        }
        let (kind, maybe, cure) = meaning(status.code(), status.message());
        let text = status.message().trim();
        let text = text.strip_prefix("etcdserver: ").unwrap_or(text);
        let text = if text.is_empty() { status.code().description() } else { text };
        Fault { error: self.error(kind, text).with_source(status), maybe, cure }
    }
}

/// Why there is no connection; nothing was sent then.
fn unreachable(status: &Status) -> Option<String> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(ConnectError(why)) = error.downcast_ref::<ConnectError>() {
            let mut text = why.to_string();
            let mut deeper = why.source();
            while let Some(error) = deeper {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                deeper = error.source();
            }
            return Some(format!("no connection (is the member up, and does it speak {})", if_tls(&text)) + &text);
        }
        cause = error.source();
    }
    None
}

fn if_tls(text: &str) -> &'static str {
    let tls = ["certificate", "handshake", "TLS", "tls"].iter().any(|word| text.contains(word));
    if tls { "TLS with certificates that both sides trust?): " } else { "on this address?): " }
}

/// Total: every status has a kind, whether it may have had its effect, and a cure.
///
/// etcd gives one code to many things, so that its texts have to be read; they have been the same since 3.0, and clients of
/// its own read them too.
pub(crate) fn meaning(code: Code, text: &str) -> (ErrorKind, bool, Cure) {
    let says = |words: &str| text.contains(words);
    match code {
        Code::OutOfRange if says("has been compacted") => (ErrorKind::Expired, false, Cure::Compacted),
        Code::OutOfRange if says("future revision") => (ErrorKind::Expired, false, Cure::Future),
        Code::OutOfRange if says("decoded message length too large") => (ErrorKind::Unavailable, true, Cure::Less),
        Code::InvalidArgument if says("request is too large") => (ErrorKind::InvalidInput, false, Cure::None),
        // gRPC's own limit, which is a little above etcd's.
        Code::ResourceExhausted if says("larger than max") => (ErrorKind::InvalidInput, false, Cure::None),
        Code::ResourceExhausted if says("too many requests") => (ErrorKind::RateLimited, false, Cure::Elsewhere),
        Code::ResourceExhausted if says("space exceeded") => (ErrorKind::Unavailable, false, Cure::None),
        Code::InvalidArgument if says("invalid user ID or password") || says("user name is empty") => {
            (ErrorKind::Unauthenticated, false, Cure::None)
        }
        Code::InvalidArgument if says("revision in header is old") => {
            (ErrorKind::Unauthenticated, false, Cure::Authenticate)
        }
        Code::Unauthenticated => (ErrorKind::Unauthenticated, false, Cure::Authenticate),
        Code::PermissionDenied => (ErrorKind::PermissionDenied, false, Cure::None),
        Code::InvalidArgument | Code::FailedPrecondition => (ErrorKind::InvalidInput, false, Cure::None),
        Code::Unimplemented => (ErrorKind::Unsupported, false, Cure::None),
        // Said before the request is looked at.
        Code::Unavailable if says("no leader") => (ErrorKind::Unavailable, false, Cure::Elsewhere),
        // "possibly due to previous leader failure", "… connection lost": the proposal may be on its way.
        Code::Unavailable if says("request timed out") => (ErrorKind::Timeout, true, Cure::Elsewhere),
        Code::DeadlineExceeded => (ErrorKind::Timeout, true, Cure::Elsewhere),
        _ => (ErrorKind::Unavailable, true, Cure::Elsewhere),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { operation: "etcd.apply", store: "etcd:a", endpoint: "http://a:2379" };

    #[test]
    fn every_answer_of_etcd_has_its_kind() {
        let table = [
            (Code::InvalidArgument, "etcdserver: request is too large", ErrorKind::InvalidInput, false),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", ErrorKind::Expired, false),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", ErrorKind::Expired, false),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::Unavailable, false),
            (Code::ResourceExhausted, "etcdserver: too many requests", ErrorKind::RateLimited, false),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied, false),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::Unauthenticated, false),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::Unauthenticated,
                false,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::Unauthenticated, false),
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable, false),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::Timeout, true),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
                ErrorKind::Timeout,
                true,
            ),
            (Code::Unavailable, "etcdserver: leader changed", ErrorKind::Unavailable, true),
            (Code::Unavailable, "etcdserver: server stopped", ErrorKind::Unavailable, true),
            (Code::Unknown, "raft proposal dropped", ErrorKind::Unavailable, true),
            (Code::Unknown, "h2 protocol error: error reading a body from connection", ErrorKind::Unavailable, true),
            (Code::Cancelled, "", ErrorKind::Unavailable, true),
            (Code::DeadlineExceeded, "", ErrorKind::Timeout, true),
        ];
        for (code, text, kind, maybe) in table {
            let fault = PLACE.fault(Status::new(code, text));
            assert_eq!((fault.error.kind(), fault.maybe), (kind, maybe), "{code:?} {text}");
            assert!(fault.error.to_string().contains("endpoint=http://a:2379"), "{}", fault.error);
        }
    }

    #[test]
    fn what_was_never_sent_is_told_from_what_may_have_been() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let fault = PLACE.fault(status);
        assert_eq!((fault.error.kind(), fault.maybe, fault.cure), (ErrorKind::Unavailable, false, Cure::Elsewhere));
        assert!(fault.error.to_string().contains("refused"), "{}", fault.error);
    }
}
