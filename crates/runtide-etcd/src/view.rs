//! The live generation, as this client last saw it: [`View`].

use std::sync::{Arc, PoisonError};

use runtide_core::{Error, ErrorKind, Result};

use crate::{
    call::Call,
    client::positive,
    store::Inner,
    wire::{Compare, CompareResult, KeyValue, RequestOp, TxnRequest},
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
    pub(crate) fn of(inner: &Inner, pointer: Option<KeyValue>) -> Result<Self> {
        let Some(pointer) = pointer else { return Ok(Self::default()) };
        let is_name = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let Some(generation) = std::str::from_utf8(&pointer.value).ok().filter(is_name) else {
            let key = String::from_utf8_lossy(&pointer.key).into_owned();
            return Err(Error::new(ErrorKind::Corrupt, "etcd.pointer", "the pointer does not name a generation")
                .with_context("store", inner.client.name())
                .with_context("key", key));
        };
        Ok(Self { pointer: positive(pointer.mod_revision), generation: Some(generation.into()) })
    }
}

/// A revision as etcd's signed number; none that exists comes near the largest.
pub(crate) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Inner {
    /// The view that this client has; read from etcd if it has none.
    pub(crate) async fn view(&self, call: &mut Call) -> Result<View> {
        if let Some(view) = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(view);
        }
        let mut answer = self.client.txn(call, TxnRequest::of([self.get_pointer()])).await?;
        self.update_view(answer.one())
    }

    /// Replaces the view by what the pointer holds.
    pub(crate) fn update_view(&self, pointer: Option<KeyValue>) -> Result<View> {
        let view = View::of(self, pointer)?;
        self.set_view(view.clone());
        Ok(view)
    }

    /// Replaces the view. An older one than before is right for a cluster that was set back to a backup; elsewhere it costs one
    /// request.
    pub(crate) fn set_view(&self, view: View) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    pub(crate) fn get_pointer(&self) -> RequestOp {
        RequestOp::get(self.keys.pointer())
    }

    /// Condition that the pointer is as in the view.
    pub(crate) fn is_live(&self, view: &View) -> Compare {
        last_written(self.keys.pointer(), view.pointer)
    }
}

/// Condition that the key was last written at this revision; 0: that it does not exist.
pub(crate) fn last_written(key: impl Into<Vec<u8>>, revision: u64) -> Compare {
    Compare::mod_revision(key, CompareResult::Equal, signed(revision))
}
