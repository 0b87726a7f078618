//! State that the parts of a store share: [`Shared`].

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use runtide_core::{Result, backend::lock};

use crate::{
    call::Call,
    client::Client,
    config::Config,
    keys::Keys,
    known::Known,
    view::{View, last_written},
    wire::{Compare, KeyValue, RequestOp, TxnRequest},
};

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) known: Known,
    view: Mutex<Option<View>>,
    pub(crate) subscribers: Arc<AtomicU64>,
    /// Newest revision that is known to be compacted up to.
    pub(crate) oldest: AtomicU64,
    /// Most bytes of a document.
    pub(crate) largest: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) max_silence: Duration,
    pub(crate) bookmark_interval: Duration,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            client: Client::new(config, config.name()?)?,
            keys: Keys::below(&config.prefix),
            known: Known::default(),
            view: Mutex::default(),
            subscribers: Arc::default(),
            oldest: AtomicU64::new(0),
            largest: config.largest_document(),
            request_timeout: config.request_timeout,
            max_silence: config.max_silence,
            bookmark_interval: config.bookmark_interval,
        })
    }

    /// The view that this client has; read from etcd if it has none.
    pub(crate) async fn view(&self, call: &mut Call) -> Result<View> {
        if let Some(view) = lock(&self.view).clone() {
            return Ok(view);
        }
        let mut answer = self.client.txn(call, TxnRequest::of([self.get_pointer()])).await?;
        self.update_view(answer.one())
    }

    /// Replaces the view by what the pointer holds.
    pub(crate) fn update_view(&self, pointer: Option<KeyValue>) -> Result<View> {
        let view = View::of(self.client.name(), pointer)?;
        self.set_view(view.clone());
        Ok(view)
    }

    /// Replaces the view. An older one than before is right for a cluster that was set back to a backup; elsewhere it costs one
    /// request. Revisions of another generation are no guesses any more.
    pub(crate) fn set_view(&self, view: View) {
        let generation = view.generation.clone();
        let before = lock(&self.view).replace(view);
        if before.is_some_and(|before| before.generation != generation) {
            self.known.clear();
        }
    }

    pub(crate) fn get_pointer(&self) -> RequestOp {
        RequestOp::get(self.keys.pointer())
    }

    /// Condition that the pointer is as in the view.
    pub(crate) fn is_live(&self, view: &View) -> Compare {
        last_written(self.keys.pointer(), view.pointer)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.client.name()).finish_non_exhaustive()
    }
}
