//! [`Hijacked`]: a connection that the daemon upgraded to raw bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
    upgrade,
};
use hyper_util::rt::TokioIo;
use runtide_core::{ErrorKind, Result, backend::CallSite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use crate::{
    client::Client,
    connection::Driven,
    dialect::Dialect,
    transport::{Body, Link, as_io},
};

/// An upgraded connection. Both halves dropped, it is closed.
#[derive(Debug)]
pub struct Hijacked {
    /// What the daemon says of its bytes, as `application/vnd.docker.multiplexed-stream`; `None` where it says nothing. Not every
    /// daemon says it, and not every one says what is true.
    pub content_type: Option<String>,
    /// Bytes from the daemon.
    pub reader: HijackedReader,
    /// Bytes to the daemon. Shutting it down is the end of the input; the other direction stays open, unless the daemon or a proxy
    /// closes it.
    pub writer: HijackedWriter,
}

impl Hijacked {
    pub(crate) async fn open<D: Dialect>(
        client: &Client<D>,
        site: CallSite<'_>,
        mut request: hyper::Request<Body>,
    ) -> Result<Self> {
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let broken = |error| client.broken(site, as_io(error));
        let (mut sender, connection) = client.shake(site).await?;
        let mut connection = Driven::new(connection.with_upgrades());
        let response = connection.drive(sender.send_request(request)).await.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // The body of an error needs the connection driven while it is read.
            connection.drive(client.succeeded(site, response)).await?;
            return Err(
                site.error(ErrorKind::Protocol, "the daemon did not upgrade the connection (is a proxy in between?)")
            );
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let upgraded = connection.drive(upgrade::on(response)).await.map_err(broken)?;
        let Ok(parts) = upgraded.downcast::<TokioIo<Link>>() else {
            return Err(site.error(ErrorKind::Unexpected, "the upgraded connection is another one"));
        };
        let (reader, writer) = tokio::io::split(parts.io.into_inner());
        Ok(Self {
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
