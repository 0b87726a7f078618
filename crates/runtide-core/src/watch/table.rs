//! Fold of a stream: the present state, and exact transitions.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    completeness::Completeness,
    event::{Continuity, Cursor, FieldSet, Gap, RuntimeEvent, RuntimeEventKind},
    instance::{BackendId, Instance, InstanceId},
};

/// One step of one instance; `None` on a side: the instance does not exist there.
///
/// With a filter, a `before` of `None` may also be an instance that did not match. In the steps of an [`InstanceTable`] over a
/// filtered *watch*, a net `after` of `None` may be one that matches no longer; those of a
/// [`TransitionStream`](super::TransitionStream) tell the two apart.
///
/// `Display` is one line: `+ web is running`, `~ web is stopped`, `- web is gone`, and the gap of a net step. Where the state is
/// the same, it names up to three of the fields that changed: `~ web is running, changed: health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transition {
    /// The event that completed it.
    pub cursor: Cursor,
    /// The instance before the step.
    pub before: Option<Arc<Instance>>,
    /// The instance after the step.
    pub after: Option<Arc<Instance>>,
    /// Evidence for it.
    pub evidence: Evidence,
}

/// Evidence for a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evidence {
    /// The runtime reported it.
    Reported,
    /// A comparison across this gap shows it; the steps in between are not known.
    Net(Gap),
}

/// Freshness of a backend's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freshness {
    /// Every change so far is in it.
    Live,
    /// The link is back, and the changes that were missed are being replayed: not all of them are in it.
    Replaying,
    /// A resync is open, or about to begin; the rows are those from before it.
    Resyncing,
    /// The link is down.
    Stale,
}

type Rows = BTreeMap<InstanceId, Arc<Instance>>;

/// The present state, folded from a stream, storable as a checkpoint.
///
/// A resync is swapped in at `ResyncEnd`, so that readers never see half of one. The table does not know the filter of a watch: a
/// filtered resync leaves out what does not match, and the table takes that for gone.
///
/// ```
/// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
/// use runtide_core::{InstanceTable, WatchOptions};
///
/// let mut table = InstanceTable::default();
/// let mut stream = backend.watch(WatchOptions::default()).await?;
/// while let Some(event) = stream.next().await {
///     for change in table.apply(&*event?) {
///         println!("{:?} -> {:?}", change.before.map(|i| i.state), change.after.map(|i| i.state));
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceTable {
    rows: BTreeMap<BackendId, Rows>,
    #[serde(alias = "places")]
    positions: BTreeMap<BackendId, (Cursor, Freshness)>,
    completeness: BTreeMap<BackendId, Completeness>,
    /// Resyncs that are open. Not stored: the position is then still the one from before.
    #[serde(skip)]
    staged: BTreeMap<BackendId, (Gap, Rows)>,
}

