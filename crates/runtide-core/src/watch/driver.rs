//! A backend value's one reconnect loop, cache and ring.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use super::{source::Source, stream::EventStream};
use crate::{BackendId, Result, WatchOptions, names::setters};

/// How a driver keeps its ring and its patience. `None`: the documented default.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DriverOptions {
    /// Events kept for all subscribers together; 4,096.
    pub ring: Option<NonZeroUsize>,
    /// The longest pause between two attempts; 30 s.
    pub max_backoff: Option<Duration>,
    /// How long a link must stay up to reset the backoff; 60 s.
    pub healthy_after: Option<Duration>,
    /// Seeds the jitter, for simulations that must replay; else it is random.
    pub jitter_seed: Option<u64>,
}

setters!(DriverOptions {
    /// Events kept for all subscribers together.
    with_ring: ring: Option<NonZeroUsize>;
    /// The longest pause between two attempts.
    with_max_backoff: max_backoff: Option<Duration>;
    /// How long a link must stay up to reset the backoff.
    with_healthy_after: healthy_after: Option<Duration>;
    /// Seeds the jitter.
    with_jitter_seed: jitter_seed: Option<u64>;
});

/// placeholder
#[derive(Clone, Debug)]
pub struct Driver(Arc<()>);

impl Driver {
    /// Nothing is connected yet. `source` is called for each run: from a first watch to the last.
    pub fn new<S: Source>(
        _backend: BackendId,
        _options: DriverOptions,
        _source: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(()))
    }

    /// A new subscriber. Must be called inside a tokio runtime.
    pub fn watch(&self, _options: WatchOptions) -> Result<EventStream> {
        Ok(EventStream::new(Empty))
    }

    /// Ends every stream with `Cancelled` and returns once the task and the source are gone. Later watches are `Cancelled`.
    pub async fn close(&self) {}
}

struct Empty;
impl futures_core::Stream for Empty {
    type Item = Result<Arc<crate::RuntimeEvent>>;
    fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(None)
    }
}
