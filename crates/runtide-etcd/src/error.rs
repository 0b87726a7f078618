//! Meaning of a failed attempt: [`Fault`], by the status that the member sent.

use std::{error::Error as StdError, io, time::Duration};

use runtide_core::{
    Error, ErrorKind, Retry,
    backend::{CallSite, poll_interval},
};
use tonic::{Code, ConnectError, Status};

/// Interval of attempts at a member without a leader, which refuses before it does anything.
const LEADERLESS: Duration = Duration::from_millis(100);

/// A failed attempt at one member.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// The request may have had, or may yet have, its effect. `false` for [`Recovery::Alarm`], which a read settles.
    pub(crate) uncertain: bool,
    pub(crate) recovery: Recovery,
}

impl Fault {
    /// An alarm of the cluster refused the write, which has had its effect all the same, or will have none: a read shows which.
    ///
    /// A member checks the quota when it takes a write, and again when it applies it. If others used it up in between, it applies the
    /// write, and answers that there is no space. Where the data differ nothing is applied.
    pub(crate) fn may_have_landed(&self) -> bool {
        self.recovery == Recovery::Alarm && self.error.kind() != ErrorKind::Corrupt
    }
}

/// Way to go on after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// None: another attempt fails the same way.
    None,
    /// Another attempt, at the next member if there are several.
    NextMember,
    /// Another attempt, after authenticating again.
    Authenticate,
    /// The same read with a smaller limit.
    SmallerPage,
    /// None for a write: an alarm of the cluster refuses it. A read may succeed, and without space a delete.
    ///
    /// A refused write may have [landed](Fault::may_have_landed) all the same.
    Alarm,
    /// None for this revision: it is compacted.
    Compacted,
    /// None for this revision: the cluster has not reached it.
    FutureRevision,
}

/// The fault of a call at one member.
pub(crate) trait Faults {
    /// No response came within the limit: the request may have had its effect.
    fn timed_out(self, limit: Duration) -> Fault;

    /// The member answered with this status, or no member was reached.
    fn fault(self, status: Status) -> Fault;
}

impl Faults for CallSite<'_> {
    fn timed_out(self, limit: Duration) -> Fault {
        Fault { error: self.timeout(limit), uncertain: true, recovery: Recovery::NextMember }
    }

    fn fault(self, status: Status) -> Fault {
        if let Some(why) = unreachable(&status) {
            let mut error = self.error(ErrorKind::Unavailable, why);
            if let Some(interval) = poll_of(&status) {
                error = error.with_retry(Retry::Poll(interval));
            }
            return Fault { error, uncertain: false, recovery: Recovery::NextMember };
        }
        let (kind, uncertain, recovery) = meaning(status.code(), status.message());
        let mut error = self.error(kind, text(&status));
        if text(&status) == "no leader" {
            error = error.with_retry(Retry::Poll(LEADERLESS));
        }
        Fault { error: error.with_causes_of(&status), uncertain, recovery }
    }
}

/// Interval at which a dial may be repeated, if it reached no member.
fn poll_of(status: &Status) -> Option<Duration> {
    let causes = std::iter::successors(status.source(), |&cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(|error| poll_interval(error, false))
}

/// The member's words in a status, or those of its code.
pub(crate) fn text(status: &Status) -> &str {
    let text = status.message().trim();
    let text = text.strip_prefix("etcdserver: ").unwrap_or(text);
    if text.is_empty() { status.code().description() } else { text }
}

/// Reason why no connection was made, with its causes, if that is what failed; nothing was sent then.
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
            let is_tls = ["certificate", "handshake", "TLS", "tls"].iter().any(|word| text.contains(word));
            let how = if is_tls { "TLS with certificates that both sides trust" } else { "on this address" };
            return Some(format!("no connection (is the member up, and does it speak {how}?): {text}"));
        }
        cause = error.source();
    }
    None
}

