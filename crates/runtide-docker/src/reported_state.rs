//! What the stream told of each container lately, shared by the source, which writes it, and the inspector, which needs it to
//! judge what it sees.
//!
//! Docker's list reads a copy that lags behind the events: `die`, `pause` and a network's `connect` are told before
//! the copy is brought up to date. So a listed state that contradicts a fresh report is looked at again, exactly.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtide_core::{
    BackendId, ExitStatus, ImageRef, Instance, InstanceId, InstanceState, Listing,
    event::ResumeToken,
    watch::{Edge, Signal, SignalBody},
};
use tokio::time::Instant;

use crate::normalize::{self, Action, Attributes, Event};

/// Longer than Docker takes to bring its list up to date after an event.
const LAG: Duration = Duration::from_secs(5);

/// Shared by one source and its inspector.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<ReportedState>>);

impl Shared {
    pub(crate) fn new(backend: BackendId) -> Self {
        Self(Arc::new(Mutex::new(ReportedState { backend, live: false, entries: HashMap::new() })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ReportedState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By id, for as long as the container is there.
#[derive(Debug)]
pub(crate) struct ReportedState {
    backend: BackendId,
    /// Whether a stream keeps it up to date.
    live: bool,
    entries: HashMap<InstanceId, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: InstanceId,
    /// Whether a label shadows the exit code in this container's messages (trap D16); `None`: no message or look told its
    /// labels yet.
    exit_is_label: Option<bool>,
    /// As its `create` or `start` described it.
    described: Option<Arc<Instance>>,
    /// The last state told, and when.
    told: Option<(InstanceState, Instant)>,
    /// When it last was connected to a network or disconnected.
    rewired: Option<Instant>,
    /// Whether its present life, or the one that ended last, ran out of memory; `None`: nobody said.
    oom: Option<bool>,
}

impl Entry {
    fn new(id: InstanceId) -> Self {
        Self { id, exit_is_label: None, described: None, told: None, rewired: None, oom: None }
    }

    fn tell(&mut self, state: InstanceState, exit: Option<ExitStatus>, now: Instant) -> Edge {
        self.told = Some((state, now));
        Edge { id: self.id.clone(), incarnation: None, state, exit, described: None }
    }

    /// The same description as long as the attributes say the same: most containers have a `create`, a `start` and a `die`.
    /// The state is the edge's to tell.
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
    // others, and be read again.
    attributes.get("name") == Some(known.name.as_str())
        && attributes.get("image") == known.image.as_ref().map(ImageRef::as_str)
        && known.labels.as_ref().is_some_and(|labels| labels.iter().eq(attributes.labels()))
}

fn exit_is_label(is_there: impl Fn(&str) -> bool) -> bool {
    is_there("exitCode") || is_there("containerExitCode")
}

fn new_entry<'a>(entries: &'a mut HashMap<InstanceId, Entry>, id: &str) -> &'a mut Entry {
    entries.entry(InstanceId::from(id)).or_insert_with_key(|id| Entry::new(id.clone()))
}

impl ReportedState {
    /// What a message means; nothing for one that says nothing of a container.
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
        let mut say = |body| out.push(Signal::new(body).with_token(token.cloned()).with_at(at));
        if event.is_container() && action == Action::Destroy {
            let id = self.entries.remove(id).map_or_else(|| InstanceId::from(id), |entry| entry.id);
            return say(SignalBody::Gone(id));
        }
        let attributes = event.attributes();
        let backend = &self.backend;
        let entry = match self.entries.get_mut(id) {
            Some(entry) => entry,
            None => new_entry(&mut self.entries, id),
        };
        if !event.is_container() {
            entry.rewired = Some(now);
            return say(SignalBody::Hint(entry.id.clone()));
        }
        let edge = match action {
            Action::Create | Action::Start => {
                if let Some(attributes) = attributes {
                    entry.exit_is_label = Some(exit_is_label(|key| attributes.get(key).is_some()));
                }
                let state = if action == Action::Start { InstanceState::Running } else { InstanceState::Created };
                (entry.oom, entry.rewired) = (None, None);
                let described = entry.describe(backend, attributes);
                Edge { described, ..entry.tell(state, None, now) }
            }
            Action::Die => {
                let exit = attributes
                    .filter(|_| entry.exit_is_label == Some(false))
                    .and_then(Attributes::exit_code)
                    .map(|code| ExitStatus::code(code).with_oom_killed(entry.oom));
                let described = entry.describe(backend, attributes);
                Edge { described, ..entry.tell(InstanceState::Stopped, exit, now) }
            }
            Action::Pause => return say(SignalBody::Edge(entry.tell(InstanceState::Paused, None, now))),
            Action::Unpause => return say(SignalBody::Edge(entry.tell(InstanceState::Running, None, now))),
            Action::Oom => {
                entry.oom = Some(true);
                return;
            }
            Action::Exec | Action::Destroy => return,
            Action::Other => return say(SignalBody::Hint(entry.id.clone())),
        };
        let id = edge.id.clone();
        say(SignalBody::Edge(edge));
        say(SignalBody::Hint(id));
    }

    /// What a message that was told before says of its container's labels.
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

    /// Adds to a look what only the stream told, and learns from it what messages alone leave open.
    pub(crate) fn complete(&mut self, instance: &mut Instance) {
        let entry = self.entries.entry(instance.id.clone()).or_insert_with_key(|id| Entry::new(id.clone()));
        if let Some(labels) = &instance.labels {
            entry.exit_is_label = Some(exit_is_label(|key| labels.contains_key(key)));
        }
        // Shared, so that a hundred thousand looks do not hold the id a hundred thousand times twice.
        instance.id = entry.id.clone();
        if let Some(exit) = &mut instance.exit
            && self.live
        {
            // What one look found, the next one does not unsay: a list is silent about it.
            entry.oom = exit.oom_killed.or(entry.oom);
            *exit = exit.with_oom_killed(entry.oom);
        }
    }

    /// Whether Docker's list is likely to lag behind in what it says of this one.
    pub(crate) fn doubts(&self, listed: &Instance, now: Instant) -> bool {
        let Some(entry) = self.entries.get(listed.id.as_str()) else { return false };
        let fresh = |since: Instant| now.duration_since(since) < LAG;
        let contradicted = entry.told.is_some_and(|(told, since)| {
            fresh(since)
                && match told {
                    InstanceState::Stopped => listed.state.is_alive(),
                    InstanceState::Paused => listed.state == InstanceState::Running,
                    InstanceState::Running => listed.state == InstanceState::Paused,
                    _ => false,
                }
        });
        contradicted || (listed.state.is_alive() && entry.rewired.is_some_and(fresh))
    }

    /// After a gap, what was told before it says nothing of what is now.
    pub(crate) fn forget(&mut self) {
        self.live = false;
        self.entries.clear();
    }

    /// From here every end and every start is told.
    pub(crate) fn go_live(&mut self) {
        self.live = true;
    }

    /// Forgets what a complete look did not show, unless the stream spoke of it just now.
    pub(crate) fn prune(&mut self, look: &Listing, now: Instant) {
        if !look.is_complete() {
            return;
        }
        let there: HashSet<&str> = look.instances.iter().map(|instance| instance.id.as_str()).collect();
        self.entries.retain(|id, entry| {
            let spoken_of = entry.told.map(|(_, at)| at).into_iter().chain(entry.rewired).max();
            there.contains(id.as_str()) || spoken_of.is_some_and(|at| now.duration_since(at) < LAG)
        });
    }
}
