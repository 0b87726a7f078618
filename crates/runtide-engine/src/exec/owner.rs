//! [`Owner`]: the call that opened a session, for as long as the session lasts.

use std::time::Duration;

use bytes::Bytes;
use runtide_core::{Error, ErrorKind, Result};

use crate::{client::Client, dialect::Dialect, request::Request};

/// The call that opened a session: its client, and its errors.
#[derive(Debug)]
pub struct Owner<D: Dialect> {
    /// The daemon's client.
    pub client: Client<D>,
    /// The call, in errors.
    pub operation: &'static str,
    /// Id of the container, which was checked: it is a part of paths.
    pub container: String,
    /// Silence after which a connection is doubted.
    pub max_silence: Duration,
}

impl<D: Dialect> Owner<D> {
    /// The same for another call on the session.
    #[must_use]
    pub fn of(&self, operation: &'static str) -> Self {
        Self { client: self.client.clone(), operation, container: self.container.clone(), ..*self }
    }

    /// An error of this call.
    pub fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(Error::new(kind, self.operation, message).with_context("backend", self.client.id()))
    }

    /// The error, with the container.
    pub fn located(&self, error: Error) -> Error {
        error.with_context("instance", &self.container)
    }

    /// The answer to a request, whole, within the client's deadline.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn send(&self, request: Request) -> Result<Bytes> {
        let answer = Box::pin(self.client.call(self.operation, request, self.client.deadline())).await;
        answer.map_err(|error| self.located(error))
    }

    /// Waits until the backend is closed; the error with which everything ends then.
    pub async fn closed(&self) -> Error {
        self.client.closed().await;
        self.located(self.client.site(self.operation).closed())
    }
}