/// Kind of error, uncertainty and recovery of every status.
///
/// etcd uses one code for many failures, so its messages have to be read. They have been the same since 3.0, and etcd's own clients
/// read them too.
pub(crate) fn meaning(code: Code, text: &str) -> (ErrorKind, bool, Recovery) {
    let has = |words: &str| text.contains(words);
    match code {
        Code::OutOfRange if has("has been compacted") => (ErrorKind::Expired, false, Recovery::Compacted),
        Code::OutOfRange if has("future revision") => (ErrorKind::Expired, false, Recovery::FutureRevision),
        Code::OutOfRange if has("decoded message length too large") => {
            (ErrorKind::Unavailable, true, Recovery::SmallerPage)
        }
        Code::InvalidArgument if has("request is too large") => (ErrorKind::InvalidInput, false, Recovery::None),
        // The limit of gRPC, which is a little above etcd's.
        Code::ResourceExhausted if has("larger than max") => (ErrorKind::InvalidInput, false, Recovery::None),
        Code::ResourceExhausted if has("too many requests") => (ErrorKind::RateLimited, false, Recovery::NextMember),
        Code::ResourceExhausted if has("space exceeded") => (ErrorKind::Unavailable, false, Recovery::Alarm),
        // The members' data differ, and the cluster refuses to change them further.
        Code::DataLoss if has("corrupt cluster") => (ErrorKind::Corrupt, false, Recovery::Alarm),
        Code::InvalidArgument if has("invalid user ID or password") || has("user name is empty") => {
            (ErrorKind::Unauthenticated, false, Recovery::None)
        }
        Code::InvalidArgument if has("revision in header is old") => {
            (ErrorKind::Unauthenticated, false, Recovery::Authenticate)
        }
        Code::Unauthenticated => (ErrorKind::Unauthenticated, false, Recovery::Authenticate),
        Code::PermissionDenied => (ErrorKind::PermissionDenied, false, Recovery::None),
        Code::InvalidArgument | Code::FailedPrecondition => (ErrorKind::InvalidInput, false, Recovery::None),
        Code::Unimplemented => (ErrorKind::Unsupported, false, Recovery::None),
        // Refused before the request is proposed.
        Code::Unavailable if has("no leader") => (ErrorKind::Unavailable, false, Recovery::NextMember),
        // "possibly due to previous leader failure", "… connection lost": the proposal may be on its way.
        Code::Unavailable if has("request timed out") => (ErrorKind::Timeout, true, Recovery::NextMember),
        Code::DeadlineExceeded => (ErrorKind::Timeout, true, Recovery::NextMember),
        _ => (ErrorKind::Unavailable, true, Recovery::NextMember),
    }
}

#[cfg(test)]
mod tests {
    use runtide_conformance::errors::repetition;

    use super::*;

    fn site() -> CallSite<'static> {
        CallSite::of_store("etcd.apply", "etcd:a").with_endpoint("http://a:2379")
    }

    #[test]
    fn every_answer_of_etcd_has_its_kind() {
        let table = [
            (Code::InvalidArgument, "etcdserver: request is too large", ErrorKind::InvalidInput, false),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", ErrorKind::Expired, false),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", ErrorKind::Expired, false),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::Unavailable, false),
            (Code::DataLoss, "etcdserver: corrupt cluster", ErrorKind::Corrupt, false),
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
        for (code, text, kind, uncertain) in table {
            let fault = site().fault(Status::new(code, text));
            assert_eq!((fault.error.kind(), fault.uncertain), (kind, uncertain), "{code:?} {text}");
            assert!(fault.error.to_string().contains("endpoint=http://a:2379"), "{}", fault.error);
            assert_eq!(repetition(&fault.error), None, "{code:?} {text}");
        }
    }

    #[test]
    fn a_request_never_sent_differs_from_one_that_may_have_been() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let fault = site().fault(status);
        assert_eq!(
            (fault.error.kind(), fault.uncertain, fault.recovery),
            (ErrorKind::Unavailable, false, Recovery::NextMember)
        );
        assert_eq!(repetition(&fault.error), None);
        let io = || std::io::Error::other("broken pipe");
        let transport = Status::from_error(Box::new(io()));
        let mut sent = Status::unknown("h2 protocol error: error reading a body from connection");
        sent.set_source(std::sync::Arc::new(io()));
        for status in [transport, sent] {
            assert_eq!(repetition(&site().fault(status).error), None);
        }
        assert_eq!(
            fault.error.to_string(),
            "etcd.apply: unavailable: no connection (is the member up, and does it speak on this address?): connection \
             refused (store=etcd:a, endpoint=http://a:2379)"
        );
        assert!(matches!(fault.error.retry(), Retry::Poll(_)), "{:?}", fault.error);
        let fault = site().fault(Status::new(Code::Unavailable, "etcdserver: no leader"));
        assert_eq!(fault.error.retry(), Retry::Poll(LEADERLESS));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let fault = site().fault(Status::from_error(Box::new(ConnectError(Box::new(reset)))));
        assert_eq!(fault.error.retry(), Retry::Backoff);
    }
}
