//! One file per capability: the verbs of [`Client`](crate::client::Client) other than watching.

mod exec;
mod image;
mod lifecycle;
mod log;
mod network;
mod provision;
mod snapshot;
mod stats;
mod volume;

use std::future::Future;

use runtide_core::Result;

use crate::{
    client::Client,
    fault::Call,
    runtime::{Connection, MemoryRuntime},
};

/// A connection that a stream reads from: the stream breaks with it, and closes it when it is dropped.
#[derive(Debug)]
struct Link {
    client: Client,
    connection: Connection,
    call: Call,
}

impl Link {
    /// Connects, and finds the stream's source.
    async fn open<T>(client: &Client, call: Call, find: impl FnOnce(&MemoryRuntime) -> Result<T>) -> Result<(Self, T)> {
        let connection = client.connect(call).await?;
        let found = find(&client.runtime).map_err(|error| error.with_context("backend", &client.config.id))?;
        Ok((Self { client: client.clone(), connection, call }, found))
    }

    /// The next item of the stream, unless the connection breaks or the backend is closed.
    async fn carry<T>(&self, next: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.client.session.closed() => Err(self.client.site(self.call).closed()),
            error = self.connection.broken() => Err(error.with_context("backend", &self.client.config.id)),
            next = next => Ok(next),
        }
    }
}