impl InstanceTable {
    /// Applies one event, and returns the steps that it completes. Idempotent: an event that changes nothing returns none.
    pub fn apply(&mut self, event: &RuntimeEvent) -> Vec<Transition> {
        let backend = &event.backend;
        let current = self.positions.get(backend);
        if !self.staged.contains_key(backend)
            && current
                .is_some_and(|(position, _)| position.epoch == event.cursor.epoch && event.cursor.seq < position.seq)
            && event.instance().is_some()
        {
            return Vec::new(); // delivered again
        }
        match &event.kind {
            RuntimeEventKind::Started(instance)
            | RuntimeEventKind::Stopped(instance)
            | RuntimeEventKind::Updated { instance, .. } => {
                self.advance_step(event);
                let before =
                    self.rows.entry(backend.clone()).or_default().insert(instance.id.clone(), Arc::clone(instance));
                step(event, before, Some(Arc::clone(instance)), Evidence::Reported).into_iter().collect()
            }
            RuntimeEventKind::Removed(instance) => {
                self.advance_step(event);
                let before = self.rows.get_mut(backend).and_then(|rows| rows.remove(&instance.id));
                step(event, before, None, Evidence::Reported).into_iter().collect()
            }
            RuntimeEventKind::Present(instance) => {
                if let Some((_, rows)) = self.staged.get_mut(backend) {
                    rows.insert(instance.id.clone(), Arc::clone(instance));
                }
                Vec::new()
            }
            RuntimeEventKind::ResyncBegin { gap } => {
                self.staged.insert(backend.clone(), (*gap, Rows::new()));
                self.freshen(backend, Freshness::Resyncing);
                Vec::new()
            }
            RuntimeEventKind::ResyncEnd(completeness) => {
                let Some((gap, new)) = self.staged.remove(backend) else { return Vec::new() };
                self.advance(event, Freshness::Live);
                self.complete(backend, completeness.clone());
                let old = self.rows.insert(backend.clone(), new.clone()).unwrap_or_default();
                net_steps(event, gap, &old, &new)
            }
            RuntimeEventKind::BackendDisconnected { .. } => {
                self.staged.remove(backend);
                self.advance_link(event, Freshness::Stale);
                Vec::new()
            }
            RuntimeEventKind::BackendReconnected { continuity } => {
                let resumed = *continuity == Continuity::Resumed;
                self.advance_link(event, if resumed { Freshness::Replaying } else { Freshness::Resyncing });
                Vec::new()
            }
            RuntimeEventKind::CaughtUp => {
                self.advance_link(event, Freshness::Live);
                Vec::new()
            }
            RuntimeEventKind::Bookmark => {
                if !self.staged.contains_key(backend) {
                    let fresh = self.positions.get(backend).map_or(Freshness::Live, |(_, fresh)| *fresh);
                    self.advance(event, fresh);
                }
                Vec::new()
            }
        }
    }

    /// One row.
    pub fn get(&self, backend: &BackendId, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.rows.get(backend)?.get(id)
    }

