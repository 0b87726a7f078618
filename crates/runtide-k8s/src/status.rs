//! Refusals of an API server: the [`ErrorKind`] of each, with the server's own message.

use std::{error::Error as StdError, io, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use runtide_core::{Error, ErrorKind, Retry, backend::CallSite};
use serde::Deserialize;
use tokio_rustls::rustls;

use crate::transport::{Unreached, causes};

/// Most characters of a refusal's text.
const LONGEST: usize = 1_000;

/// The server's `Status` object: the body of a refusal, and the object of a watch's `ERROR`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    code: Option<u16>,
    message: Option<String>,
    reason: Option<String>,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: Option<u64>,
    causes: Option<Vec<Cause>>,
}

/// One reason of several.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: Option<String>,
    message: Option<String>,
    field: Option<String>,
}

/// Reason of a cause: another field manager owns the field, with another value.
const FOREIGN_FIELD: &str = "FieldManagerConflict";
/// Most fields that an error names.
const MOST_FIELDS: usize = 32;

impl Details {
    /// The fields that other field managers own, each with its owner.
    fn foreign_fields(&self) -> Vec<String> {
        let causes = self.causes.iter().flatten();
        let causes = causes.filter(|cause| cause.reason.as_deref() == Some(FOREIGN_FIELD));
        let named = causes.map(|cause| {
            let (field, message) = (cause.field.as_deref().unwrap_or("?"), cause.message.as_deref());
            shortened(&message.map_or_else(|| field.to_owned(), |message| format!("{field} ({message})")))
        });
        named.take(MOST_FIELDS).collect()
    }
}

impl Status {
    pub(crate) fn is_expired(&self) -> bool {
        self.code == Some(410) || matches!(self.reason.as_deref(), Some("Expired" | "Gone"))
    }

    /// The error of a watch that the server ended with this.
    pub(crate) fn into_error(self, site: CallSite<'_>) -> Error {
        let code = self.code.unwrap_or(500);
        self.error(site, code, None)
    }

    fn error(self, site: CallSite<'_>, code: u16, after: Option<Duration>) -> Error {
        let reason = self.reason.as_deref().unwrap_or_default();
        let kind = match (code, reason) {
            (_, "AlreadyExists") => ErrorKind::AlreadyExists,
            (_, "Expired" | "Gone") | (410, _) => ErrorKind::Expired,
            (400 | 413 | 422, _) => ErrorKind::InvalidInput,
            // Refusals of an object, in the clothes of an outage.
            (500, _) if self.message.as_deref().is_some_and(is_refusal) => ErrorKind::InvalidInput,
            (401, _) => ErrorKind::Unauthenticated,
            (403, _) => ErrorKind::PermissionDenied,
            (404, _) => ErrorKind::NotFound,
            (405 | 406 | 415, _) => ErrorKind::Unsupported,
            (409, _) => ErrorKind::Conflict,
            (429, _) => ErrorKind::RateLimited,
            // 504 too: an answer came, so that it is no missed deadline.
            (500 | 502..=504, _) | (_, "ServerTimeout") => ErrorKind::Unavailable,
            _ => ErrorKind::Protocol,
        };
        let message = self.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let message = message.map_or_else(|| format!("the server answered {code}"), shortened);
        let mut error = site.error(kind, message).with_context("status", code);
        if !reason.is_empty() {
            error = error.with_context("reason", shortened(reason));
        }
        let foreign = self.details.as_ref().map(Details::foreign_fields).unwrap_or_default();
        if !foreign.is_empty() {
            error = error.with_context(FIELDS, foreign.join("; "));
        }
        let asked =
            after.or_else(|| self.details.and_then(|details| details.retry_after_seconds).map(Duration::from_secs));
        match asked {
            Some(pause) if matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable) => {
                error.with_retry(Retry::After(pause.min(Duration::from_secs(600))))
            }
            _ => error,
        }
    }
}

/// True for the text of a 500 that is about the object that was sent: it has a field that the schema has not (trap K27), or is longer than
/// etcd takes.
fn is_refusal(message: &str) -> bool {
    ["field not declared in schema", "failed to create typed patch object", "request is too large"]
        .iter()
        .any(|text| message.contains(text))
}

/// Key of an error's context: the fields that other field managers own.
pub(crate) const FIELDS: &str = "fields";

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// The error for a response whose status is no success.
pub(crate) fn of_response(site: CallSite<'_>, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let status = serde_json::from_slice::<Status>(body)
        .unwrap_or_else(|_| Status { message: Some(String::from_utf8_lossy(body).into_owned()), ..Status::default() });
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if code == StatusCode::BAD_REQUEST && body.starts_with(b"Client sent an HTTP request to an HTTPS server") {
        return site.error(ErrorKind::Protocol, "the server speaks TLS, and was asked in the clear: use https://");
    }
    status.error(site, code.as_u16(), after.map(Duration::from_secs))
}

/// The server has no such path, which says nothing of an object: that answer has a reason.
pub(crate) fn is_no_such_path(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && error.fact("reason").is_none()
}

/// The error for a server that could not be reached, or a connection that broke.
pub(crate) fn of_transport(site: CallSite<'_>, error: kube::Error) -> Error {
    let error = match error {
        kube::Error::Service(inner) => match inner.downcast::<Error>() {
            Ok(own) => return located(site, *own),
            Err(inner) => Broken::of(&*inner),
        },
        other => Broken::of(&other),
    };
    let kind = if error.is_tls || error.is_parse { ErrorKind::Protocol } else { ErrorKind::Unavailable };
    let poll = error.poll;
    let message = if error.is_tls {
        "no TLS connection to the server"
    } else if error.is_parse {
        "the peer does not speak HTTP"
    } else {
        "the connection to the server failed"
    };
    let error = site.error(kind, message).with_source(error);
    match poll {
        Some(interval) => error.with_retry(Retry::Poll(interval)),
        None => error,
    }
}

