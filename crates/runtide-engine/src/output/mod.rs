//! The framing of output (logs, exec, attach), pure: bytes in as they come, pieces of output out.
//!
//! The engines multiplex stdout and stderr in frames: one byte of stream, three zero bytes, the payload's length in four bytes
//! (big endian), the payload. One frame is one entry of the log. With a terminal there are no frames, only bytes.
//!
//! A length comes from the peer, so no memory is allocated by it: at most [`HELD`] bytes of a frame are buffered until the
//! rest arrives, and a longer frame comes out in several pieces.

mod entries;
pub mod timestamp;

use bytes::{Buf, Bytes, BytesMut};
use runtide_core::manager::LogSource;

use self::entries::Entries;

/// Bytes buffered of an unfinished frame or line. The daemon's own frames are at most 16 KiB and a time.
pub const HELD: usize = 64 * 1024;

/// A part of the output. One frame or line is one piece, unless it is longer than [`HELD`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its stream.
    pub origin: Origin,
    /// An entry begins here; otherwise this piece continues the entry before.
    pub starts: bool,
    /// The output.
    pub bytes: Bytes,
}

/// The stream of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The output of a program.
    Output(LogSource),
    /// The daemon's own error text: it could not read the log any further.
    Daemon,
}

/// The stream breaks the framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// These bytes are no frame's head.
    Head([u8; 8]),
    /// The stream ended inside a frame.
    Truncated,
}

/// Cuts a stream of bytes into pieces. Push a chunk, take pieces until there is none, push the next.
#[derive(Debug)]
pub struct Decoder {
    /// The present chunk: the HTTP client's own memory; pieces are slices of it where they can be.
    chunk: Bytes,
    /// Begin of a frame or line whose rest is in a later chunk.
    held: BytesMut,
    form: Form,
    /// No chunk follows.
    over: bool,
}

#[derive(Debug)]
enum Form {
    Head { bytes: [u8; 8], got: usize },
    Payload { origin: Origin, left: usize, starts: bool },
    Raw,
    Lines { starts: bool },
    Entries(Entries),
}

const NO_HEAD: Form = Form::Head { bytes: [0; 8], got: 0 };

impl Decoder {
    /// A decoder for frames.
    pub fn framed() -> Self {
        Self::of(NO_HEAD)
    }

    /// A decoder for a terminal's bytes. With times in front of the entries it finds the entries; else it cuts at newlines.
    pub fn console(stamped: bool) -> Self {
        Self::of(if stamped { Form::Entries(Entries::default()) } else { Form::Lines { starts: true } })
    }

    /// A decoder for a terminal's bytes as they come, a chunk at a time: a prompt has no newline.
    pub fn raw() -> Self {
        Self::of(Form::Raw)
    }

    fn of(form: Form) -> Self {
        Self { chunk: Bytes::new(), held: BytesMut::new(), form, over: false }
    }

