//! [`Checked`]: an archive from the engine, found complete before its end is passed on.
//!
//! The engine writes an error of a save behind the archive, or into the middle of it, with the status of a success. An archive that is
//! passed on must therefore have its end mark, and nothing behind it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;

const BLOCK: usize = 512;
/// Largest extension record that is read for a size, in bytes; the engine's are a few hundred.
const LARGEST_RECORD: u64 = 1 << 20;
/// Begin of what is no archive, kept for the error.
const KEPT: usize = 4096;

/// Follows the bytes of an archive from header to header.
#[derive(Debug)]
pub struct ArchiveEnd {
    at: At,
    /// The block that is being read.
    block: Vec<u8>,
    /// The size that an extension record gives to the next entry.
    size: Option<u64>,
    /// What came where a header should have been, or behind the end.
    stray: Vec<u8>,
}

#[derive(Debug)]
enum At {
    /// The next block is a header.
    Header,
    /// So many bytes of contents, with their padding.
    Contents(u64),
    /// So many bytes of an extension record, with its padding, of which so many count.
    Record { left: u64, text: Vec<u8>, counts: usize },
    /// One block of zeros was read.
    HalfEnd,
    /// Only zeros may follow.
    End,
    /// This is no archive.
    Stray,
}

impl Default for ArchiveEnd {
    fn default() -> Self {
        Self { at: At::Header, block: Vec::new(), size: None, stray: Vec::new() }
    }
}

impl ArchiveEnd {
    /// Reads the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Contents(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::Header;
                    }
                }
                At::Record { left, text, counts } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    text.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    *left -= taken as u64;
                    if *left == 0 {
                        self.size = text.get(..*counts).and_then(size_in).or(self.size);
                        self.at = At::Header;
                    }
                }
                At::Header | At::HalfEnd => {
                    let taken = (BLOCK - self.block.len()).min(bytes.len());
                    self.block.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if self.block.len() == BLOCK {
                        let block = std::mem::take(&mut self.block);
                        self.header(&block);
                    }
                }
                At::End => match bytes.iter().position(|byte| *byte != 0) {
                    Some(at) => {
                        bytes = bytes.get(at..).unwrap_or_default();
                        self.at = At::Stray;
                    }
                    None => return,
                },
                At::Stray => {
                    let room = KEPT.saturating_sub(self.stray.len()).min(bytes.len());
                    self.stray.extend_from_slice(bytes.get(..room).unwrap_or_default());
                    return;
                }
            }
        }
    }

    fn header(&mut self, block: &[u8]) {
        let is_zero = block.iter().all(|byte| *byte == 0);
        let was_half = matches!(self.at, At::HalfEnd);
        if is_zero {
            self.at = if was_half { At::End } else { At::HalfEnd };
            return;
        }
        let header = tar::Header::from_byte_slice(block);
        let size = match header.cksum().ok().filter(|sum| !was_half && *sum == checksum(block)) {
            Some(_) => header.entry_size().ok(),
            None => None,
        };
        let Some(size) = size else {
            self.stray.extend_from_slice(block);
            self.at = At::Stray;
            return;
        };
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() && size <= LARGEST_RECORD {
            let left = padded(size);
            self.at = match usize::try_from(size) {
                Ok(counts) if counts > 0 => At::Record { left, text: Vec::new(), counts },
                _ => At::Header,
            };
            return;
        }
        // What an extension says is about the entry behind all extensions.
        let is_extension = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_global_extensions();
        let size = if is_extension { size } else { self.size.take().unwrap_or(size) };
        let has_contents = is_extension || kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        self.at = if has_contents && size > 0 { At::Contents(padded(size)) } else { At::Header };
    }

    /// The reason why the bytes so far are not a whole archive; `None`: they are.
    pub fn missing(&self) -> Option<String> {
        if matches!(self.at, At::End) {
            return None;
        }
        // Of an archive that was cut off, the error is where the next header should be.
        let text = if self.stray.is_empty() { &self.block } else { &self.stray };
        let text = String::from_utf8_lossy(text);
        let reported = text.find("{\"error").and_then(|at| text.get(at..)).and_then(message_in);
        Some(reported.unwrap_or_else(|| match self.at {
            At::Stray => "something follows behind the archive, or in the middle of it".to_owned(),
            _ => "the archive ends in the middle".to_owned(),
        }))
    }
}

