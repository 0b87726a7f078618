//! Classification of failures: the [`ErrorKind`] of a status, of a socket's error and of a missed deadline.

use std::io;

use runtide_core::{Error, ErrorKind, Retry, backend::CallSite};
use tokio_rustls::rustls;

use crate::{
    ssh,
    transport::{Unreached, causes},
};

/// Remedies that an error names, in the words of one engine's users.
#[derive(Clone, Copy, Debug)]
pub struct Advice {
    /// For a socket that this user may not open.
    pub socket: &'static str,
    /// For a server that speaks TLS and was asked in the clear.
    pub use_tls: &'static str,
    /// For a peer that may speak TLS.
    pub is_tls: &'static str,
    /// Names of the CA's file.
    pub ca: &'static str,
    /// Names of the files with the client's certificate and key.
    pub identity: &'static str,
    /// Reasons for which a peer does not speak TLS.
    pub no_tls: &'static str,
}

/// The error for a response whose status is no success.
pub fn of_answer(site: CallSite<'_>, advice: &Advice, status: u16, message: &str) -> Error {
    if status == 400 && wants_tls(message) {
        let message = format!("the server speaks TLS, and was asked in the clear: {}", advice.use_tls);
        return site.error(ErrorKind::Protocol, message).with_context("status", status);
    }
    let kind = of_status(status, message);
    let text = message.trim();
    let text = if text.is_empty() { format!("the daemon answered {status}") } else { text.to_owned() };
    site.error(kind, text).with_context("status", status)
}

/// The error for a daemon that could not be reached, or a connection that broke.
pub fn of_io(site: CallSite<'_>, advice: &Advice, error: io::Error) -> Error {
    if let Some(failure) = causes(&error).find_map(|cause| cause.downcast_ref::<ssh::Failure>()) {
        return failure.clone().into_error(site);
    }
    if let Some((kind, message)) = of_tls(&error, advice) {
        return site.error(kind, message).with_source(error);
    }
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::Unavailable, "there is no such socket (is the daemon up?)".to_owned()),
        io::ErrorKind::ConnectionRefused => {
            (ErrorKind::Unavailable, "no process listens there (is the daemon up?)".to_owned())
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (ErrorKind::Unavailable, "the host cannot be reached (is its name right, and the network up?)".to_owned())
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, format!("this user may not open the socket: {}", advice.socket))
        }
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, "the connection was not made in time".to_owned()),
        io::ErrorKind::InvalidData => {
            (ErrorKind::Protocol, format!("the peer does not speak http (is it the daemon? {})", advice.is_tls))
        }
        io::ErrorKind::Unsupported => (ErrorKind::Unsupported, "this platform has no unix sockets".to_owned()),
        _ => (ErrorKind::Unavailable, "the connection broke".to_owned()),
    };
    let unreached = causes(&error).find_map(|cause| cause.downcast_ref::<Unreached>());
    let retry = unreached.map(|unreached| Retry::Poll(unreached.interval));
    let error = site.error(kind, message).with_source(error);
    match retry {
        Some(retry) => error.with_retry(retry),
        None => error,
    }
}

/// The kind of every status.
pub fn of_status(status: u16, message: &str) -> ErrorKind {
    match status {
        // The daemon's API version changed; the client forgets the negotiated one, so that the next call can succeed.
        400 if is_version_mismatch(message) => ErrorKind::Unavailable,
        400 => ErrorKind::InvalidInput,
        401 | 407 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 | 410 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::Timeout,
        409 if message.contains("is already in use by") => ErrorKind::AlreadyExists,
        409 | 412 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited,
        // Podman has no status of its own for what is removed while the request is under way.
        500 if is_gone(message) => ErrorKind::NotFound,
        502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// `true` if the daemon itself answered: no request is under way any more, and an inspection shows the outcome. A proxy that got no answer
/// says so with a status, too.
pub fn is_answer(error: &Error) -> bool {
    error.fact("status").is_some_and(|status| !matches!(status, "408" | "502" | "503" | "504"))
}

/// Kind and advice for a failed TLS handshake anywhere in the causes; `None`: the error is not about TLS.
fn of_tls(error: &io::Error, advice: &Advice) -> Option<(ErrorKind, String)> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    let tls = causes(error).find_map(|cause| cause.downcast_ref::<Tls>())?;
    let untrusted = |why: String| (ErrorKind::Unauthenticated, why);
    let protocol = |why: String| (ErrorKind::Protocol, why);
    Some(match tls {
        Tls::InvalidCertificate(why) => untrusted(match why {
            Certificate::UnknownIssuer | Certificate::BadSignature => format!(
                "no CA that is trusted here signed the server's certificate: name the CA that did ({})",
                advice.ca
            ),
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it, or set this machine's clock".to_owned()
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: set the clock, here or where it was made".to_owned()
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "the server's certificate is not for the name by which it was reached: use a name that is in it, or add this one"
                    .to_owned()
            }
            _ => "the server's certificate cannot be accepted".to_owned(),
        }),
        // The last one is Go's answer to a client without a certificate, up to TLS 1.2.
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure,
        ) => untrusted(format!(
            "the server requires a client certificate that it trusts, and got none, or another one: name it and its key ({})",
            advice.identity
        )),
        Tls::InvalidMessage(_) => protocol(format!("the peer does not speak TLS: {}", advice.no_tls)),
        Tls::PeerIncompatible(_) | Tls::AlertReceived(Alert::ProtocolVersion) => {
            protocol("the server and this client have no version of TLS in common (here: 1.2 and 1.3)".to_owned())
        }
        _ => protocol("the TLS handshake failed".to_owned()),
    })
}

