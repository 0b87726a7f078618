//! What a failure means: [`ErrorKind`] by the daemon's status, by the socket's error, by the deadline.

use std::{io, time::Duration};

use runtide_core::{BackendId, Error, ErrorKind};
use tokio_rustls::rustls;

/// Where a call was made. No endpoint carries a credential: [`Endpoint`](crate::Endpoint) refuses them.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) operation: &'static str,
    pub(crate) backend: &'a BackendId,
    pub(crate) endpoint: &'a str,
}

impl Place<'_> {
    pub(crate) fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, self.operation, message)
            .with_context("backend", self.backend)
            .with_context("endpoint", self.endpoint)
    }

    /// The daemon answered with something other than success.
    pub(crate) fn status(self, status: u16, message: &str) -> Error {
        let kind = of_status(status, message);
        let text = message.trim();
        let text = if text.is_empty() { format!("the daemon answered {status}") } else { text.to_owned() };
        self.error(kind, text).with_context("status", status)
    }

    /// The daemon could not be reached, or the connection broke.
    pub(crate) fn io(self, error: io::Error) -> Error {
        if let Some(kind) = of_tls(&error) {
            let message = "the TLS handshake failed: one side does not trust the other's certificate, or misses it";
            return self.error(kind, message).with_source(error);
        }
        let (kind, message) = match error.kind() {
            io::ErrorKind::NotFound => (ErrorKind::Unavailable, "there is no such socket: is the daemon up?"),
            io::ErrorKind::ConnectionRefused => (ErrorKind::Unavailable, "nobody answers: is the daemon up?"),
            io::ErrorKind::PermissionDenied => (
                ErrorKind::PermissionDenied,
                "this user may not open the socket: join the group that owns it (docker), or run as its owner",
            ),
            io::ErrorKind::TimedOut => (ErrorKind::Timeout, "the connection was not made in time"),
            io::ErrorKind::InvalidData => (ErrorKind::Protocol, "the peer does not speak as expected"),
            io::ErrorKind::Unsupported => (ErrorKind::Unsupported, "this platform has no unix sockets"),
            _ => (ErrorKind::Unavailable, "the connection broke"),
        };
        self.error(kind, message).with_source(error)
    }

    pub(crate) fn timeout(self, deadline: Duration) -> Error {
        self.error(ErrorKind::Timeout, format!("no answer within {deadline:?}"))
    }

    pub(crate) fn undecodable(self, error: serde_json::Error) -> Error {
        self.error(ErrorKind::Protocol, "the answer cannot be read").with_source(error)
    }

    pub(crate) fn bollard(self, error: bollard::errors::Error) -> Error {
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

/// Total: every status has a kind.
pub(crate) fn of_status(status: u16, message: &str) -> ErrorKind {
    match status {
        // The daemon's API version moved under us; the client forgets what it negotiated, so the next call can succeed.
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

/// What a handshake's failure means, wherever in the causes it is; `None`: it was no failed handshake.
fn of_tls(error: &io::Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(
                    rustls::AlertDescription::CertificateRequired
                    | rustls::AlertDescription::BadCertificate
                    | rustls::AlertDescription::UnknownCA
                    | rustls::AlertDescription::CertificateUnknown
                    | rustls::AlertDescription::CertificateExpired
                    | rustls::AlertDescription::AccessDenied,
                ) => Some(ErrorKind::Unauthenticated),
                _ => None,
            };
        }
        // An I/O error's source is the source of what it wraps, which would be passed over.
        let wrapped = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    None
}

/// "client version 1.99 is too new. Maximum supported API version is 1.41", and its opposite.
pub(crate) fn is_version_mismatch(message: &str) -> bool {
    message.contains("client version") && (message.contains("is too new") || message.contains("is too old"))
}

#[cfg(test)]
mod tests {
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
        let place = Place { operation: "docker.list", backend: &backend, endpoint: "unix:///x" };
        let table = [
            (io::ErrorKind::NotFound, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionRefused, ErrorKind::Unavailable),
            (io::ErrorKind::ConnectionReset, ErrorKind::Unavailable),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
            (io::ErrorKind::TimedOut, ErrorKind::Timeout),
        ];
        for (io, kind) in table {
            assert_eq!(place.io(io.into()).kind(), kind, "{io}");
        }
        assert!(place.io(io::ErrorKind::PermissionDenied.into()).to_string().contains("docker"));
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, io::Error::new(io::ErrorKind::InvalidData, untrusted));
        assert_eq!(place.io(wrapped).kind(), ErrorKind::Unauthenticated);
    }
}
