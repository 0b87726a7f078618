//! Any resource as a unit file: a target that nothing wants, with the body in a section that systemd ignores. The laws
//! write bodies that are no units, and every kind in every namespace; so they test all of a store except its own form.

use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, Result,
    store::{Digest, Document, ResourceFormat, ResourceRef},
};

use super::{UnitFileName, UnitForm};

/// Digits in a line: systemd accepts a mebibyte.
const LINE: usize = 64 << 10;

/// Units with this prefix.
#[derive(Debug)]
pub(super) struct Anything(pub(super) String);

impl UnitForm for Anything {
    fn file(&self, reference: &ResourceRef) -> Result<UnitFileName> {
        let digest = Digest::of(reference.as_str().as_bytes()).to_string();
        UnitFileName::unit(&format!("{}{}.target", self.0, &digest[..32]))
    }

    fn text(&self, reference: &ResourceRef, document: &Document) -> Result<Bytes> {
        let mut text =
            format!("[X-Resource]\nReference={}\nFormat={}\n", hex(reference.as_str().as_bytes()), document.format);
        for line in document.bytes.chunks(LINE / 2) {
            text.extend(["Body=", &hex(line), "\n"]);
        }
        Ok(text.into())
    }

    fn read(&self, _file: &UnitFileName, text: &Bytes) -> Option<(ResourceRef, Document)> {
        read(std::str::from_utf8(text).ok()?).ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn read(text: &str) -> Result<(ResourceRef, Document)> {
    let bad = || Error::new(ErrorKind::InvalidInput, "anything.read", "it was not written by this form");
    let (mut reference, mut format, mut body) = (None, None, Vec::new());
    for line in text.lines() {
        match line.split_once('=') {
            Some(("Reference", hex)) => {
                let name = bytes(hex).and_then(|bytes| String::from_utf8(bytes).ok());
                reference = Some(name.ok_or_else(bad)?.parse()?);
            }
            Some(("Format", name)) => format = Some(name.parse::<ResourceFormat>()?),
            Some(("Body", hex)) => body.extend(bytes(hex).ok_or_else(bad)?),
            _ => {}
        }
    }
    Ok((reference.ok_or_else(bad)?, Document::new(format.ok_or_else(bad)?, body)))
}