/// "container a1 does not exist in database: no such container", and "container a1 is not valid: container has already been removed".
fn is_gone(message: &str) -> bool {
    ["no such container", "no such pod", "has already been removed"].iter().any(|end| message.ends_with(end))
}

/// The answers of Go's and of nginx's TLS listeners to plain http.
fn wants_tls(message: &str) -> bool {
    message.contains("HTTP request") && message.contains("to an HTTPS server")
        || message.contains("plain HTTP request was sent to HTTPS port")
}

/// "client version 1.99 is too new. Maximum supported API version is 1.41", and its opposite.
pub fn is_version_mismatch(message: &str) -> bool {
    message.contains("client version") && (message.contains("is too new") || message.contains("is too old"))
}

#[cfg(test)]
mod tests {
    use runtide_conformance::errors::repetition;
    use runtide_core::BackendId;

    use super::*;

    const ADVICE: Advice = Advice {
        socket: "join the group",
        use_tls: "use it",
        is_tls: "is it TLS?",
        ca: "ca.pem",
        identity: "cert.pem",
        no_tls: "is it http?",
    };

    #[test]
    fn every_status_has_its_kind() {
        let table = [
            (400, "bad parameter", ErrorKind::InvalidInput),
            (400, "client version 1.99 is too new. Maximum supported API version is 1.41", ErrorKind::Unavailable),
            (401, "", ErrorKind::Unauthenticated),
            (403, "authorization denied by plugin", ErrorKind::PermissionDenied),
            (404, "No such container: x", ErrorKind::NotFound),
            (409, "Conflict. The container name \"/a\" is already in use by container \"b\"", ErrorKind::AlreadyExists),
            (409, "container is paused", ErrorKind::Conflict),
            (429, "", ErrorKind::RateLimited),
            (500, "", ErrorKind::Unexpected),
            (500, "container a1 does not exist in database: no such container", ErrorKind::NotFound),
            (501, "", ErrorKind::Unsupported),
            (502, "", ErrorKind::Unavailable),
            (503, "", ErrorKind::Unavailable),
            (504, "", ErrorKind::Timeout),
            (302, "", ErrorKind::Unexpected),
        ];
        for (status, message, kind) in table {
            assert_eq!(of_status(status, message), kind, "{status} {message}");
        }
    }

    #[test]
    fn every_socket_error_has_its_kind_and_says_what_to_do() {
        let backend = BackendId::from("engine:local");
        let site = CallSite::new("engine.list", &backend).with_endpoint("unix:///x");
        let table = [
            (io::ErrorKind::NotFound, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionRefused, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionReset, ErrorKind::Unavailable),
            (io::ErrorKind::HostUnreachable, ErrorKind::Unavailable),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
            (io::ErrorKind::TimedOut, ErrorKind::Timeout),
        ];
        for (io, kind) in table {
            let error = of_io(site, &ADVICE, io.into());
            assert_eq!((error.kind(), repetition(&error)), (kind, None), "{io}");
        }
        assert!(of_io(site, &ADVICE, io::ErrorKind::PermissionDenied.into()).to_string().contains("join the group"));
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, io::Error::new(io::ErrorKind::InvalidData, untrusted));
        let error = of_io(site, &ADVICE, wrapped);
        assert_eq!((error.kind(), repetition(&error)), (ErrorKind::Unauthenticated, None));
    }
}
