//! The chain of hashes: plain BLAKE3, or BLAKE3 under a key.

use super::{
    format::{Hash, LogId, SegmentHeader},
    options::WalKey,
};
use crate::error::{Error, ErrorKind, Result};

/// The hash function of one log's commits: its id, and its key if it is keyed.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) log: LogId,
    key: Option<WalKey>,
}

impl Chain {
    pub(super) fn new(log: LogId, key: Option<WalKey>) -> Self {
        Self { log, key }
    }

    /// The chain of the log that this segment belongs to. A keyed log needs its key; a log without a key refuses one.
    pub(super) fn of(header: &SegmentHeader, key: Option<&WalKey>, operation: &'static str) -> Result<Self> {
        let chain = Self::new(header.log, key.cloned());
        match (header.keyed, chain.key_check()) {
            (None, None) => Ok(chain),
            (Some(stored), Some(check)) if stored == check => Ok(chain),
            (Some(_), Some(_)) => Err(Error::new(ErrorKind::Unauthenticated, operation, "the log has another key")),
            (Some(_), None) => Err(Error::new(ErrorKind::Unauthenticated, operation, "the log is keyed: give its key")),
            (None, Some(_)) => Err(Error::new(
                ErrorKind::InvalidInput,
                operation,
                "the log was created without a key, which cannot change",
            )),
        }
    }

    pub(super) fn hasher(&self) -> blake3::Hasher {
        match &self.key {
            Some(key) => blake3::Hasher::new_keyed(&key.0),
            None => blake3::Hasher::new(),
        }
    }

    pub(super) fn hash(&self, bytes: &[u8]) -> Hash {
        match &self.key {
            Some(key) => *blake3::keyed_hash(&key.0, bytes).as_bytes(),
            None => *blake3::hash(bytes).as_bytes(),
        }
    }

    /// The `prev` hash of the first commit, which ties the chain to its log.
    pub(super) fn genesis(&self) -> Hash {
        let mut bytes = b"runtide wal 1 genesis ".to_vec();
        bytes.extend_from_slice(&self.log);
        self.hash(&bytes)
    }

    /// A check value in each segment's header: it identifies the key without revealing it.
    pub(super) fn key_check(&self) -> Option<[u8; 16]> {
        self.key.as_ref()?;
        let mut bytes = b"runtide wal 1 key ".to_vec();
        bytes.extend_from_slice(&self.log);
        self.hash(&bytes).first_chunk().copied()
    }
}
