//! [`ReportedState`]: the stream's recent reports of each container. The source writes it; the inspector checks listings with
//! it.
//!
//! Docker's list reads a copy that lags behind the events: `die`, `pause`, a network's `connect` and `rename` are reported before
//! the copy is updated. So a container whose listed state contradicts a fresh report is inspected.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use runtide_core::{
    BackendId, ExitStatus, ImageRef, Instance, InstanceId, InstanceState, Listing,
    backend::lock,
    event::ResumeToken,
    watch::{Edge, Signal, SignalBody},
};
use tokio::time::Instant;

use crate::normalize::{self, Action, Attributes, Event};

/// Time for which a report outweighs the list; longer than Docker takes to update its list after an event.
const LAG: Duration = Duration::from_secs(5);

/// The reported state that one source and its inspector share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<ReportedState>>);

impl Shared {
    pub(crate) fn new(backend: BackendId) -> Self {
        Self(Arc::new(Mutex::new(ReportedState { backend, live: false, entries: HashMap::new() })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ReportedState> {
        lock(&self.0)
    }
}

/// Reports by id, for as long as the container exists.
#[derive(Debug)]
pub(crate) struct ReportedState {
    backend: BackendId,
    /// A stream keeps the entries up to date.
    live: bool,
    entries: HashMap<InstanceId, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: InstanceId,
    /// A label shadows the exit code in this container's messages (trap D16); `None`: its labels are unknown yet.
    exit_is_label: Option<bool>,
    /// Description from its last message with attributes.
    described: Option<Arc<Instance>>,
    /// Last reported state, and the time of the report.
    reported: Option<(InstanceState, Instant)>,
    /// Time of the last report that a network was connected or disconnected.
    rewired: Option<Instant>,
    /// Time of the last report of another name.
    renamed: Option<Instant>,
    /// The present run, or the one that ended last, ran out of memory; `None`: unknown.
    oom: Option<bool>,
}

impl Entry {
    fn new(id: InstanceId) -> Self {
        Self { id, exit_is_label: None, described: None, reported: None, rewired: None, renamed: None, oom: None }
    }

    fn report(&mut self, state: InstanceState, exit: Option<ExitStatus>, now: Instant) -> Edge {
        self.reported = Some((state, now));
        Edge { id: self.id.clone(), incarnation: None, state, exit, described: None }
    }

    /// The description by these attributes. Equal attributes share one value: most containers have a `create`, a `start` and
    /// a `die`. The state is the edge's.
    fn describe(&mut self, backend: &BackendId, attributes: Option<&Attributes<'_>>) -> Option<Arc<Instance>> {
        let attributes = attributes?;
        if !self.described.as_deref().is_some_and(|known| is_described_by(known, attributes)) {
            let described = normalize::described(backend, self.id.clone(), attributes, InstanceState::Unknown);
            self.described = Some(Arc::new(described));
        }
        self.described.clone()
    }
}

fn is_described_by(known: &Instance, attributes: &Attributes<'_>) -> bool {
    // Go writes a map in the order of its keys, which is that of the labels here. In another order they would count as
    // different, and be decoded again.
    attributes.get("name") == Some(known.name.as_str())
        && attributes.get("image") == known.image.as_ref().map(ImageRef::as_str)
        && known.labels.as_ref().is_some_and(|labels| labels.iter().eq(attributes.labels()))
}

/// True if the labels hide the exit in a container's messages (trap D16).
pub(crate) fn exit_is_label(is_there: impl Fn(&str) -> bool) -> bool {
    is_there("exitCode") || is_there("containerExitCode")
}

fn new_entry<'a>(entries: &'a mut HashMap<InstanceId, Entry>, id: &str) -> &'a mut Entry {
    entries.entry(InstanceId::from(id)).or_insert_with_key(|id| Entry::new(id.clone()))
}

impl ReportedState {
    /// Translates a message into signals; none for a message that is about no container.
    pub(crate) fn translate(
        &mut self,
        event: &Event<'_>,
        token: Option<&ResumeToken>,
        now: Instant,
        out: &mut Vec<Signal>,
    ) {
        let Some(id) = event.container() else { return };
        let action = event.action();
        if event.is_container() && matches!(action, Action::Exec) {
            return;
        }
        let at = event.at();
        let mut push = |body| out.push(Signal::new(body).with_token(token.cloned()).with_at(at));
        if event.is_container() && action == Action::Destroy {
            let id = self.entries.remove(id).map_or_else(|| InstanceId::from(id), |entry| entry.id);
            return push(SignalBody::Gone(id));
        }
        let attributes = event.attributes();
        let backend = &self.backend;
        let entry = match self.entries.get_mut(id) {
            Some(entry) => entry,
            None => new_entry(&mut self.entries, id),
        };
        if !event.is_container() {
            entry.rewired = Some(now);
            return push(SignalBody::Hint(entry.id.clone()));
        }
        let edge = match action {
            Action::Create | Action::Start => {
                if let Some(attributes) = attributes {
                    entry.exit_is_label = Some(exit_is_label(|key| attributes.get(key).is_some()));
                }
                let state = if action == Action::Start { InstanceState::Running } else { InstanceState::Created };
                (entry.oom, entry.rewired) = (None, None);
                let described = entry.describe(backend, attributes);
                Edge { described, ..entry.report(state, None, now) }
            }
            Action::Die => {
                let exit = attributes
                    .filter(|_| entry.exit_is_label == Some(false))
                    .and_then(Attributes::exit_code)
                    .map(|code| ExitStatus::code(code).with_oom_killed(entry.oom));
                let described = entry.describe(backend, attributes);
                Edge { described, ..entry.report(InstanceState::Stopped, exit, now) }
            }
            Action::Pause => return push(SignalBody::Edge(entry.report(InstanceState::Paused, None, now))),
            Action::Unpause => return push(SignalBody::Edge(entry.report(InstanceState::Running, None, now))),
            Action::Oom => {
                entry.oom = Some(true);
                return;
            }
            Action::Exec | Action::Destroy => return,
            Action::Rename => {
                entry.renamed = Some(now);
                return push(SignalBody::Hint(entry.id.clone()));
            }
            Action::Other => return push(SignalBody::Hint(entry.id.clone())),
        };
        let id = edge.id.clone();
        push(SignalBody::Edge(edge));
        push(SignalBody::Hint(id));
    }

