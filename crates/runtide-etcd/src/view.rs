//! The live generation, as this client last saw it: [`View`].

use std::sync::Arc;

use runtide_core::{Error, ErrorKind, Result};

use crate::{
    client::positive,
    wire::{Compare, CompareResult, KeyValue},
};

/// State of the pointer. A guess: only a transaction that compares it may rely on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Revision of the pointer's last write; 0: there is no pointer.
    pub(crate) pointer: u64,
    /// Name of the live generation; `None`: nothing was ever written.
    pub(crate) generation: Option<Arc<str>>,
}

impl View {
    /// # Errors
    /// `Corrupt`, if the pointer does not name a generation.
    pub(crate) fn of(store: &str, pointer: Option<KeyValue>) -> Result<Self> {
        let Some(pointer) = pointer else { return Ok(Self::default()) };
        let is_name = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let Some(generation) = std::str::from_utf8(&pointer.value).ok().filter(is_name) else {
            let key = String::from_utf8_lossy(&pointer.key).into_owned();
            return Err(Error::new(ErrorKind::Corrupt, "etcd.pointer", "the pointer does not name a generation")
                .with_context("store", store)
                .with_context("key", key));
        };
        Ok(Self { pointer: positive(pointer.mod_revision), generation: Some(generation.into()) })
    }
}

/// A revision as etcd's signed number; none that exists comes near the largest.
pub(crate) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Condition that the key was not written after this revision.
pub(crate) fn not_written_after(key: impl Into<Vec<u8>>, revision: u64) -> Compare {
    Compare::mod_revision(key, CompareResult::Less, signed(revision.saturating_add(1)))
}

/// Condition that the key was last written at this revision; 0: that it does not exist.
pub(crate) fn last_written(key: impl Into<Vec<u8>>, revision: u64) -> Compare {
    Compare::mod_revision(key, CompareResult::Equal, signed(revision))
}