/// The error for a WebSocket that was not opened.
pub(crate) fn of_upgrade(site: CallSite<'_>, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(refused) if refused.code == 404 && refused.reason != "NotFound" => {
            // The node's words, or a proxy's. A kubelet that was just started does not know its pods.
            let message = shortened(refused.message.trim());
            site.error(ErrorKind::Unavailable, format!("the node does not know the pod: {message}"))
                .with_context("status", 404)
        }
        kube::Error::Api(refused) => {
            let code = StatusCode::from_u16(refused.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::to_vec(&refused).unwrap_or_default();
            of_response(site, code, &HeaderMap::new(), &body)
        }
        kube::Error::UpgradeConnection(error) => {
            site.error(ErrorKind::Protocol, "the server, or a proxy before it, opens no WebSocket").with_source(error)
        }
        other => of_transport(site, other),
    }
}

/// An error of our own below kube's client, with the backend's name.
fn located(site: CallSite<'_>, own: Error) -> Error {
    own.with_context("backend", site.owner())
}

/// A failed connection: the last text of its chain, which is the nearest to the cause.
#[derive(Debug)]
struct Broken {
    text: String,
    poll: Option<Duration>,
    is_tls: bool,
    is_parse: bool,
}

impl Broken {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut broken = Self { text: String::new(), poll: None, is_tls: false, is_parse: false };
        for cause in causes(error) {
            if let Some(unreached) = cause.downcast_ref::<Unreached>() {
                broken.poll = Some(unreached.interval);
            }
            broken.is_tls |= cause.is::<rustls::Error>();
            broken.is_parse |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
            let text = cause.to_string();
            if !text.is_empty() {
                broken.text = text;
            }
            if cause.downcast_ref::<io::Error>().is_some_and(|io| io.get_ref().is_none()) {
                break;
            }
        }
        broken
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Broken {}

#[cfg(test)]
mod tests {
    use runtide_core::BackendId;

    use super::*;

    fn error(code: u16, body: &str, after: Option<&str>) -> Error {
        let id = BackendId::from("k8s:test");
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().unwrap());
        }
        of_response(CallSite::new("k8s.list", &id), StatusCode::from_u16(code).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn every_refusal_has_its_kind_and_the_servers_message() {
        use ErrorKind::*;
        for (code, reason, kind) in [
            (400, "BadRequest", InvalidInput),
            (401, "Unauthorized", Unauthenticated),
            (403, "Forbidden", PermissionDenied),
            (404, "NotFound", NotFound),
            (405, "MethodNotAllowed", Unsupported),
            (409, "AlreadyExists", AlreadyExists),
            (409, "Conflict", Conflict),
            (410, "Expired", Expired),
            (410, "Gone", Expired),
            (413, "RequestEntityTooLarge", InvalidInput),
            (422, "Invalid", InvalidInput),
            (429, "TooManyRequests", RateLimited),
            (500, "InternalError", Unavailable),
            (500, "ServerTimeout", Unavailable),
            (503, "ServiceUnavailable", Unavailable),
            (504, "Timeout", Unavailable),
            (418, "", Protocol),
        ] {
            let body =
                format!(r#"{{"kind":"Status","message":"the server's own words","reason":"{reason}","code":{code}}}"#);
            let refused = error(code, &body, None);
            assert_eq!(refused.kind(), kind, "{code} {reason}");
            assert!(refused.to_string().contains("the server's own words"), "{refused}");
        }
    }

    #[test]
    fn a_node_that_does_not_know_a_pod_does_not_prove_that_there_is_none() {
        let id = BackendId::from("k8s:test");
        let of = |message: &str, reason: &str| {
            let refused = kube::core::Status::failure(message, reason).with_code(404);
            of_upgrade(CallSite::new("k8s.forward", &id), kube::Error::Api(Box::new(refused)))
        };
        let of_node = of("pod does not exist", "Failed to parse error data");
        assert!(
            of_node.kind() == ErrorKind::Unavailable && of_node.to_string().contains("pod does not exist"),
            "{of_node}"
        );
        assert_eq!(of("pods \"a\" not found", "NotFound").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_500_that_is_about_the_object_is_no_outage() {
        for text in [
            "failed to create typed patch object: .spec.nonsense: field not declared in schema",
            "etcdserver: request is too large",
        ] {
            let body = format!(r#"{{"kind":"Status","message":"{text}","code":500}}"#);
            let refused = error(500, &body, None);
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
            assert!(refused.to_string().contains(text), "{refused}");
        }
    }

    #[test]
    fn the_pause_that_a_server_asks_for_is_kept() {
        assert_eq!(error(429, "slow down", Some("7")).retry(), Retry::After(Duration::from_secs(7)));
        let body = r#"{"message":"Too large resource version","reason":"Timeout","code":504,"details":{"retryAfterSeconds":1}}"#;
        assert_eq!(error(504, body, None).retry(), Retry::After(Duration::from_secs(1)));
        assert_eq!(error(429, "", Some("99999999")).retry(), Retry::After(Duration::from_secs(600)));
        assert_eq!(error(403, "", Some("7")).retry(), Retry::Never);
    }

    #[test]
    fn a_body_that_is_no_status_is_its_own_message_and_bounded() {
        assert!(error(502, "<html>bad\r\ngateway", None).to_string().contains("<html>bad  gateway"));
        assert!(error(500, &"x".repeat(100_000), None).to_string().len() < 2_000);
        assert!(error(500, "", None).to_string().contains("the server answered 500"));
        assert!(error(500, "[", None).kind() == ErrorKind::Unavailable);
    }
}