    /// Every row, in order of backend and id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.rows.values().flat_map(BTreeMap::values)
    }

    /// One backend's rows, in order of id.
    pub fn of(&self, backend: &BackendId) -> impl Iterator<Item = &Arc<Instance>> {
        self.rows.get(backend).into_iter().flat_map(BTreeMap::values)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.values().map(BTreeMap::len).sum()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.values().all(BTreeMap::is_empty)
    }

    /// The last cursor that is safe to resume from, and the freshness of the rows.
    pub fn position(&self, backend: &BackendId) -> Option<(&Cursor, Freshness)> {
        self.positions.get(backend).map(|(cursor, fresh)| (cursor, *fresh))
    }

    /// Completeness of one backend's rows, as the last resync said it. A change that the stream reports leaves it as it is.
    ///
    /// A table that was stored by a version without this field has `Unknown`, as one that no resync has filled.
    pub fn completeness(&self, backend: &BackendId) -> &Completeness {
        static UNKNOWN: Completeness = Completeness::Unknown;
        self.completeness.get(backend).unwrap_or(&UNKNOWN)
    }

    /// Keeps only the rows that satisfy the condition.
    pub fn retain(&mut self, mut keep: impl FnMut(&Instance) -> bool) {
        for rows in self.rows.values_mut() {
            rows.retain(|_, row| keep(row));
        }
    }

    /// Discards a resync of this backend that was begun and will never end, with the rows that it has shown so far.
    pub fn discard_resync(&mut self, backend: &BackendId) {
        self.staged.remove(backend);
    }

    /// The part of one backend: its rows and its position, without a resync that has not ended.
    #[must_use]
    pub fn only(&self, backend: &BackendId) -> Self {
        let mut part = Self::default();
        part.rows.extend(self.rows.get(backend).map(|rows| (backend.clone(), rows.clone())));
        part.positions.extend(self.positions.get(backend).map(|position| (backend.clone(), position.clone())));
        part.completeness.extend(self.completeness.get(backend).map(|known| (backend.clone(), known.clone())));
        part
    }

    /// Puts rows back, as they were stored; rows of the same id are replaced.
    pub fn restore(&mut self, backend: &BackendId, rows: Vec<Arc<Instance>>) {
        let known = self.rows.entry(backend.clone()).or_default();
        known.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
    }

    /// Puts a position back, as it was stored, and the completeness of the rows there.
    pub fn restore_position(
        &mut self,
        backend: &BackendId,
        position: Option<(Cursor, Freshness)>,
        completeness: Completeness,
    ) {
        self.rows.entry(backend.clone()).or_default();
        self.positions.extend(position.map(|position| (backend.clone(), position)));
        self.complete(backend, completeness);
    }

    /// The backends of which the table has rows or a position.
    pub fn backends(&self) -> std::collections::BTreeSet<&BackendId> {
        self.rows.keys().chain(self.positions.keys()).collect()
    }

    /// Notes the completeness of the rows. `Unknown` has no entry, as where no resync has ended.
    fn complete(&mut self, backend: &BackendId, completeness: Completeness) {
        if completeness == Completeness::Unknown {
            self.completeness.remove(backend);
        } else {
            self.completeness.insert(backend.clone(), completeness);
        }
    }

    fn advance(&mut self, event: &RuntimeEvent, fresh: Freshness) {
        self.positions.insert(event.backend.clone(), (event.cursor.clone(), fresh));
    }

    /// Advances to a change that the stream reports: one of a replay, until that has ended.
    fn advance_step(&mut self, event: &RuntimeEvent) {
        let replaying = self.positions.get(&event.backend).is_some_and(|(_, fresh)| *fresh == Freshness::Replaying);
        self.advance(event, if replaying { Freshness::Replaying } else { Freshness::Live });
    }

    /// Advances to an event of the link, unless its cursor cannot resume from the runtime's history, and the earlier one can.
    fn advance_link(&mut self, event: &RuntimeEvent, fresh: Freshness) {
        let known = self.positions.get(&event.backend).is_some_and(|(position, _)| position.native.is_some());
        if known && event.cursor.native.is_none() {
            self.freshen(&event.backend, fresh);
        } else {
            self.advance(event, fresh);
        }
    }

    /// Gap of the resync of this backend that is open.
    pub(super) fn open_resync(&self, backend: &BackendId) -> Option<Gap> {
        self.staged.get(backend).map(|(gap, _)| *gap)
    }

    /// Drops one row, of which nothing more will be reported.
    pub(super) fn forget(&mut self, backend: &BackendId, id: &InstanceId) {
        if let Some(rows) = self.rows.get_mut(backend) {
            rows.remove(id);
        }
    }

    /// The rows of every backend are as old as the table.
    pub(super) fn mark_stale(&mut self) {
        self.positions.values_mut().for_each(|position| position.1 = Freshness::Stale);
    }

    pub(super) fn freshen(&mut self, backend: &BackendId, fresh: Freshness) {
        if let Some(position) = self.positions.get_mut(backend) {
            position.1 = fresh;
        }
    }
}

/// `None` if the two sides are the same.
fn step(
    event: &RuntimeEvent,
    before: Option<Arc<Instance>>,
    after: Option<Arc<Instance>>,
    evidence: Evidence,
) -> Option<Transition> {
    let same = match (&before, &after) {
        (Some(before), Some(after)) => FieldSet::between(before, after).is_empty(),
        (None, None) => true,
        _ => false,
    };
    (!same).then(|| Transition { cursor: event.cursor.clone(), before, after, evidence })
}

fn net_steps(event: &RuntimeEvent, gap: Gap, old: &Rows, new: &Rows) -> Vec<Transition> {
    let gone = old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(_, before)| (Some(before), None));
    let there = new.iter().map(|(id, after)| (old.get(id), Some(after)));
    gone.chain(there)
        .filter_map(|(before, after)| step(event, before.cloned(), after.cloned(), Evidence::Net(gap)))
        .collect()
}
