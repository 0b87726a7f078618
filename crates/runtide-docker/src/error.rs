//! Errors of the verbs, as bollard reports them, and the remedies that errors name.

use runtide_core::{Error, ErrorKind, backend::CallSite};
use runtide_engine::{
    as_io,
    error::{Advice, of_answer, of_io},
};

/// Remedies in the words of the `docker` command's users.
pub(crate) const ADVICE: Advice = Advice {
    socket: "join the group that owns it (docker), or run as its owner",
    use_tls: "use https://, or set DOCKER_TLS_VERIFY=1",
    is_tls: "and over tcp: is TLS meant, with DOCKER_TLS_VERIFY=1?",
    ca: "ca.pem in DOCKER_CERT_PATH, or Tls::with_ca",
    identity: "cert.pem and key.pem in DOCKER_CERT_PATH, or Tls::with_identity",
    no_tls: "is it plain http (tcp://, without DOCKER_TLS_VERIFY), or another service?",
};

/// The error of a verb, as bollard reports it.
pub(crate) fn of_verb(site: CallSite<'_>, error: bollard::errors::Error) -> Error {
    use bollard::errors::Error as Bollard;
    match error {
        Bollard::DockerResponseServerError { status_code, message } => of_answer(site, &ADVICE, status_code, &message),
        Bollard::RequestTimeoutError => site.error(ErrorKind::Timeout, "no answer in time"),
        Bollard::IOError { err } => of_io(site, &ADVICE, err),
        Bollard::HyperResponseError { err } => of_io(site, &ADVICE, as_io(err)),
        error @ (Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } | Bollard::StrParseError { .. }) => {
            site.error(ErrorKind::Protocol, "the answer cannot be read").with_source(error)
        }
        error @ (Bollard::URLEncodedError { .. }
        | Bollard::URLParseError { .. }
        | Bollard::InvalidURIError { .. }
        | Bollard::HttpClientError { .. }) => {
            site.error(ErrorKind::InvalidInput, "the request cannot be written").with_source(error)
        }
        error => site.error(ErrorKind::Unexpected, "the call failed").with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use runtide_core::BackendId;

    use super::*;

    #[test]
    fn a_verbs_error_is_classified_as_that_of_any_other_call() {
        use bollard::errors::Error as Bollard;
        let backend = BackendId::from("docker:local");
        let site = CallSite::new("docker.start", &backend).with_endpoint("unix:///x");
        let refused =
            Bollard::DockerResponseServerError { status_code: 404, message: "No such container: x".to_owned() };
        assert_eq!(of_verb(site, refused).kind(), ErrorKind::NotFound);
        let broken = of_verb(site, Bollard::IOError { err: io::ErrorKind::PermissionDenied.into() });
        assert_eq!(broken.kind(), ErrorKind::PermissionDenied);
        assert!(broken.to_string().contains("docker), or run as its owner"), "{broken}");
    }
}
