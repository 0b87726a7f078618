//! [`Feed`]: one answer of JSON values that goes on, as `/events` has it, opened and read.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Response,
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use runtide_core::{ErrorKind, Result};

use crate::{
    client::Client,
    connection::Driven,
    dialect::Dialect,
    request::{Request, of_path},
    transport::{Body, Link, as_io},
};

/// Bytes of the longest value; a longer one is an error.
const MAX_VALUE: usize = 8 * 1024 * 1024;

/// Bytes gathered before they are decoded together: most chunks hold a single event.
const AT_ONCE: usize = 64 * 1024;

/// An answer that goes on. It has its own connection, driven by the reader's poll: no task, no hand-over, and closed when dropped.
pub struct Feed<D: Dialect> {
    client: Client<D>,
    operation: &'static str,
    /// Kept, since a dropped sender shuts the connection down.
    _sender: http1::SendRequest<Body>,
    connection: Driven<http1::Connection<TokioIo<Link>, Body>>,
    state: State,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were consumed.
    read: usize,
    /// End of the response, held back until the bytes before it are read.
    over: Option<Result<bool>>,
}

enum State {
    /// The request is sent, and the head is still to come.
    Awaited(Pin<Box<dyn Future<Output = Result<Response<Incoming>>> + Send>>),
    Body(Incoming),
    /// The end or the error was given out.
    Over,
}

impl<D: Dialect> fmt::Debug for Feed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("operation", &self.operation)
            .field("has_head", &self.has_head())
            .finish_non_exhaustive()
    }
}

impl<D: Dialect> Feed<D> {
    /// Sends the request and waits for the head of its answer, within the client's deadline.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open(client: &Client<D>, operation: &'static str, request: Request) -> Result<Self> {
        let site = client.site(operation);
        let opened = async {
            let mut feed = Self::send(client, operation, request).await?;
            feed.answered().await?;
            Ok(feed)
        };
        client.within(site, client.deadline(), opened).await
    }

    /// Sends the request and waits for the head for `patience` at most: not every daemon sends a head before it has something to
    /// say (trap P2). A refusal that comes later is the error of [`poll_more`](Self::poll_more).
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open_patiently(
        client: &Client<D>,
        operation: &'static str,
        request: Request,
        patience: Duration,
    ) -> Result<Self> {
        let site = client.site(operation);
        let sent = Self::send(client, operation, request);
        let mut feed = client.within(site, client.deadline(), sent).await?;
        match tokio::time::timeout(patience, feed.answered()).await {
            Ok(answered) => answered.map(|()| feed),
            Err(_) => Ok(feed),
        }
    }

    async fn send(client: &Client<D>, operation: &'static str, request: Request) -> Result<Self> {
        let site = client.site(operation);
        let request = of_path(client.write(site, request).await?);
        let (mut sender, connection) = client.shake(site).await?;
        let response = sender.send_request(request);
        let owner = client.clone();
        let answered = async move {
            let site = owner.site(operation);
            let response = response.await.map_err(|error| owner.broken(site, as_io(error)))?;
            owner.succeeded(site, response).await
        };
        Ok(Self {
            client: client.clone(),
            operation,
            _sender: sender,
            connection: Driven::new(connection),
            state: State::Awaited(Box::pin(answered)),
            buffer: Vec::new(),
            read: 0,
            over: None,
        })
    }

    /// Waits for the head.
    async fn answered(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_head(cx)).await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let State::Awaited(answered) = &mut self.state else { return Poll::Ready(Ok(())) };
        let answered = ready!(self.connection.poll_with(cx, |cx| answered.as_mut().poll(cx)));
        // Also after a refusal: the future that gave it cannot be polled again.
        self.state = State::Over;
        self.state = State::Body(answered?.into_body());
        Poll::Ready(Ok(()))
    }

    /// The head of the answer has come.
    pub fn has_head(&self) -> bool {
        !matches!(self.state, State::Awaited(_))
    }

    /// Bytes that arrived and were not consumed.
    pub fn unread(&self) -> &[u8] {
        self.buffer.get(self.read..).unwrap_or_default()
    }

    /// Marks the first `length` of the unread bytes as read.
    pub fn consume(&mut self, length: usize) {
        self.read = (self.read + length).min(self.buffer.len());
        if self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        }
    }

    /// `true`: more bytes are unread; `false`: the daemon ended the response. Polled again after an end or an error, it never has
    /// more.
    ///
    /// # Errors
    /// `Unavailable` for a connection that broke, `Protocol` for a value over 8 MiB; by its status for a head that came late.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        if let Some(over) = self.over.take() {
            self.state = State::Over;
            return Poll::Ready(over);
        }
        ready!(self.poll_head(cx))?;
        self.buffer.drain(..self.read);
        self.read = 0;
        let before = self.buffer.len();
        while self.buffer.len() - before < AT_ONCE {
            let over = match self.poll_data(cx) {
                Poll::Pending if self.buffer.len() == before => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) if self.buffer.len() + data.len() <= MAX_VALUE => {
                    self.buffer.extend_from_slice(&data);
                    continue;
                }
                Poll::Ready(Some(Ok(_))) => {
                    let site = self.client.site(self.operation);
                    Err(site.error(ErrorKind::Protocol, "a message is longer than 8 MiB"))
                }
                Poll::Ready(Some(Err(error))) => {
                    Err(self.client.broken(self.client.site(self.operation), as_io(error)))
                }
                Poll::Ready(None) => Ok(false),
            };
            if self.buffer.len() == before {
                self.state = State::Over;
                return Poll::Ready(over);
            }
            self.over = Some(over);
            break;
        }
        Poll::Ready(Ok(true))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        let body = match &mut self.state {
            State::Awaited(_) => return Poll::Pending,
            State::Body(body) => body,
            State::Over => return Poll::Ready(None),
        };
        loop {
            if let Poll::Ready(data) = poll_chunk(body, cx) {
                return Poll::Ready(data);
            }
            if self.connection.has_ended() {
                return Poll::Ready(None);
            }
            // Polling the connection reads the socket into the body. The connection's own error arrives through the body.
            self.connection.poll(cx);
            if !self.connection.has_ended() {
                return poll_chunk(body, cx);
            }
        }
    }
}

/// The next chunk that is not empty.
fn poll_chunk(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                _ => {}
            },
            end => return Poll::Ready(end.map(|frame| frame.map(|_| Bytes::new()))),
        }
    }
}
