//! Which generation is live, as this client last saw it: [`View`].

use std::sync::{Arc, PoisonError};

use runtide_core::{Error, ErrorKind, Result};

use crate::{
    call::Call,
    client::positive,
    store::Inner,
    wire::{Compare, CompareResult, KeyValue, RequestOp, TxnRequest},
};

/// What the pointer said. Believed only within a transaction that compares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// When the pointer was written; 0: there is none.
    pub(crate) pointer: u64,
    /// `None`: nothing was ever written.
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

/// etcd's numbers are signed; no revision of its is near the end.
pub(crate) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Inner {
    /// The view that is believed in.
    pub(crate) async fn view(&self, call: &mut Call) -> Result<View> {
        if let Some(view) = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(view);
        }
        let mut answer = self.client.txn(call, TxnRequest::of([self.get_pointer()])).await?;
        self.see(answer.one())
    }

    /// Believes in what the pointer says.
    pub(crate) fn see(&self, pointer: Option<KeyValue>) -> Result<View> {
        let view = View::of(self, pointer)?;
        self.believe(view.clone());
        Ok(view)
    }

    /// Believes in it. It may be older than what was known: of a cluster that was set back to a backup it has to be, and else it
    /// costs a request.
    pub(crate) fn believe(&self, view: View) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    pub(crate) fn get_pointer(&self) -> RequestOp {
        RequestOp::get(self.keys.pointer())
    }

    /// That the pointer is what the view says.
    pub(crate) fn is(&self, view: &View) -> Compare {
        written(self.keys.pointer(), view.pointer)
    }
}

/// That a key was last written at this revision; 0: that it is not there.
pub(crate) fn written(key: impl Into<Vec<u8>>, revision: u64) -> Compare {
    Compare::mod_revision(key, CompareResult::Equal, signed(revision))
}
