//! The input of a process with a terminal, whose end is the character that a user types for it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncWrite, DuplexStream};

/// Ctrl-D. In the middle of a line it only passes the line on, so that it takes two.
const END: &[u8] = b"\x04\x04";

pub(super) struct Typed {
    pipe: DuplexStream,
    is_in_line: bool,
    /// Characters of the end that are still to be written; `None` before it.
    left: Option<&'static [u8]>,
}

impl Typed {
    pub(super) fn new(pipe: DuplexStream) -> Self {
        Self { pipe, is_in_line: false, left: None }
    }
}

impl AsyncWrite for Typed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.left.is_some() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the input was ended")));
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes))?;
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.is_in_line = !matches!(last, b'\n' | b'\r');
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let all = END.get(usize::from(!self.is_in_line)..).unwrap_or_default();
        let mut left = self.left.unwrap_or(all);
        while !left.is_empty() {
            // Set first: an end that was begun is gone on with.
            self.left = Some(left);
            let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, left))?;
            left = left.get(written..).unwrap_or_default();
        }
        self.left = Some(left);
        Poll::Ready(Ok(()))
    }
}
