//! [`Poller`]: listings at an interval, in place of an event stream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use runtide_core::{Detail, Listing, Result};
use tokio::time::{Interval, MissedTickBehavior};

use crate::inspector::PodmanInspector;

/// Lists everything at an interval, counted from the end of the listing before. A run that begins and ends between two listings goes
/// unseen.
pub(crate) struct Poller {
    inspector: Arc<PodmanInspector>,
    ticks: Interval,
    listing: Option<Pin<Box<dyn Future<Output = Result<Listing>> + Send>>>,
}

impl Poller {
    pub(crate) fn new(inspector: Arc<PodmanInspector>, interval: Duration) -> Self {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the driver lists by itself then.
        ticks.reset();
        Self { inspector, ticks, listing: None }
    }

    /// The next listing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Listing>> {
        loop {
            if let Some(listing) = &mut self.listing {
                let listed = ready!(listing.as_mut().poll(cx));
                self.listing = None;
                self.ticks.reset();
                return Poll::Ready(listed);
            }
            ready!(self.ticks.poll_tick(cx));
            let inspector = Arc::clone(&self.inspector);
            self.listing = Some(Box::pin(async move { inspector.list_now(Detail::Summary).await }));
        }
    }
}
