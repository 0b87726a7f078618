//! [`Hijacked`]: a connection that the daemon upgraded to raw bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use crate::transport::{Body, Link};

/// An upgraded connection. Both halves dropped, it is closed.
#[derive(Debug)]
pub struct Hijacked {
    /// The content type that the daemon gave its bytes, as `application/vnd.docker.multiplexed-stream`; `None` where it says nothing. Not every
    /// daemon says it, and not every one says what is true.
    pub content_type: Option<String>,
    /// Bytes from the daemon.
    pub reader: HijackedReader,
    /// Bytes to the daemon. Shutting it down is the end of the input; the other direction stays open, unless the daemon or a proxy
    /// closes it.
    pub writer: HijackedWriter,
}

/// Asks for an upgraded connection.
pub(crate) fn ask(request: &mut hyper::Request<Body>) {
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
}

/// The content type of the answer, as the daemon wrote it.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

impl Hijacked {
    /// `None`: it is no connection of ours.
    pub(crate) fn new(content_type: Option<String>, upgraded: Upgraded) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<Link>>().ok()?;
        let (reader, writer) = tokio::io::split(parts.io.into_inner());
        Some(Self {
            content_type,
            reader: HijackedReader { first: parts.read_buf, link: reader },
            writer: HijackedWriter { link: writer },
        })
    }
}

/// Bytes from the daemon.
#[derive(Debug)]
pub struct HijackedReader {
    /// Bytes that came with the head.
    first: Bytes,
    link: ReadHalf<Link>,
}

impl AsyncRead for HijackedReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.link).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..length).unwrap_or_default());
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Bytes to the daemon.
#[derive(Debug)]
pub struct HijackedWriter {
    link: WriteHalf<Link>,
}

impl AsyncWrite for HijackedWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }
}
