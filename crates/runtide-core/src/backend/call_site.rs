//! [`CallSite`]: operation, backend and endpoint of a call, for its errors and its deadline.

use std::{error::Error as StdError, future::Future, time::Duration};

use crate::{
    error::{Error, ErrorKind, Result},
    instance::BackendId,
};

/// Operation, backend and endpoint of one call. A backend classifies its errors in its own extension trait.
///
/// ```
/// use runtide_core::{BackendId, ErrorKind, backend::CallSite};
///
/// let id = BackendId::from("docker:local");
/// let site = CallSite::new("docker.list", &id).with_endpoint("unix:///run/docker.sock");
/// assert_eq!(
///     site.error(ErrorKind::Unavailable, "the connection broke").to_string(),
///     "docker.list: unavailable: the connection broke (backend=docker:local, endpoint=unix:///run/docker.sock)",
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CallSite<'a> {
    operation: &'static str,
    /// The context's key and value: `backend` or `store`.
    owner: (&'static str, &'a str),
    endpoint: Option<&'a str>,
}

impl<'a> CallSite<'a> {
    /// A call of a runtime's backend.
    pub fn new(operation: &'static str, backend: &'a BackendId) -> Self {
        Self { operation, owner: ("backend", backend.as_str()), endpoint: None }
    }

    /// A call of a store.
    pub fn of_store(operation: &'static str, store: &'a str) -> Self {
        Self { operation, owner: ("store", store), endpoint: None }
    }

    /// Adds the address. It must not hold a credential: it is shown in every error.
    #[must_use]
    pub fn with_endpoint(self, endpoint: &'a str) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// The name of the operation, as `docker.list`.
    pub fn operation(self) -> &'static str {
        self.operation
    }

    /// The name of the backend or of the store.
    pub fn owner(self) -> &'a str {
        self.owner.1
    }

    /// An error of this call, with its owner and its endpoint in the context.
    pub fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        let (key, owner) = self.owner;
        let error = Error::new(kind, self.operation, message).with_context(key, owner);
        match self.endpoint {
            Some(endpoint) => error.with_context("endpoint", endpoint),
            None => error,
        }
    }

    /// `Timeout`: the deadline passed without an answer.
    pub fn timeout(self, deadline: Duration) -> Error {
        self.error(ErrorKind::Timeout, format!("no answer within {deadline:?}"))
    }

    /// `Protocol`: an answer came that cannot be read.
    pub fn undecodable(self, cause: impl StdError + Send + Sync + 'static) -> Error {
        self.error(ErrorKind::Protocol, "the answer cannot be read").with_source(cause)
    }

    /// `Cancelled`: the backend was closed before the call, or during it.
    pub fn closed(self) -> Error {
        self.error(ErrorKind::Cancelled, "the backend was closed")
    }

    /// Runs the call within its deadline.
    ///
    /// # Behavior
    /// * The call is dropped when the deadline passes, so that its outcome is unknown.
    /// * A call that is ready at once succeeds with any deadline, also with zero ([`check_deadline`](super::check_deadline)
    ///   refuses that in a configuration); the longest `Duration` never passes.
    ///
    /// # Errors
    /// `Timeout` with the deadline in its message; otherwise the call's own error.
    pub fn within<T>(
        self,
        deadline: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        // Boxed here, before the first await: a call of a daemon is a future of many KiB, which each caller up to the verb would
        // otherwise contain twice.
        let call = Box::pin(call);
        async move {
            match tokio::time::timeout(deadline, call).await {
                Ok(done) => done,
                Err(_) => Err(self.timeout(deadline)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_misses_its_deadline_says_which() {
        let id = BackendId::from("demo");
        let site = CallSite::new("demo.stop", &id);
        let error = site.within(Duration::from_secs(30), std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.to_string(), "demo.stop: timeout: no answer within 30s (backend=demo)");
        for deadline in [Duration::ZERO, Duration::MAX] {
            assert_eq!(site.within(deadline, async { Ok(3) }).await.unwrap(), 3, "{deadline:?}");
        }
    }

    #[test]
    fn a_store_is_named_as_such() {
        let site = CallSite::of_store("etcd.apply", "etcd:a").with_endpoint("http://127.0.0.1:2379");
        assert_eq!(
            site.closed().to_string(),
            "etcd.apply: cancelled: the backend was closed (store=etcd:a, endpoint=http://127.0.0.1:2379)"
        );
        assert_eq!((site.operation(), site.owner()), ("etcd.apply", "etcd:a"));
    }
}
