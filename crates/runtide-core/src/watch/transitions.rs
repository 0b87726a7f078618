//! [`TransitionStream`]: the fold of a stream into steps, with its table.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use super::{
    change::Change,
    stream::EventStream,
    subscription::Beginning,
    table::{Freshness, InstanceTable},
};
use crate::{
    error::Result,
    event::{RuntimeEvent, RuntimeEventKind},
    filter::InstanceFilter,
    instance::BackendId,
    options::WatchOptions,
};

/// As [`EventStream`], folded: steps of single instances, resyncs as net effects, and the state of the link. Owned; dropping
/// it cancels.
///
/// # Behavior
/// * The first item tells a runtime that is empty (`Synced`) from one that cannot be reached (`Offline`). Until then the first
///   connection or the first listing is under way; the backend's deadlines bound both. A stream that resumes begins with
///   `Online`, and a replay with its steps.
/// * Net effects of a resync come without interruption, and `Synced` ends them. `Synced` ends the steps of a replay as well.
/// * With a filter, the steps and the table are of the matching instances: one that ceases to match is a last step, with its
///   state as it is now, also where it did so in a gap. One that begins to match is a step from `None`.
/// * An `Err` is the last item, as in [`EventStream`].
///
/// ```no_run
/// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
/// use runtide_core::{Change, RuntimeBackendExt, WatchOptions};
///
/// let mut changes = backend.transitions(WatchOptions::default()).await?;
/// while let Some(change) = changes.next().await {
///     match change? {
///         Change::Synced { completeness, .. } if completeness.is_complete() => {
///             println!("ready, with all of {} instances", changes.table().len());
///         }
///         Change::Synced { completeness, .. } => println!("ready, but not read: {:?}", completeness.failures()),
///         Change::Offline { cause } => println!("not ready: {cause:?}"),
///         change => println!("{change}"),
///     }
/// }
/// # Ok(()) }
/// ```
pub struct TransitionStream {
    events: EventStream,
    filter: Option<InstanceFilter>,
    table: InstanceTable,
    /// Backends whose rows are those of a resync, so that a replay can end in them.
    shown: BTreeSet<BackendId>,
    ready: VecDeque<Change>,
}

impl TransitionStream {
    /// Folds a stream. `options` are those with which it was opened: the fold begins with their table, and applies their filter.
    ///
    /// The stream of a [`Driver`](super::Driver) then delivers all that may match. A layer, or a backend with its own loop, must
    /// not filter below this fold by anything but ids: an instance that it leaves out of a resync would seem to be gone.
    pub fn new(mut events: EventStream, options: &WatchOptions) -> Self {
        let mut table = options.known.clone().unwrap_or_default();
        let filter = Some(&options.filter).filter(|filter| !filter.is_empty()).cloned();
        if let Some(filter) = &filter {
            table.retain(|row| filter.matches(row));
            events.widen();
        }
        table.mark_stale();
        let shown: BTreeSet<BackendId> =
            table.backends().into_iter().filter(|backend| table.position(backend).is_some()).cloned().collect();
        let mut ready = VecDeque::new();
        match events.beginning() {
            Some(Beginning::Live(backend)) if shown.contains(backend) => {
                table.freshen(backend, Freshness::Live);
                ready.push_back(Change::Synced { gap: None, completeness: table.completeness(backend).clone() });
            }
            Some(Beginning::Replaying(backend)) => table.freshen(backend, Freshness::Replaying),
            Some(Beginning::Down(cause)) => ready.push_back(Change::Offline { cause: cause.clone() }),
            _ => {}
        }
        Self { events, filter, table, shown, ready }
    }

    /// The next item; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The present state, folded from the events so far; with its position, storable as a checkpoint.
    ///
    /// The table is that of the last event, also while net steps of one resync are still being yielded: after such a step,
    /// store it only once `Synced` has come.
    pub fn table(&self) -> &InstanceTable {
        &self.table
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Change>>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(Pin::new(&mut self.events).poll_next(cx)) {
                Some(Ok(event)) => self.fold(&event),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn fold(&mut self, event: &RuntimeEvent) {
        let backend = &event.backend;
        let resync = self.table.open_resync(backend);
        let filter = self.filter.as_ref();
        let outside = event.instance().filter(|now| filter.is_some_and(|filter| !filter.matches(now)));
        if let (RuntimeEventKind::Present(_), Some(now)) = (&event.kind, outside)
            && self.table.get(backend, &now.id).is_none()
        {
            return; // it did not match before either
        }
        let mut steps = self.table.apply(event);
        if let Some(filter) = filter {
            steps.retain(|step| [&step.before, &step.after].into_iter().flatten().any(|row| filter.matches(row)));
        }
        self.ready.extend(steps.into_iter().map(Change::Step));
        match &event.kind {
            RuntimeEventKind::ResyncEnd(completeness) => {
                if let Some(filter) = filter {
                    self.table.retain(|row| filter.matches(row));
                }
                if let Some(gap) = resync {
                    self.shown.insert(backend.clone());
                    self.ready.push_back(Change::Synced { gap: Some(gap), completeness: completeness.clone() });
                }
            }
            RuntimeEventKind::BackendDisconnected { cause } => {
                self.ready.push_back(Change::Offline { cause: cause.clone() });
            }
            RuntimeEventKind::BackendReconnected { continuity } => {
                self.ready.push_back(Change::Online { continuity: *continuity });
            }
            // Rows that no resync has shown end in one.
            RuntimeEventKind::CaughtUp if self.shown.contains(backend) => {
                let completeness = self.table.completeness(backend).clone();
                self.ready.push_back(Change::Synced { gap: None, completeness });
            }
            RuntimeEventKind::Present(_) => {} // staged: its step comes at the end of the resync
            _ => {
                if let Some(now) = outside {
                    self.table.forget(backend, &now.id);
                }
            }
        }
    }
}

impl Stream for TransitionStream {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for TransitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitionStream").field("rows", &self.table.len()).finish_non_exhaustive()
    }
}
