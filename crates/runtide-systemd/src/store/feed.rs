//! A watch in another format than that of the stored bodies.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use runtide_core::{
    Result,
    store::{Resource, ResourceFormat, StoreEvent, StoreStream},
};

use super::form::UnitForm;

/// Converts to the requested format; a body that it cannot carry stays as it was written.
pub(super) fn shown(form: &dyn UnitForm, resource: Arc<Resource>, format: ResourceFormat) -> Arc<Resource> {
    form.shown(&resource, format).unwrap_or(resource)
}

/// The events of a watch, in another format.
pub(super) struct Shown {
    pub(super) inner: StoreStream,
    pub(super) form: Arc<dyn UnitForm>,
    pub(super) format: ResourceFormat,
}

impl Stream for Shown {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(Pin::new(&mut self.inner).poll_next(cx));
        Poll::Ready(next.map(|event| {
            event.map(|event| match event {
                StoreEvent::Added(one) => StoreEvent::Added(shown(&*self.form, one, self.format)),
                StoreEvent::Modified(one) => StoreEvent::Modified(shown(&*self.form, one, self.format)),
                other => other,
            })
        }))
    }
}
