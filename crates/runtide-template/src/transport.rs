//! One connection that carries lines.
//!
//! FORK: it serves any protocol of lines on a Unix socket. For another protocol, put its client here; no type of a client library
//! leaves `transport.rs` and `client.rs`.

use std::{io, path::Path};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// Bytes of the longest line; a longer one is an error, so that no peer decides how much memory is used.
const LONGEST: usize = 8 << 20;

/// Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Connection {
    pub(crate) async fn dial(socket: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket).await?), partial: Vec::new() })
    }

    /// Sends one line. A text with a line break would be two: it is refused.
    pub(crate) async fn send(&mut self, line: &str) -> io::Result<()> {
        if line.contains(['\n', '\r']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a line break inside a request"));
        }
        self.stream.write_all(format!("{line}\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// The next line without its end; `None`: the peer closed the connection between two lines. It is bytes, so that one that is
    /// no text is refused by itself, in `normalize.rs`, and breaks neither a listing nor a stream.
    ///
    /// # Cancel safety
    /// The part of a line that was read is kept for the next call.
    pub(crate) async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let bytes = self.stream.fill_buf().await?;
            if bytes.is_empty() {
                let is_cut = !std::mem::take(&mut self.partial).is_empty();
                return if is_cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (taken, used) = end.map_or((bytes.len(), bytes.len()), |end| (end, end + 1));
            self.partial.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            self.stream.consume(used);
            if self.partial.len() > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
        }
    }

    /// `true` if a whole line is at hand: the next call of [`line`](Self::line) need not wait.
    pub(crate) fn has_line(&self) -> bool {
        self.stream.buffer().contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_is_no_text_hides_no_other() {
        let (mut peer, stream) = UnixStream::pair().unwrap();
        let mut connection = Connection { stream: BufReader::new(stream), partial: Vec::new() };
        peer.write_all(b"\xff\nnext\n").await.unwrap();
        assert_eq!(connection.line().await.unwrap().unwrap(), b"\xff");
        assert_eq!(connection.line().await.unwrap().unwrap(), b"next");
    }
}
