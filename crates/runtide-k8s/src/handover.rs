//! State that a subscription hands to the driver's listings.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use runtide_core::{Failure, Listing, backend::lock};
use tokio::sync::watch;

/// Namespaces that are asked one by one; `None`: all at once.
pub(crate) type Namespace = Option<Arc<str>>;

/// The first listing of a subscription, and the namespaces that it lacks.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The listing that the subscription began with: the driver's first one needs no further request.
    listing: Mutex<Option<Listing>>,
    /// `true` while there is none.
    is_taken: watch::Sender<bool>,
    /// Namespaces whose pods cannot be watched, with the reason. No listing is complete without them.
    denied: Mutex<BTreeMap<Arc<str>, Failure>>,
}

impl Default for Handover {
    fn default() -> Self {
        Self { listing: Mutex::default(), is_taken: watch::Sender::new(true), denied: Mutex::default() }
    }
}

impl Handover {
    pub(crate) fn put(&self, listing: Option<Listing>) {
        let mut slot = lock(&self.listing);
        *slot = listing;
        self.is_taken.send_replace(slot.is_none());
    }

    pub(crate) fn take(&self) -> Option<Listing> {
        let mut slot = lock(&self.listing);
        let listing = slot.take();
        self.is_taken.send_replace(true);
        listing
    }

    /// Waits until the listing was taken.
    pub(crate) async fn taken(&self) {
        // The sender is ours, so that it cannot be gone.
        let _ = self.is_taken.subscribe().wait_for(|is_taken| *is_taken).await;
    }

    pub(crate) fn denied(&self) -> BTreeMap<Arc<str>, Failure> {
        lock(&self.denied).clone()
    }

    /// `None`: the namespace is watched.
    pub(crate) fn set_denied(&self, namespace: &Namespace, failure: Option<Failure>) {
        let Some(name) = namespace else { return };
        let mut denied = lock(&self.denied);
        match failure {
            Some(failure) => denied.insert(Arc::clone(name), failure),
            None => denied.remove(name),
        };
    }
}
