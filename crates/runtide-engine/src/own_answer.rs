//! [`OwnAnswer`]: an answer whose end the daemon must learn: dropped, it closes its connection at once.
//!
//! A connection of the pool is driven by a task, which learns that an answer was dropped with the next bytes of the daemon's: for a
//! pull from a registry that stalls, never.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use runtide_core::{Result, backend::CallSite};

use crate::{
    client::Client,
    connection::Driven,
    dialect::Dialect,
    request::{Request, of_path},
    transport::{Body, Link, as_io},
};

/// The body of an answer on a connection of its own, which is driven as it is read. The request's body is sent at the same time. It
/// ends with `Cancelled` once the client is closed.
pub struct OwnAnswer<D: Dialect> {
    client: Client<D>,
    operation: &'static str,
    /// Kept, since a dropped sender shuts the connection down.
    _sender: http1::SendRequest<Body>,
    connection: Driven<http1::Connection<TokioIo<Link>, Body>>,
    body: Incoming,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<D: Dialect> OwnAnswer<D> {
    /// Sends a request on a connection of its own, and waits for the head of the answer: for what the daemon must stop when it is no
    /// longer wanted. Without a deadline it is for an answer that begins only when the daemon has read all of the request, or has
    /// prepared all of the answer.
    ///
    /// # Errors
    /// As [`Client::call`]; without a deadline `Timeout` only of the negotiation and of the connection attempt.
    ///
    /// # Cancel safety
    /// A dropped future closes the connection.
    pub async fn open(
        client: &Client<D>,
        operation: &'static str,
        request: Request,
        deadline: Option<Duration>,
    ) -> Result<Self> {
        let site = client.site(operation);
        let opened = async {
            let request = of_path(client.write(site, request).await?);
            let (mut sender, connection) = client.shake(site).await?;
            let mut connection = Driven::new(connection);
            let response = connection.drive(sender.send_request(request)).await;
            let response = response.map_err(|error| client.broken(site, as_io(error)))?;
            // The body of an error needs the connection driven while it is read.
            let response = connection.drive(client.succeeded(site, response)).await?;
            let body = response.into_body();
            let (owner, waiting) = (client.clone(), client.clone());
            let closed = Box::pin(async move { waiting.closed().await });
            Ok(Self { client: owner, operation, _sender: sender, connection, body, closed })
        };
        match deadline {
            Some(deadline) => client.until_closed(operation, client.within(site, deadline, opened)).await,
            None => client.until_closed(operation, opened).await,
        }
    }

    /// The client that opened it.
    pub fn client(&self) -> &Client<D> {
        &self.client
    }

    /// Operation of its call.
    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    /// The site of its call, for errors.
    pub fn site(&self) -> CallSite<'_> {
        self.client.site(self.operation)
    }
}

impl<D: Dialect> Stream for OwnAnswer<D> {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            // Also where the daemon sends without a pause.
            this.client.check_open(this.operation)?;
            let body = &mut this.body;
            let Poll::Ready(frame) = this.connection.poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx)) else {
                ready!(this.closed.as_mut().poll(cx));
                continue;
            };
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(this.client.broken(this.client.site(this.operation), as_io(error)))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

impl<D: Dialect> fmt::Debug for OwnAnswer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnAnswer").field("operation", &self.operation).finish_non_exhaustive()
    }
}