    /// Learns the container's labels from a message that was emitted before.
    pub(crate) fn learn(&mut self, event: &Event<'_>) {
        if !event.is_container() || !matches!(event.action(), Action::Create | Action::Start) {
            return;
        }
        if let (Some(id), Some(attributes)) = (event.container(), event.attributes()) {
            let entry = match self.entries.get_mut(id) {
                Some(entry) => entry,
                None => new_entry(&mut self.entries, id),
            };
            entry.exit_is_label = Some(exit_is_label(|key| attributes.get(key).is_some()));
        }
    }

    /// Learns the labels, which a container keeps as long as it exists, from a row of another process.
    pub(crate) fn learn_labels(&mut self, row: &Instance) {
        let Some(labels) = &row.labels else { return };
        let entry = self.entries.entry(row.id.clone()).or_insert_with_key(|id| Entry::new(id.clone()));
        entry.exit_is_label = Some(exit_is_label(|key| labels.contains_key(key)));
    }

    /// Adds the facts that only the stream reports to a listed or inspected instance, and learns its labels and exit.
    pub(crate) fn complete(&mut self, instance: &mut Instance) {
        let entry = self.entries.entry(instance.id.clone()).or_insert_with_key(|id| Entry::new(id.clone()));
        if let Some(labels) = &instance.labels {
            entry.exit_is_label = Some(exit_is_label(|key| labels.contains_key(key)));
        }
        // Shared, so that a hundred thousand listed instances do not hold each id twice.
        instance.id = entry.id.clone();
        if let Some(exit) = &mut instance.exit
            && self.live
        {
            // A list has no such field, so it must not erase what an inspection found.
            entry.oom = exit.oom_killed.or(entry.oom);
            *exit = exit.with_oom_killed(entry.oom);
        }
    }

    /// Docker's list is likely to lag behind the stream in this item.
    pub(crate) fn doubts(&self, listed: &Instance, now: Instant) -> bool {
        let Some(entry) = self.entries.get(listed.id.as_str()) else { return false };
        let fresh = |since: Instant| now.duration_since(since) < LAG;
        let contradicted = entry.reported.is_some_and(|(reported, since)| {
            fresh(since)
                && match reported {
                    InstanceState::Stopped => listed.state.is_alive(),
                    InstanceState::Paused => listed.state == InstanceState::Running,
                    InstanceState::Running => listed.state == InstanceState::Paused,
                    _ => false,
                }
        });
        // A start that failed connects and disconnects its network, and the list does not show the reason.
        let may_have_failed = listed.state.is_alive() || listed.state == InstanceState::Created;
        contradicted || (may_have_failed && entry.rewired.is_some_and(fresh)) || entry.renamed.is_some_and(fresh)
    }

    /// Drops every report: after a gap, the reports before it say nothing about the present.
    pub(crate) fn forget(&mut self) {
        self.live = false;
        self.entries.clear();
    }

    /// From here on the stream reports every start and every end.
    pub(crate) fn go_live(&mut self) {
        self.live = true;
    }

    /// Drops the containers that a complete listing lacks, unless the stream has just reported them.
    pub(crate) fn prune(&mut self, listing: &Listing, now: Instant) {
        if !listing.is_complete() {
            return;
        }
        let listed: HashSet<&str> = listing.instances.iter().map(|instance| instance.id.as_str()).collect();
        self.entries.retain(|id, entry| {
            let reported_at = entry.reported.map(|(_, at)| at).into_iter().chain(entry.rewired).max();
            listed.contains(id.as_str()) || reported_at.is_some_and(|at| now.duration_since(at) < LAG)
        });
    }
}
