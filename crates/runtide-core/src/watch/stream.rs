//! The subscriber's side: [`EventStream`] and [`TransitionStream`].

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::table::{InstanceTable, Transition};
use crate::{Instance, InstanceId, Result, RuntimeEvent, names::streams};

streams! {
    /// Owned; dropping it cancels. Outages are events; an `Err` is the last item (`Expired`: too slow, `Cancelled`: the backend was closed).
    EventStream => Arc<RuntimeEvent>;
    /// As [`EventStream`], with brackets folded into net effects.
    TransitionStream => Transition;
}

pub(crate) async fn pump(_stream: EventStream, _tx: mpsc::Sender<Arc<RuntimeEvent>>, _cancel: CancellationToken) -> Result<()> {
    Ok(())
}

pub(crate) fn transitions(_stream: EventStream, _known: InstanceTable) -> TransitionStream {
    struct Empty;
    impl futures_core::Stream for Empty {
        type Item = Result<Transition>;
        fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(None)
        }
    }
    TransitionStream::new(Empty)
}

pub(crate) async fn first_match(
    _stream: EventStream,
    id: &InstanceId,
    _until: impl Fn(&Instance) -> bool + Send,
) -> Result<Arc<Instance>> {
    Err(crate::Error::new(crate::ErrorKind::NotFound, "runtime.wait_for", id.to_string()))
}
