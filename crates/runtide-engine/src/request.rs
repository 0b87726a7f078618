//! [`Request`]: one request, written before it is known with which version it is sent.

use std::{fmt, io};

use bytes::Bytes;
use futures_core::Stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{
    Method,
    body::Frame,
    header::{self, HeaderName, HeaderValue},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use runtide_core::{Error, ErrorKind, Result, backend::CallSite};
use serde::Serialize;

use crate::transport::{Body, BoxError};

/// Characters that need no escape in a segment of a path or in a value of a query.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The text as one segment of a path: no character of it ends the segment, or begins the query. A segment of dots alone is not
/// escaped, so that an id is checked before it is sent.
///
/// ```
/// assert_eq!(runtide_engine::segment("a/b?c").to_string(), "a%2Fb%3Fc");
/// ```
pub fn segment(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, UNESCAPED)
}

/// One request. Its path begins after the version, which the client adds.
///
/// A value that cannot be written (a header with a newline in it, JSON that cannot be encoded) is the error of the call.
///
/// ```
/// use runtide_engine::Request;
///
/// let stop = Request::post("/containers/web/stop").with_query("t", 10);
/// assert_eq!(stop.path_and_query(), "/containers/web/stop?t=10");
/// ```
pub struct Request {
    method: Method,
    path: String,
    /// The path has a query.
    has_query: bool,
    is_unversioned: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
    /// The first value that cannot be written, and why.
    invalid: Option<(String, BoxError)>,
}

impl fmt::Debug for Request {
    /// Without query, headers and body, which may hold credentials, as a build's arguments do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        f.debug_struct("Request").field("method", &self.method).field("path", &path).finish_non_exhaustive()
    }
}

impl Request {
    fn new(method: Method, path_and_query: impl Into<String>) -> Self {
        let path = path_and_query.into();
        Self {
            method,
            has_query: path.contains('?'),
            path,
            is_unversioned: false,
            headers: Vec::new(),
            body: empty(),
            invalid: None,
        }
    }

    /// A `GET`.
    pub fn get(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::GET, path_and_query)
    }

    /// A `HEAD`.
    pub fn head(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path_and_query)
    }

    /// A `POST`, without a body.
    pub fn post(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::POST, path_and_query)
    }

    /// A `PUT`, without a body.
    pub fn put(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::PUT, path_and_query)
    }

    /// A `DELETE`.
    pub fn delete(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path_and_query)
    }

    /// Adds a parameter to the query, with its value escaped.
    #[must_use]
    pub fn with_query(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.path.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        let value = value.to_string();
        self.path.extend(utf8_percent_encode(key, UNESCAPED));
        self.path.push('=');
        self.path.extend(utf8_percent_encode(&value, UNESCAPED));
        self
    }

    /// Adds a header. Its value is in no log.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                self.headers.push((name, value));
                self
            }
            (Err(error), _) => self.invalidate(format!("'{}' is no name of a header", name.escape_debug()), error),
            (_, Err(error)) => self.invalidate(format!("the header {name} cannot have this value"), error),
        }
    }

    /// Sets a body of JSON, with its content type.
    #[must_use]
    pub fn with_json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => {
                self.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
                self.body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
                self
            }
            Err(error) => self.invalidate("the request's body cannot be written".to_owned(), error),
        }
    }

    /// Sets a body that is sent as it comes, chunk by chunk. A chunk that is an error breaks the request off.
    #[must_use]
    pub fn with_body(
        mut self,
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        content_type: &'static str,
    ) -> Self {
        self.headers.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        self.body = StreamBody::new(Frames(Box::pin(stream))).boxed_unsync();
        self
    }

    /// Sends it without the version in front of the path.
    #[must_use]
    pub fn unversioned(mut self) -> Self {
        self.is_unversioned = true;
        self
    }

    /// The path and the query, as they are after the version.
    pub fn path_and_query(&self) -> &str {
        &self.path
    }

    pub(crate) fn is_unversioned(&self) -> bool {
        self.is_unversioned
    }

    fn invalidate(mut self, message: String, error: impl Into<BoxError>) -> Self {
        self.invalid.get_or_insert((message, error.into()));
        self
    }

    /// The request as hyper's pool takes it, with the whole address; [`of_path`] makes it one for a connection of its own.
    pub(crate) fn write(self, site: CallSite<'_>, authority: &str, prefix: &str) -> Result<hyper::Request<Body>> {
        let unwritable = |message: String| -> Error { site.error(ErrorKind::InvalidInput, message) };
        if let Some((message, error)) = self.invalid {
            return Err(unwritable(message).with_source(BoxedError(error)));
        }
        let mut request = hyper::Request::builder()
            .method(self.method)
            .uri(format!("http://{authority}{prefix}{}", self.path))
            .header(header::HOST, authority)
            .body(self.body)
            .map_err(|error| unwritable("the request cannot be written".to_owned()).with_source(error))?;
        for (name, value) in self.headers {
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// The request with the path alone in its first line, as a server takes it. hyper's pool does that by itself.
pub(crate) fn of_path(mut request: hyper::Request<Body>) -> hyper::Request<Body> {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A stream of chunks as the frames of a body.
struct Frames<S>(std::pin::Pin<Box<S>>);

impl<S: Stream<Item = io::Result<Bytes>>> Stream for Frames<S> {
    type Item = std::result::Result<Frame<Bytes>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let chunk = self.0.as_mut().poll_next(cx);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data).map_err(BoxError::from)))
    }
}

/// A boxed error as a source.
#[derive(Debug)]
struct BoxedError(BoxError);

impl fmt::Display for BoxedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BoxedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::BackendId;

    use super::*;

    fn written(request: Request) -> Result<hyper::Request<Body>> {
        let id = BackendId::from("engine:test");
        request.write(CallSite::new("engine.test", &id), "localhost", "/v1.41")
    }

    #[test]
    fn a_request_is_written_with_its_version_and_escaped_values() {
        let request = Request::post("/images/create")
            .with_query("fromImage", "a b&c=d")
            .with_query("all", true)
            .with_header("X-Registry-Auth", "e30=")
            .with_json(&[1, 2]);
        let shown = format!("{request:?}");
        assert!(
            shown.contains("\"/images/create\"") && !shown.contains("e30=") && !shown.contains("fromImage"),
            "{shown}"
        );
        let written = written(request).unwrap();
        assert_eq!(written.uri().path_and_query().unwrap(), "/v1.41/images/create?fromImage=a%20b%26c%3Dd&all=true");
        assert_eq!(written.headers()["content-type"], "application/json");
        assert_eq!(written.headers()["x-registry-auth"], "e30=");
        let mixed = Request::get("/events?since=1").with_query("filters", "{}");
        assert_eq!(mixed.path_and_query(), "/events?since=1&filters=%7B%7D");
    }

    #[test]
    fn what_cannot_be_written_is_the_error_of_the_call() {
        let newline = Request::get("/").with_header("X-A", "a\r\nX-B: b");
        let name = Request::get("/").with_header("a b", "c");
        let keys = std::collections::BTreeMap::from([(vec![1], 2)]);
        for request in [newline, name, Request::post("/").with_json(&keys), Request::get("/a b")] {
            let error = written(request).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}
