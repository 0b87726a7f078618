//! Classification of failures: the [`ErrorKind`] of a status, of a socket's error and of a missed deadline.

use std::io;

use runtide_core::{Error, ErrorKind, Retry, backend::CallSite};
use tokio_rustls::rustls;

use crate::transport::{Unreached, causes};

/// Classifies the errors of a call to the daemon.
pub(crate) trait DaemonErrors {
    /// The error for a response whose status is no success.
    fn status(self, status: u16, message: &str) -> Error;
    /// The error for a daemon that could not be reached, or a connection that broke.
    fn io(self, error: io::Error) -> Error;
    /// The error of a verb, as bollard reports it.
    fn bollard(self, error: bollard::errors::Error) -> Error;
}

impl DaemonErrors for CallSite<'_> {
    fn status(self, status: u16, message: &str) -> Error {
        if status == 400 && wants_tls(message) {
            let message = "the server speaks TLS, and was asked in the clear: use https://, or set DOCKER_TLS_VERIFY=1";
            return self.error(ErrorKind::Protocol, message).with_context("status", status);
        }
        let kind = of_status(status, message);
        let text = message.trim();
        let text = if text.is_empty() { format!("the daemon answered {status}") } else { text.to_owned() };
        self.error(kind, text).with_context("status", status)
    }

    fn io(self, error: io::Error) -> Error {
        if let Some((kind, message)) = of_tls(&error) {
            return self.error(kind, message).with_source(error);
        }
        let (kind, message) = match error.kind() {
            io::ErrorKind::NotFound => (ErrorKind::Unavailable, "there is no such socket (is the daemon up?)"),
            io::ErrorKind::ConnectionRefused => {
                (ErrorKind::Unavailable, "no process listens there (is the daemon up?)")
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                (ErrorKind::Unavailable, "the host cannot be reached (is its name right, and the network up?)")
            }
            io::ErrorKind::PermissionDenied => (
                ErrorKind::PermissionDenied,
                "this user may not open the socket: join the group that owns it (docker), or run as its owner",
            ),
            io::ErrorKind::TimedOut => (ErrorKind::Timeout, "the connection was not made in time"),
            io::ErrorKind::InvalidData => (
                ErrorKind::Protocol,
                "the peer does not speak http (is it the daemon? and over tcp: is TLS meant, with DOCKER_TLS_VERIFY=1?)",
            ),
            io::ErrorKind::Unsupported => (ErrorKind::Unsupported, "this platform has no unix sockets"),
            _ => (ErrorKind::Unavailable, "the connection broke"),
        };
        let unreached = causes(&error).find_map(|cause| cause.downcast_ref::<Unreached>());
        let retry = unreached.map(|unreached| Retry::Poll(unreached.interval));
        let error = self.error(kind, message).with_source(error);
        match retry {
            Some(retry) => error.with_retry(retry),
            None => error,
        }
    }

    fn bollard(self, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as Bollard;
        match error {
            Bollard::DockerResponseServerError { status_code, message } => self.status(status_code, &message),
            Bollard::RequestTimeoutError => self.error(ErrorKind::Timeout, "no answer in time"),
            Bollard::IOError { err } => self.io(err),
            Bollard::HyperResponseError { err } => self.io(crate::transport::as_io(err)),
            error
            @ (Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } | Bollard::StrParseError { .. }) => {
                self.error(ErrorKind::Protocol, "the answer cannot be read").with_source(error)
            }
            error @ (Bollard::URLEncodedError { .. }
            | Bollard::URLParseError { .. }
            | Bollard::InvalidURIError { .. }
            | Bollard::HttpClientError { .. }) => {
                self.error(ErrorKind::InvalidInput, "the request cannot be written").with_source(error)
            }
            error => self.error(ErrorKind::Unexpected, "the call failed").with_source(error),
        }
    }
}

/// The kind of every status.
pub(crate) fn of_status(status: u16, message: &str) -> ErrorKind {
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
        502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// Kind and advice for a failed TLS handshake anywhere in the causes; `None`: the error is not about TLS.
fn of_tls(error: &io::Error) -> Option<(ErrorKind, &'static str)> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    let tls = causes(error).find_map(|cause| cause.downcast_ref::<Tls>())?;
    Some(match tls {
        Tls::InvalidCertificate(why) => (
            ErrorKind::Unauthenticated,
            match why {
                Certificate::UnknownIssuer | Certificate::BadSignature => {
                    "no CA that is trusted here signed the server's certificate: name the CA that did (ca.pem in \
                     DOCKER_CERT_PATH, or Tls::with_ca)"
                }
                Certificate::Expired | Certificate::ExpiredContext { .. } => {
                    "the server's certificate has expired: renew it, or set this machine's clock"
                }
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    "the server's certificate is not valid yet: set the clock, here or where it was made"
                }
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    "the server's certificate is not for the name by which it was reached: use a name that is in it, or \
                     add this one"
                }
                _ => "the server's certificate cannot be accepted",
            },
        ),
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
        ) => (
            ErrorKind::Unauthenticated,
            "the server requires a client certificate that it trusts, and got none, or another one: name it and its key \
             (cert.pem and key.pem in DOCKER_CERT_PATH, or Tls::with_identity)",
        ),
        Tls::InvalidMessage(_) => (
            ErrorKind::Protocol,
            "the peer does not speak TLS: is it plain http (tcp://, without DOCKER_TLS_VERIFY), or another service?",
        ),
        Tls::PeerIncompatible(_) | Tls::AlertReceived(Alert::ProtocolVersion) => {
            (ErrorKind::Protocol, "the server and this client have no version of TLS in common (here: 1.2 and 1.3)")
        }
        _ => (ErrorKind::Protocol, "the TLS handshake failed"),
    })
}

/// The answers of Go's and of nginx's TLS listeners to plain http.
fn wants_tls(message: &str) -> bool {
    message.contains("HTTP request") && message.contains("to an HTTPS server")
        || message.contains("plain HTTP request was sent to HTTPS port")
}

/// "client version 1.99 is too new. Maximum supported API version is 1.41", and its opposite.
pub(crate) fn is_version_mismatch(message: &str) -> bool {
    message.contains("client version") && (message.contains("is too new") || message.contains("is too old"))
}

#[cfg(test)]
mod tests {
    use runtide_conformance::errors::repetition;
    use runtide_core::BackendId;

    use super::*;

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
        let backend = BackendId::from("docker:local");
        let site = CallSite::new("docker.list", &backend).with_endpoint("unix:///x");
        let table = [
            (io::ErrorKind::NotFound, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionRefused, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionReset, ErrorKind::Unavailable),
            (io::ErrorKind::HostUnreachable, ErrorKind::Unavailable),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
            (io::ErrorKind::TimedOut, ErrorKind::Timeout),
        ];
        for (io, kind) in table {
            let error = site.io(io.into());
            assert_eq!((error.kind(), repetition(&error)), (kind, None), "{io}");
        }
        assert!(site.io(io::ErrorKind::PermissionDenied.into()).to_string().contains("docker"));
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, io::Error::new(io::ErrorKind::InvalidData, untrusted));
        let error = site.io(wrapped);
        assert_eq!((error.kind(), repetition(&error)), (ErrorKind::Unauthenticated, None));
    }
}
