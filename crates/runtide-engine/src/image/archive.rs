//! [`Checked`]: an archive from the engine, found whole before its end is passed on.
//!
//! The engine writes an error of a save behind the archive, or into the middle of it, with the status of a success.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;

use crate::archive::{ArchiveCheck, ArchiveFlaw};

/// Bytes of the end that are kept: an error's words are there.
const TAIL: usize = 4096;

/// A stream of an archive's bytes that ends with an error if the archive is not whole.
#[derive(Debug)]
pub struct Checked<S> {
    bytes: Pin<Box<S>>,
    check: ArchiveCheck,
    flaw: Option<ArchiveFlaw>,
    tail: Vec<u8>,
    over: bool,
}

impl<S> Checked<S> {
    /// Checks these bytes as they pass.
    pub fn new(bytes: S) -> Self {
        Self { bytes: Box::pin(bytes), check: ArchiveCheck::default(), flaw: None, tail: Vec::new(), over: false }
    }

    fn pass(&mut self, bytes: &[u8]) {
        if self.flaw.is_none() {
            self.flaw = self.check.pass(bytes).err();
        }
        self.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }

    /// The reason why the bytes so far are not a whole archive.
    fn missing(&mut self) -> Option<String> {
        let flaw = self.flaw.take().or_else(|| self.check.finish().err())?;
        Some(message_in(&self.tail).unwrap_or_else(|| flaw.to_string()))
    }
}

/// The engine's own words.
fn message_in(tail: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message {
        error: String,
    }
    let text = String::from_utf8_lossy(tail);
    let at = text.rfind("{\"error")?;
    let mut values = serde_json::Deserializer::from_str(text.get(at..)?).into_iter::<Message>();
    values.next()?.ok().map(|message| message.error)
}

impl<S: Stream<Item = io::Result<Bytes>>> Stream for Checked<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.bytes.as_mut().poll_next(cx));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                self.pass(&bytes);
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                self.over = true;
                Some(Err(error))
            }
            None => {
                self.over = true;
                self.missing().map(|why| Err(io::Error::new(io::ErrorKind::InvalidData, why)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(bytes: &[u8], chunk: usize) -> Option<String> {
        let mut checked = Checked::new(());
        bytes.chunks(chunk).for_each(|chunk| checked.pass(chunk));
        checked.missing()
    }

    #[test]
    fn the_engines_error_is_found_behind_an_archive_and_inside_of_one() {
        let whole = {
            let mut tar = tar::Builder::new(Vec::new());
            for (name, size) in [("a", 600), ("b", 3000)] {
                let mut header = tar::Header::new_gnu();
                header.set_size(size);
                tar.append_data(&mut header, name, io::Read::take(io::repeat(7), size)).unwrap();
            }
            tar.into_inner().unwrap()
        };
        assert_eq!(missing(&whole, 100), None);
        assert!(missing(&whole[..700], 100).is_some_and(|why| why.contains("breaks off")));
        let error = b"{\"errorDetail\":{\"message\":\"no space left\"},\"error\":\"no space left\"}\r\n";
        for end in [whole.len(), whole.len() - 1024, 512 + 1024, 700, 0] {
            for chunk in [7, 64, 100_000] {
                assert_eq!(
                    missing(&[&whole[..end], error].concat(), chunk).as_deref(),
                    Some("no space left"),
                    "at {end}"
                );
            }
        }
    }
}
