//! Bytes of a value in etcd.
//!
//! One byte for the version of this form (1), one for the format of the body, eight that identify the write (drawn at random for
//! each), then the body as it was written.

use bytes::Bytes;
use runtide_core::store::{Document, ResourceFormat};

const VERSION: u8 = 1;

/// Bytes before the body.
pub(crate) const HEAD: usize = 1 + 1 + 8;

/// Identity of a write. Drawn for each call, and the same in all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteId(u64);

impl WriteId {
    pub(crate) fn new() -> Self {
        Self(fastrand::u64(..))
    }

    pub(crate) fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

/// Number of a format; it never changes, and is the same in a snapshot.
fn number(format: ResourceFormat) -> Option<u8> {
    Some(match format {
        ResourceFormat::Yaml => 1,
        ResourceFormat::Json => 2,
        ResourceFormat::Hcl => 3,
        ResourceFormat::Cbor => 4,
        ResourceFormat::Native => 5,
        _ => return None,
    })
}

fn format(number: u8) -> Option<ResourceFormat> {
    Some(match number {
        1 => ResourceFormat::Yaml,
        2 => ResourceFormat::Json,
        3 => ResourceFormat::Hcl,
        4 => ResourceFormat::Cbor,
        5 => ResourceFormat::Native,
        _ => return None,
    })
}

/// `None` for a format without a number here.
pub(crate) fn encode(document: &Document, id: WriteId) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(HEAD + document.bytes.len());
    value.extend_from_slice(&[VERSION, number(document.format)?]);
    value.extend_from_slice(&id.bytes());
    value.extend_from_slice(&document.bytes);
    Some(value)
}

/// The body, without a copy, and the identity of its write; else the reason why the bytes are not of this form.
pub(crate) fn decode(value: Vec<u8>) -> Result<(Document, WriteId), &'static str> {
    let Some((&[version, number], rest)) = value.split_first_chunk() else { return Err("it is too short") };
    if version != VERSION {
        return Err("its version is not supported");
    }
    let format = format(number).ok_or("its format is not supported")?;
    let id = rest.get(..8).and_then(WriteId::of).ok_or("it is too short")?;
    Ok((Document::new(format, Bytes::from(value).slice(HEAD..)), id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_is_as_documented() {
        let id = WriteId(0x0102_0304_0506_0708);
        let value = encode(&Document::json("{}"), id).unwrap();
        assert_eq!(value, [&[1, 2, 1, 2, 3, 4, 5, 6, 7, 8][..], b"{}"].concat());
        assert_eq!(decode(value).unwrap(), (Document::json("{}"), id));
    }

    #[test]
    fn a_value_of_another_form_is_refused() {
        for bad in [&[][..], &[1], &[1, 2, 0, 0], &[2, 2, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 9, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(decode(bad.to_vec()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_body_is_read_back(format in 1u8..6, body: Vec<u8>) {
            let document = Document::new(super::format(format).unwrap(), body);
            let id = WriteId::new();
            prop_assert_eq!(decode(encode(&document, id).unwrap()).unwrap(), (document, id));
        }

        #[test]
        fn nothing_panics(value: Vec<u8>) {
            let _ = decode(value);
        }
    }
}