    /// Adds the next chunk; every piece of the one before must have been taken.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the pieces of a chunk are taken before the next one is pushed");
        self.chunk = chunk;
    }

    /// The next piece; `None` when it needs more bytes.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes break the framing.
    #[allow(clippy::should_implement_trait, reason = "it is an iterator only up to the next chunk")]
    pub fn next(&mut self) -> Result<Option<Piece>, Malformed> {
        loop {
            match &mut self.form {
                Form::Head { bytes, got } => {
                    let Some(free) = bytes.get_mut(*got..) else { return Err(Malformed::Head(*bytes)) };
                    let taken = free.len().min(self.chunk.len());
                    if let Some(free) = free.get_mut(..taken) {
                        self.chunk.copy_to_slice(free);
                    }
                    *got += taken;
                    if *got < bytes.len() {
                        return if self.over && *got > 0 { Err(Malformed::Truncated) } else { Ok(None) };
                    }
                    self.form = payload(*bytes)?;
                }
                Form::Payload { left: 0, .. } => self.form = NO_HEAD,
                Form::Payload { origin, left, starts } => {
                    let space = HELD - self.held.len();
                    let taken = if self.held.is_empty() && self.chunk.len() >= *left {
                        *left
                    } else {
                        space.min(*left).min(self.chunk.len())
                    };
                    let part = self.chunk.split_to(taken);
                    *left -= taken;
                    let whole = *left == 0 || taken == space || self.over;
                    let Some(bytes) = joined(&mut self.held, part, whole) else { return Ok(None) };
                    if bytes.is_empty() {
                        return Err(Malformed::Truncated);
                    }
                    return Ok(Some(Piece { origin: *origin, starts: std::mem::take(starts), bytes }));
                }
                Form::Raw => {
                    let bytes = std::mem::take(&mut self.chunk);
                    let piece = Piece { origin: Origin::Output(LogSource::Console), starts: true, bytes };
                    return Ok((!piece.bytes.is_empty()).then_some(piece));
                }
                Form::Lines { starts } => {
                    let space = HELD - self.held.len();
                    let window = self.chunk.get(..space.min(self.chunk.len())).unwrap_or_default();
                    let newline = window.iter().position(|byte| *byte == b'\n');
                    let taken = newline.map_or(window.len(), |at| at + 1);
                    let part = self.chunk.split_to(taken);
                    let whole = newline.is_some() || taken == space || self.over;
                    let Some(bytes) = joined(&mut self.held, part, whole) else { return Ok(None) };
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let piece = Piece { origin: Origin::Output(LogSource::Console), starts: *starts, bytes };
                    *starts = newline.is_some();
                    return Ok(Some(piece));
                }
                Form::Entries(entries) => {
                    let space = HELD - self.held.len();
                    self.held.extend_from_slice(&self.chunk.split_to(space.min(self.chunk.len())));
                    let Some(cut) = entries.cut(&self.held, self.over && self.chunk.is_empty()) else {
                        return Ok(None);
                    };
                    let origin = if cut.complaint { Origin::Daemon } else { Origin::Output(LogSource::Console) };
                    let bytes = self.held.split_to(cut.length).freeze();
                    return Ok(Some(Piece { origin, starts: cut.starts, bytes }));
                }
            }
        }
    }

    /// Called after the last chunk: what is held comes out as pieces, and then the error if the stream was cut inside a frame.
    pub fn end(&mut self) {
        self.over = true;
    }
}

/// The whole piece, without a copy if no part of it is held; an unfinished one is held.
fn joined(held: &mut BytesMut, part: Bytes, whole: bool) -> Option<Bytes> {
    if whole && held.is_empty() {
        return Some(part);
    }
    held.extend_from_slice(&part);
    whole.then(|| held.split().freeze())
}

