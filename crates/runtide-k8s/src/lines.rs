//! Lines of a response that does not end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use hyper::body::Body as _;
use kube::client::Body;

/// Bytes of the longest line: no object of a Kubernetes server has more than some MiB.
const LONGEST: usize = 64 << 20;

/// The lines of one response. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Pin<Box<Body>>,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no line break.
    searched: usize,
}

/// Result of reading a line.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(Bytes),
    /// The response ended, between two lines or within one: what was torn comes again with the next watch.
    End,
    /// A line that is longer than any object.
    TooLong,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self { body: Box::pin(body), buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line. The part of a line that was read is kept for the next call.
    pub(crate) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Line, kube::Error>> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', fresh) {
                let mut line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                return Poll::Ready(Ok(Line::Whole(line.freeze())));
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST {
                return Poll::Ready(Ok(Line::TooLong));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Ok(Line::End)),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// True if a whole line is at hand.
    pub(crate) fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.buffer.get(self.searched..).unwrap_or_default()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_and_a_torn_one_is_the_end() {
        let mut lines = Lines::new(Body::from(b"one\n\xff\n\ntorn".to_vec()));
        let mut seen = Vec::new();
        loop {
            match std::future::poll_fn(|cx| lines.poll_line(cx)).await.unwrap() {
                Line::Whole(line) => seen.push(line),
                Line::End => break,
                Line::TooLong => panic!("too long"),
            }
        }
        assert_eq!(seen, [&b"one"[..], b"\xff", b""]);
    }
}