/// The engine's own words.
fn message_in(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message {
        error: String,
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Message>();
    values.next()?.ok().map(|message| message.error)
}

fn checksum(block: &[u8]) -> u32 {
    // The field of the sum itself counts as spaces.
    block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}

fn size_in(record: &[u8]) -> Option<u64> {
    let found = tar::PaxExtensions::new(record).flatten().find(|one| one.key_bytes() == b"size")?;
    found.value().ok()?.parse().ok()
}

/// A stream of an archive's bytes that ends with an error if the archive is not whole.
#[derive(Debug)]
pub struct Checked<S> {
    bytes: Pin<Box<S>>,
    end: Option<ArchiveEnd>,
}

impl<S> Checked<S> {
    /// Checks these bytes as they pass.
    pub fn new(bytes: S) -> Self {
        Self { bytes: Box::pin(bytes), end: Some(ArchiveEnd::default()) }
    }
}

impl<S: Stream<Item = io::Result<Bytes>>> Stream for Checked<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.is_none() {
            return Poll::Ready(None);
        }
        match self.bytes.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                if let Some(end) = &mut self.end {
                    end.feed(&bytes);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                let missing = self.end.take().and_then(|end| end.missing());
                Poll::Ready(missing.map(|why| Err(io::Error::new(io::ErrorKind::InvalidData, why))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, usize)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, size) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, io::repeat(0).take(*size as u64)).unwrap();
        }
        tar.into_inner().unwrap()
    }

    use std::io::Read as _;

    fn missing(bytes: &[u8], chunk: usize) -> Option<String> {
        let mut end = ArchiveEnd::default();
        bytes.chunks(chunk).for_each(|chunk| end.feed(chunk));
        end.missing()
    }

    #[test]
    fn a_whole_archive_is_whole_however_it_is_cut_into_chunks() {
        let long = "a/".repeat(100) + "b";
        for files in [&[][..], &[("a", 0)], &[("a", 1), (&long, 512), ("c", 513)], &[("zeros", 5000)]] {
            let mut bytes = archive(files);
            for chunk in [1, 7, 512, 1000, bytes.len()] {
                assert_eq!(missing(&bytes, chunk), None, "{files:?}");
            }
            bytes.extend([0; 9000]);
            assert_eq!(missing(&bytes, 100), None, "padded");
        }
    }

    #[test]
    fn an_archive_that_is_cut_anywhere_is_not_whole() {
        let bytes = archive(&[("a", 600), ("zeros", 3000), ("c", 0)]);
        for end in 0..bytes.len() {
            assert!(missing(&bytes[..end], 100).is_some(), "{end}");
        }
    }

    #[test]
    fn the_engines_error_is_found_behind_an_archive_and_inside_of_one() {
        let error = br#"{"errorDetail":{"message":"no space left"},"error":"no space left"}"#;
        let whole = archive(&[("a", 600), ("b", 3000)]);
        for end in [whole.len(), whole.len() - 1024, 512 + 1024, 0] {
            let mut bytes = whole[..end].to_vec();
            bytes.extend(error);
            bytes.extend(b"\r\n");
            assert_eq!(missing(&bytes, 64).as_deref(), Some("no space left"), "at {end}");
        }
        let mut inside = whole[..700].to_vec();
        inside.extend(error);
        assert!(missing(&inside, 64).is_some());
    }

    #[test]
    fn a_size_in_a_record_counts() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_pax_extensions([("size", &b"1000"[..])]).unwrap();
        let mut bytes = tar.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend([7; 1024]);
        bytes.extend([0; 1024]);
        assert_eq!(missing(&bytes, 100), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), chunk in 1usize..700) {
            missing(&bytes, chunk);
        }
    }
}
