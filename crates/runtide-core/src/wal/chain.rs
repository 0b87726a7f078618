//! The chain of hashes: plain BLAKE3, or BLAKE3 under a key.

use super::{
    format::{Hash, LogId, SegmentHeader},
    options::WalKey,
};
use crate::error::{Error, ErrorKind, Result};

/// How the commits of one log are hashed.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) log: LogId,
    key: Option<WalKey>,
}

impl Chain {
    pub(super) fn new(log: LogId, key: Option<WalKey>) -> Self {
        Self { log, key }
    }

    /// The chain of the log that this segment belongs to: with the key if it is keyed, without one if it is not.
    pub(super) fn of(header: &SegmentHeader, key: Option<&WalKey>, operation: &'static str) -> Result<Self> {
        let chain = Self::new(header.log, key.cloned());
        match (header.keyed, chain.key_check()) {
            (None, None) => Ok(chain),
            (Some(said), Some(check)) if said == check => Ok(chain),
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

    /// What the first commit has as the hash of the one before it: it ties the chain to its log.
    pub(super) fn genesis(&self) -> Hash {
        let mut bytes = b"runtide wal 1 genesis ".to_vec();
        bytes.extend_from_slice(&self.log);
        self.hash(&bytes)
    }

    /// Recognises the key without telling it.
    pub(super) fn key_check(&self) -> Option<[u8; 16]> {
        self.key.as_ref()?;
        let mut bytes = b"runtide wal 1 key ".to_vec();
        bytes.extend_from_slice(&self.log);
        self.hash(&bytes).first_chunk().copied()
    }
}
