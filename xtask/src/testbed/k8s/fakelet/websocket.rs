//! WebSocket frames, on the server's side.

use base64::Engine as _;

/// The answer to a client's `Sec-WebSocket-Key`.
pub(super) fn accept(key: &str) -> String {
    const WEBSOCKET: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A frame to the client: whole, and not masked.
pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The frames of a client, put together from bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// The earlier parts of a message.
    begun: Option<(u8, Vec<u8>)>,
}

impl Frames {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message: its kind, and what it says.
    pub(super) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (first, payload, length) = self.whole()?;
            self.bytes.drain(..length);
            let (is_last, kind) = (first & 0x80 != 0, first & 15);
            if kind >= CLOSE {
                return Some((kind, payload));
            }
            let (kind, mut message) = self.begun.take().unwrap_or((kind, Vec::new()));
            message.extend(payload);
            if is_last {
                return Some((kind, message));
            }
            self.begun = Some((kind, message));
        }
    }

    /// The first frame, if all of it is there: its first byte, its payload, and its length.
    fn whole(&self) -> Option<(u8, Vec<u8>, usize)> {
        let number = |at: usize, count: usize| {
            let bytes = self.bytes.get(at..at + count)?;
            Some(bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
        };
        let (first, second) = (*self.bytes.first()?, *self.bytes.get(1)?);
        let (length, mut at) = match second & 127 {
            126 => (number(2, 2)?, 4),
            127 => (number(2, 8)?, 10),
            short => (usize::from(short), 2),
        };
        let mask = if second & 0x80 == 0 {
            [0; 4]
        } else {
            at += 4;
            self.bytes.get(at - 4..at)?.try_into().ok()?
        };
        let payload = self.bytes.get(at..at.checked_add(length)?)?;
        let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Some((first, unmasked, at + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_in_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_put_together_from_any_pieces() {
        let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let mut frames = Frames::default();
        for byte in masked {
            assert_eq!(frames.next(), None);
            frames.feed(&[byte]);
        }
        assert_eq!(frames.next(), Some((BINARY, b"Hello".to_vec())));
        // A message in two parts, with a ping between them.
        frames.feed(&[0x02, 1, b'a', 0x89, 0, 0x80, 1, b'b']);
        assert_eq!(frames.next(), Some((PING, Vec::new())));
        assert_eq!(frames.next(), Some((BINARY, b"ab".to_vec())));
        assert_eq!(frames.next(), None);
    }

    #[test]
    fn lengths_of_all_three_kinds_are_read_back() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut frames = Frames::default();
            frames.feed(&frame(BINARY, &vec![7; length]));
            assert_eq!(frames.next(), Some((BINARY, vec![7; length])));
        }
    }
}
