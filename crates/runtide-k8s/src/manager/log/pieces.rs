//! An output as the server sends it: lines, each behind its time and a space.
//!
//! The container engine writes a line that is longer than 16 KiB (other engines: 8 KiB) in pieces, and the server puts the time of
//! each piece into the middle of the line. There it is recognised by its place, behind a multiple of 8 KiB.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::client::Body;

/// Places at which engines break lines.
const BREAK: usize = 8 << 10;
/// Bytes of the longest time with its space: `2026-12-01T00:00:00.123456789+00:00 `.
const TIME: usize = 36;
/// Bytes after which a line that has no break is delivered in parts.
const LONGEST: usize = 64 << 10;

/// A line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: Timestamp,
    pub(super) bytes: Bytes,
}

/// A piece, or the text that was there in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Piece(Piece),
    /// A line without a time: the node's own words.
    Foreign(String),
    End,
}

/// The pieces of one response. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Pieces {
    body: Pin<Box<Body>>,
    buffer: BytesMut,
    /// Time of the line of which a part was delivered.
    part_of: Option<Timestamp>,
    is_over: bool,
}

/// The time at the beginning of the text, and the bytes that it takes with its space.
fn time(text: &[u8]) -> Option<(Timestamp, usize)> {
    let space = text.iter().take(TIME).position(|byte| *byte == b' ')?;
    let word = std::str::from_utf8(text.get(..space)?).ok()?;
    // A date alone is no time.
    let time = word.contains('T').then(|| word.parse().ok())??;
    Some((time, space + 1))
}

/// The end of the piece that begins this text; `None`: more of it is needed.
fn end(text: &[u8], is_over: bool) -> Option<usize> {
    let line = memchr::memchr(b'\n', text).map(|at| at + 1);
    let (all, is_whole) = (line.unwrap_or(text.len()), line.is_some() || is_over);
    let mut at = BREAK;
    while at < all && at < LONGEST {
        if text.get(at..).is_some_and(|rest| time(rest).is_some()) {
            return Some(at);
        }
        if !is_whole && at + TIME > all {
            return None;
        }
        at += BREAK;
    }
    // A break at the very end of what is there may be followed by a time.
    if is_whole { Some(all.min(LONGEST)) } else { (all >= LONGEST + TIME).then_some(LONGEST) }
}

impl Pieces {
    pub(super) fn new(body: Body) -> Self {
        Self { body: Box::pin(body), buffer: BytesMut::new(), part_of: None, is_over: false }
    }

    /// The next piece of the bytes that are there.
    fn split(&mut self) -> Option<Read> {
        if self.buffer.is_empty() {
            return None;
        }
        let at = match (self.part_of, time(&self.buffer)) {
            (Some(at), None) => at,
            (_, Some((at, length))) => {
                let _ = self.buffer.split_to(length);
                // Kept until the rest of the piece is there.
                self.part_of = Some(at);
                at
            }
            (None, None) => {
                let line = memchr::memchr(b'\n', &self.buffer);
                if self.buffer.len() < TIME && line.is_none() && !self.is_over {
                    return None;
                }
                let text = self.buffer.split_to(line.unwrap_or(self.buffer.len()).min(LONGEST));
                return Some(Read::Foreign(String::from_utf8_lossy(&text).into_owned()));
            }
        };
        let end = end(&self.buffer, self.is_over)?;
        let bytes = self.buffer.split_to(end).freeze();
        self.part_of = (!bytes.ends_with(b"\n")).then_some(at);
        Some(Read::Piece(Piece { at, bytes }))
    }

    /// The next piece. What was read of it is kept when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Read, kube::Error> {
        loop {
            if let Some(read) = self.split() {
                return Ok(read);
            }
            if self.is_over {
                return Ok(Read::End);
            }
            match self.body.frame().await {
                None => self.is_over = true,
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "2026-12-01T00:00:01.5Z ";
    const B: &str = "2026-12-01T00:00:01.600000001+00:00 ";

    /// The pieces of a text that arrives in frames of this many bytes.
    fn pieces(text: &[u8], frame: usize) -> Vec<Read> {
        let mut pieces = Pieces::new(Body::empty());
        let mut all = Vec::new();
        for part in text.chunks(frame) {
            pieces.buffer.extend_from_slice(part);
            while let Some(read) = pieces.split() {
                all.push(read);
            }
        }
        pieces.is_over = true;
        while let Some(read) = pieces.split() {
            all.push(read);
        }
        all
    }

    fn piece(at: &str, bytes: &[u8]) -> Read {
        Read::Piece(Piece { at: at.trim().parse().unwrap(), bytes: Bytes::copy_from_slice(bytes) })
    }

    #[test]
    fn lines_lose_their_times_and_nothing_else_however_they_arrive() {
        let text = [
            A.as_bytes(),
            b"one\n",
            B.as_bytes(),
            b"\n",
            A.as_bytes(),
            b"\xff\0 two",
            A.as_bytes(),
            b"\n",
            A.as_bytes(),
            b"end",
        ]
        .concat();
        let two = [b"\xff\0 two", A.as_bytes(), b"\n"].concat();
        let expected = [piece(A, b"one\n"), piece(B, b"\n"), piece(A, &two), piece(A, b"end")];
        for frame in [1, 2, 7, 23, 24, 1000] {
            assert_eq!(pieces(&text, frame), expected, "{frame}");
        }
    }

    #[test]
    fn the_times_that_the_server_puts_into_a_long_line_are_taken_out() {
        for broken_at in [8 << 10, 16 << 10] {
            let (first, second) = ("x".repeat(broken_at), format!("{}\n", "y".repeat(100)));
            let text = [A, &first, B, &second, A, "next\n"].concat();
            let expected = [piece(A, first.as_bytes()), piece(B, second.as_bytes()), piece(A, b"next\n")];
            for frame in [1, 1000, usize::MAX] {
                assert_eq!(pieces(text.as_bytes(), frame), expected, "{broken_at} {frame}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_delivered_in_parts() {
        let long = "z".repeat(200_000);
        let all = pieces([A, &long, "\n", B, "next\n"].concat().as_bytes(), 4096);
        let bytes: Vec<u8> = all
            .iter()
            .flat_map(|read| match read {
                Read::Piece(piece) => piece.bytes.to_vec(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(bytes.len(), 200_000 + 1 + 5);
        assert!(all.len() == 5, "{}", all.len());
    }

    #[test]
    fn the_nodes_own_words_are_told_from_output() {
        let text = "unable to retrieve container logs for containerd://abc";
        for frame in [1, 10, 1000] {
            let all = pieces(text.as_bytes(), frame);
            assert!(matches!(all.first(), Some(Read::Foreign(_))), "{all:?}");
        }
    }
}
