//! [`Input`]: the standard input of a process, and its end.
//!
//! * Without a terminal, the connection is shut down in this direction, once.
//! * With one, the daemon would end the *output* then. So the end is the character that a user types for it.
//! * The main process of a container that was created without `StdinOnce` never sees an end: the daemon would end the output
//!   instead, and leave the input open.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    runtime::Handle,
};

/// The character that means the end of the input (Ctrl-D). In the middle of a line it only passes the line on, so that it takes two.
const END_OF_INPUT: &[u8] = b"\x04\x04";

/// The way in which a process gets to know of the end of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By shutting the connection down in this direction.
    HalfClose,
    /// By the character that a user types for it.
    Typed,
    /// Not at all.
    Never,
}

impl End {
    /// For the main process of a container with these settings.
    pub fn of_main(tty: bool, stdin_once: bool) -> Self {
        match (tty, stdin_once) {
            (true, _) => Self::Typed,
            (false, true) => Self::HalfClose,
            (false, false) => Self::Never,
        }
    }
}

/// The input of a process, as a writer whose shutdown is its end.
#[derive(Debug)]
pub struct Input<W: AsyncWrite + Send + Unpin + 'static> {
    /// `None` once it is dropped.
    writer: Option<W>,
    end: End,
    /// Longest time that the end of a dropped input takes.
    deadline: Duration,
    /// The connection was shut down.
    is_shut: bool,
    /// A line has begun, and not ended.
    in_line: bool,
    /// Characters of the end that are still to be written; `None` before the shutdown.
    left: Option<&'static [u8]>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Input<W> {
    /// The input behind this connection. Dropped, it is ended within the deadline.
    pub fn new(writer: W, end: End, deadline: Duration) -> Self {
        Self { writer: Some(writer), end, deadline, is_shut: false, in_line: false, left: None }
    }

    fn writer(&mut self) -> io::Result<Pin<&mut W>> {
        self.writer.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> AsyncWrite for Input<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.left.is_some() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the input was ended")));
        }
        let written = ready!(self.writer()?.poll_write(cx, buf))?;
        if let Some(last) = buf.get(..written).and_then(<[u8]>::last) {
            self.in_line = !matches!(last, b'\n' | b'\r');
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.end {
            End::HalfClose => {
                this.left = Some(&[]);
                let shut = ready!(this.writer()?.poll_shutdown(cx));
                this.is_shut = true;
                Poll::Ready(shut)
            }
            End::Never => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the input of this container never ends: it was created without `StdinOnce`",
            ))),
            End::Typed => {
                let all = END_OF_INPUT.get(usize::from(!this.in_line)..).unwrap_or_default();
                let mut left = this.left.unwrap_or(all);
                while !left.is_empty() {
                    // Set first: what was begun is gone on with.
                    this.left = Some(left);
                    let written = ready!(this.writer()?.poll_write(cx, left))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    left = left.get(written..).unwrap_or_default();
                }
                this.left = Some(left);
                this.writer()?.poll_flush(cx)
            }
        }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Drop for Input<W> {
    /// As a pipe's: a dropped input is at its end. A terminal's is not: the session may be dropped with it, which detaches.
    fn drop(&mut self) {
        if self.end != End::HalfClose || self.is_shut {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        // A socket is shut down at once; TLS has bytes to send before it, which may have to wait for the daemon.
        let shut = Pin::new(&mut writer).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        if shut.is_pending()
            && let Ok(runtime) = Handle::try_current()
        {
            let deadline = self.deadline;
            runtime.spawn(async move {
                let shut = tokio::time::timeout(deadline, writer.shutdown()).await;
                tracing::trace!(?shut, "a dropped input was ended");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn input(end: End) -> (Input<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        (Input::new(near, end, DEADLINE), far)
    }

    async fn typed(written: &[u8]) -> Vec<u8> {
        let (mut input, mut far) = input(End::Typed);
        input.write_all(written).await.unwrap();
        input.shutdown().await.unwrap();
        input.shutdown().await.unwrap();
        assert_eq!(input.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(input);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        read
    }

    #[tokio::test]
    async fn with_a_terminal_the_end_is_typed_and_typed_twice_within_a_line() {
        assert_eq!(typed(b"").await, b"\x04");
        assert_eq!(typed(b"a\n").await, b"a\n\x04");
        assert_eq!(typed(b"a\r").await, b"a\r\x04");
        assert_eq!(typed(b"a").await, b"a\x04\x04");
    }

    #[tokio::test]
    async fn an_end_that_is_interrupted_is_gone_on_with() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut input = Input::new(near, End::Typed, DEADLINE);
        input.write_all(b"a").await.unwrap();
        let full = tokio::time::timeout(std::time::Duration::from_millis(1), input.shutdown()).await;
        assert!(full.is_err(), "nothing is read");
        let mut read = [0; 3];
        let (shut, got) = tokio::join!(input.shutdown(), far.read_exact(&mut read));
        shut.unwrap();
        got.unwrap();
        assert_eq!(&read, b"a\x04\x04");
    }

    #[tokio::test]
    async fn without_a_terminal_a_dropped_input_is_at_its_end() {
        let (input, mut far) = input(End::HalfClose);
        drop(input);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_dropped_input_whose_bytes_wait_is_ended_behind_them() {
        for is_begun in [false, true] {
            let (near, mut far) = tokio::io::duplex(1);
            let mut input = Input::new(tokio::io::BufWriter::new(near), End::HalfClose, DEADLINE);
            input.write_all(b"all of it").await.unwrap();
            if is_begun {
                let full = tokio::time::timeout(Duration::from_millis(1), input.shutdown()).await;
                assert!(full.is_err(), "nothing is read");
            }
            drop(input);
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"all of it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_input_whose_bytes_nothing_takes_is_closed_at_its_deadline() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut input = Input::new(tokio::io::BufWriter::new(near), End::HalfClose, DEADLINE);
        input.write_all(b"all of it").await.unwrap();
        drop(input);
        tokio::time::sleep(DEADLINE * 2).await;
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"a");
    }

    #[test]
    fn an_input_is_dropped_outside_of_a_runtime() {
        let (near, _far) = tokio::io::duplex(1);
        drop(Input::new(tokio::io::BufWriter::new(near), End::HalfClose, DEADLINE));
    }

    #[tokio::test]
    async fn an_input_without_an_end_says_so_and_goes_on() {
        let (mut input, mut far) = input(End::Never);
        assert_eq!(input.shutdown().await.unwrap_err().kind(), io::ErrorKind::Unsupported);
        input.write_all(b"more").await.unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"more");
    }

    #[test]
    fn the_main_process_has_the_end_that_its_container_was_created_with() {
        assert_eq!(End::of_main(true, true), End::Typed);
        assert_eq!(End::of_main(false, true), End::HalfClose);
        assert_eq!(End::of_main(false, false), End::Never);
    }
}
