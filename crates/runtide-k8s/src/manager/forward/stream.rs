//! The near end of a connection to a port: [`PortForward`].

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use runtide_core::{Error, ErrorKind, Failure, backend::lock};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::watch,
};

/// The failure of a connection, which is known before its pipe ends.
pub(super) type End = Arc<Mutex<Option<Failure>>>;

/// One connection to a port of a pod, through the API server and the pod's node. Each is a connection of its own in the pod, too.
///
/// # Behavior
/// * Reading and writing wait for each other nowhere, and each waits for its own peer: what the process does not read, and what the
///   application does not read, is not buffered without bound.
/// * The end of the stream is the end that the node reported. A connection that breaks off is an error, and so are the node's words where it
///   cannot reach the port: the `io::Error` holds a [`runtide_core::Error`] with them, and is `ConnectionRefused` where nothing listens.
/// * **No half-close**: Kubernetes' protocol ends both directions at once. A shutdown hands over what was written, and the process in the
///   pod is told of it only when the stream is dropped. A protocol in which one side speaks until its end of the stream cannot be carried.
/// * Bytes that were written are sent also after the stream was dropped, for up to 5 s; then the connection is closed. After its end the node
///   passes on no answer of the process.
/// * It ends with its backend, with an error.
pub struct PortForward {
    pub(super) pipe: DuplexStream,
    pub(super) end: End,
    /// The task on the other end of the pipe sees that this one is gone.
    pub(super) _held: watch::Sender<()>,
}

impl PortForward {
    fn failure(&self) -> Option<io::Error> {
        lock(&self.end).as_ref().map(|failure| {
            let error = Error::from(failure.clone());
            let is_refused = error.kind() == ErrorKind::Unexpected && error.message().contains("connection refused");
            let kind = match error.kind() {
                _ if is_refused => io::ErrorKind::ConnectionRefused,
                ErrorKind::Unavailable => io::ErrorKind::ConnectionAborted,
                ErrorKind::Timeout => io::ErrorKind::TimedOut,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })
    }
}

impl AsyncRead for PortForward {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, wants) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        match self.failure() {
            Some(failure) if wants > 0 && buf.filled().len() == before => Poll::Ready(Err(failure)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for PortForward {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.failure().unwrap_or(error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl fmt::Debug for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortForward").finish_non_exhaustive()
    }
}