fn payload(head: [u8; 8]) -> Result<Form, Malformed> {
    let [stream, 0, 0, 0, length @ ..] = head else { return Err(Malformed::Head(head)) };
    let origin = match stream {
        1 => Origin::Output(LogSource::Stdout),
        2 => Origin::Output(LogSource::Stderr),
        3 => Origin::Daemon,
        _ => return Err(Malformed::Head(head)),
    };
    let left = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed::Head(head))?;
    Ok(Form::Payload { origin, left, starts: true })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[stream, 0, 0, 0], &length.to_be_bytes()[..], payload].concat()
    }

    /// All pieces of `input` cut into chunks of `sizes` (again and again), and the end.
    fn decode(mut decoder: Decoder, input: &[u8], sizes: &[usize]) -> (Vec<Piece>, Result<(), Malformed>) {
        let mut pieces = Vec::new();
        let mut rest = Bytes::copy_from_slice(input);
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).clamp(1, rest.len());
            decoder.push(rest.split_to(size));
            loop {
                match decoder.next() {
                    Ok(Some(piece)) => pieces.push(piece),
                    Ok(None) => break,
                    Err(error) => return (pieces, Err(error)),
                }
                assert!(decoder.held.capacity() <= 2 * HELD, "memory is bounded");
            }
        }
        decoder.end();
        loop {
            match decoder.next() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => return (pieces, Ok(())),
                Err(error) => return (pieces, Err(error)),
            }
        }
    }

    fn output(pieces: &[Piece], source: LogSource) -> Vec<u8> {
        pieces.iter().filter(|p| p.origin == Origin::Output(source)).flat_map(|p| p.bytes.to_vec()).collect()
    }

    #[test]
    fn a_frame_is_one_piece_wherever_it_is_cut() {
        let input = [frame(1, b"out\n"), frame(2, b"err\n"), frame(1, b""), frame(1, b"no newline")].concat();
        for size in 1..=input.len() {
            let (pieces, end) = decode(Decoder::framed(), &input, &[size]);
            let seen: Vec<_> = pieces.iter().map(|piece| (piece.origin, piece.starts, &piece.bytes[..])).collect();
            let (out, err) = (Origin::Output(LogSource::Stdout), Origin::Output(LogSource::Stderr));
            assert_eq!(seen, [(out, true, &b"out\n"[..]), (err, true, b"err\n"), (out, true, b"no newline")]);
            assert_eq!(end, Ok(()));
        }
    }

    #[test]
    fn a_hostile_length_allocates_nothing_and_its_payload_still_comes() {
        let mut input = vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        input.extend(vec![7; 3 * HELD + 5]);
        let (pieces, end) = decode(Decoder::framed(), &input, &[1000]);
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces.iter().map(|piece| piece.starts).collect::<Vec<_>>(), [true, false, false, false]);
        assert_eq!(output(&pieces, LogSource::Stdout), vec![7; 3 * HELD + 5]);
        assert_eq!(end, Err(Malformed::Truncated));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for input in [&b"hello, world"[..], &[0, 0, 0, 0, 0, 0, 0, 1, 65], &[4, 0, 0, 0, 0, 0, 0, 1, 65]] {
            assert!(matches!(decode(Decoder::framed(), input, &[3]).1, Err(Malformed::Head(_))));
        }
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_truncated_but_loses_nothing() {
        let whole = frame(1, b"abcdef");
        for cut in 1..whole.len() {
            let (pieces, end) = decode(Decoder::framed(), &whole[..cut], &[4]);
            assert_eq!(end, Err(Malformed::Truncated));
            assert_eq!(output(&pieces, LogSource::Stdout), whole[8.min(cut)..cut]);
        }
    }

    #[test]
    fn a_terminal_is_cut_at_newlines() {
        for size in 1..12 {
            let (pieces, end) = decode(Decoder::console(false), b"a\r\n\nlogin: ", &[size]);
            let seen: Vec<_> = pieces.iter().map(|piece| &piece.bytes[..]).collect();
            assert_eq!(seen, [&b"a\r\n"[..], b"\n", b"login: "]);
            assert_eq!(end, Ok(()));
        }
    }

    #[test]
    fn a_prompt_is_shown_as_it_comes() {
        // The first bytes of a terminal may be those of a frame's head.
        for input in [&b"login: "[..], b"\x01\0\0\0\0\0\0\x05hello", b"\x02"] {
            let mut decoder = Decoder::raw();
            decoder.push(Bytes::copy_from_slice(input));
            let piece = decoder.next().unwrap().unwrap();
            assert_eq!((piece.origin, &piece.bytes[..]), (Origin::Output(LogSource::Console), input));
            assert_eq!(decoder.next(), Ok(None));
        }
    }

    #[test]
    fn the_daemons_own_words_are_no_output() {
        let (pieces, end) = decode(Decoder::framed(), &frame(3, b"error"), &[3]);
        assert_eq!((pieces[0].origin, end), (Origin::Daemon, Ok(())));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_stream_mixed(
            frames in prop::collection::vec((1u8..=2, prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            sizes in prop::collection::vec(1usize..200, 1..8),
        ) {
            let input: Vec<u8> = frames.iter().flat_map(|(stream, payload)| frame(*stream, payload)).collect();
            let (pieces, end) = decode(Decoder::framed(), &input, &sizes);
            prop_assert_eq!(end, Ok(()));
            for (stream, source) in [(1, LogSource::Stdout), (2, LogSource::Stderr)] {
                let sent: Vec<u8> = frames.iter().filter(|(s, _)| *s == stream).flat_map(|(_, p)| p.clone()).collect();
                prop_assert_eq!(output(&pieces, source), sent);
            }
            prop_assert_eq!(pieces.len(), frames.iter().filter(|(_, payload)| !payload.is_empty()).count());
        }

        #[test]
        fn any_bytes_end_without_a_panic(
            input in prop::collection::vec(any::<u8>(), 0..600),
            sizes in prop::collection::vec(1usize..100, 1..5),
        ) {
            let (_, _) = decode(Decoder::framed(), &input, &sizes);
            let (pieces, end) = decode(Decoder::console(true), &input, &sizes);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(output(&pieces, LogSource::Console), input);
        }

        #[test]
        fn a_long_line_is_cut_the_same_wherever_chunks_end(
            length in 0usize..3 * HELD, sizes in prop::collection::vec(1usize..50_000, 1..5),
        ) {
            let mut input = vec![b'x'; length];
            input.extend(b"\nrest");
            let whole = decode(Decoder::console(false), &input, &[input.len()]);
            prop_assert_eq!(decode(Decoder::console(false), &input, &sizes), whole);
        }
    }
}
