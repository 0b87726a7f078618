//! A position in the chain, to be kept outside the log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    format::{Hash, LogId},
    record::Seq,
};
use crate::error::{Error, ErrorKind};

/// A position in the chain of one log: kept elsewhere, it reveals that a tail was cut or rewritten.
///
/// A chain alone cannot reveal that its end was removed, and a sequence number alone cannot reveal that another tail of the same
/// length was put there: so an anchor has the number *and* the hash. It always names the last record of a commit.
///
/// Its text form is `runtide-anchor:1:<log>:<seq>:<hash>`, log and hash in hex; in JSON it is that text. The form is stable.
///
/// ```
/// use runtide_core::wal::{Anchor, Wal, WalOptions};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let wal = Wal::open(dir.path(), WalOptions::default())?;
/// let text = wal.anchor().to_string();
/// assert_eq!(text.parse::<Anchor>()?, wal.anchor());
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Anchor {
    /// Id of the log: 16 random bytes, the same in all its segments.
    pub log: [u8; 16],
    /// Number of the last record that the anchor covers; 0 for a log without records.
    pub seq: Seq,
    /// BLAKE3 hash of the commit that ends with that record; it covers all commits before it.
    pub hash: [u8; 32],
}

const FORM: &str = "runtide-anchor:1";

impl Anchor {
    pub(super) fn new(log: LogId, seq: u64, hash: Hash) -> Self {
        Self { log, seq: Seq(seq), hash }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}:{}:{}:{}", Hex(&self.log), self.seq, Hex(&self.hash))
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Anchor {
    type Err = Error;

    /// Reads the text form; anything else is [`InvalidInput`](ErrorKind::InvalidInput).
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let mut parts = text.strip_prefix(FORM)?.strip_prefix(':')?.split(':');
            let anchor =
                Self { log: unhex(parts.next()?)?, seq: Seq(parts.next()?.parse().ok()?), hash: unhex(parts.next()?)? };
            parts.next().is_none().then_some(anchor)
        };
        read().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "wal.anchor", format!("an anchor reads {FORM}:<log>:<seq>:<hash>"))
        })
    }
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Displays bytes as lower-case hex.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
