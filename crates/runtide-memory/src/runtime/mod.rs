//! The simulated daemon. It runs no task and no thread: changes that are due by tokio's clock are made up for, at their times
//! and in order, whenever the runtime is used.

mod ability;
mod answer;
mod blueprint;
mod boot;
mod demo;
mod history;
mod image;
mod life;
mod line;
mod log;
mod network;
mod options;
mod process;
mod provision;
mod record;
mod refusal;
mod script;
mod snapshot;
mod usage;
mod volume;
mod wait;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use runtide_core::{
    Capabilities, ExitStatus, InstanceId,
    backend::{lock, saturating_add},
    event::ResumeToken,
    manager::VolumeId,
};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::{
    answer::{Item, RawListing},
    blueprint::{check_labels, check_name, is_env},
    history::Told,
    line::{Connection, Message},
    log::LogReader,
    process::{Program, Surroundings},
    provision::Order,
    record::{Phase, Record},
    refusal::{conflict, missing},
    wait::Waiting,
};
pub use self::{
    blueprint::Blueprint,
    demo::ScriptedRuntime,
    history::{Fact, FactKind},
    options::RuntimeOptions,
    process::Emission,
    script::{AfterRun, Reboot},
};
use self::{
    boot::Boot, history::History, image::Images, line::Line, log::Log, network::Networks, snapshot::Kept,
    volume::Volume, wait::Waited,
};
use crate::fault::{Call, Dial, Faults};

/// A runtime in memory: the "daemon", and the script that drives it from outside.
///
/// A cheap handle: clones are the same runtime, which is dropped with the last of them and of the backends on it. Any number
/// of [`MemoryBackend`](crate::MemoryBackend)s may connect to it. The verbs of the script act at once, independent of the
/// [`Faults`], which stand only between the runtime and its backends.
///
/// Time is tokio's, so that a test may pause it; times of day are counted from [`RuntimeOptions::base`].
#[derive(Clone)]
pub struct MemoryRuntime {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for MemoryRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRuntime").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    state: Mutex<State>,
    /// Notified after every change, so that waiters check again.
    changed: watch::Sender<()>,
}

/// Result of a waiter's check.
pub(crate) enum Look<T> {
    Ready(T),
    /// Check again after the next change, and at this time at the latest.
    Later(Option<Instant>),
}

impl Look<()> {
    pub(crate) fn ready_if(condition: bool) -> Self {
        if condition { Self::Ready(()) } else { Self::Later(None) }
    }
}

/// A scheduled change.
#[derive(Debug)]
enum Timer {
    /// The run ends with this exit.
    End(InstanceId, u64, ExitStatus),
    /// The runtime starts it again after this run.
    Again(InstanceId, u64),
    /// An event was held back long enough.
    Release(ResumeToken),
}

#[derive(Debug)]
pub(crate) struct State {
    options: RuntimeOptions,
    boot: Boot,
    born: Instant,
    now: Instant,
    /// `true` if waiters must check again.
    dirty: bool,
    /// `true` while the runtime is down: no call is answered, and no change is reported.
    down: bool,
    records: BTreeMap<InstanceId, Arc<Record>>,
    /// Names of all instances: each occurs once.
    names: HashSet<String>,
    next_id: u64,
    history: History,
    timers: BTreeMap<(Instant, u64), Timer>,
    next_timer: u64,
    faults: Faults,
    capabilities: Arc<Capabilities>,
    lines: BTreeMap<u64, Line>,
    next_line: u64,
    calls: BTreeMap<Call, u64>,
    dials: VecDeque<Dial>,
    waits: BTreeMap<u64, Waited>,
    next_wait: u64,
    logs: BTreeMap<InstanceId, Arc<Mutex<Log>>>,
    images: Images,
    networks: Networks,
    volumes: BTreeMap<VolumeId, Volume>,
    next_volume: u64,
    snapshots: BTreeMap<InstanceId, Vec<Kept>>,
}

impl Inner {
    fn new(options: RuntimeOptions) -> Self {
        let born = Instant::now();
        let state = State {
            boot: Boot::new(options.seed),
            born,
            now: born,
            dirty: false,
            down: false,
            records: BTreeMap::new(),
            names: HashSet::new(),
            next_id: 0,
            history: History::default(),
            timers: BTreeMap::new(),
            next_timer: 0,
            faults: Faults::default(),
            capabilities: Arc::new(ability::capabilities(&options)),
            lines: BTreeMap::new(),
            next_line: 0,
            calls: BTreeMap::new(),
            dials: VecDeque::new(),
            waits: BTreeMap::new(),
            next_wait: 0,
            logs: BTreeMap::new(),
            images: Images::default(),
            networks: Networks::default(),
            volumes: BTreeMap::new(),
            next_volume: 0,
            snapshots: BTreeMap::new(),
            options,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Every access goes through here: first the due timers fire, then `act` runs, then the waiters are notified.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        state.catch_up(Instant::now());
        let done = act(&mut state);
        let dirty = std::mem::take(&mut state.dirty);
        drop(state);
        if dirty {
            self.changed.send_replace(());
        }
        done
    }

    /// Checks until there is a value, after every change and whenever a timer is due.
    ///
    /// # Cancel safety
    /// A value that `look` takes is returned by the same poll.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Look<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (found, due) = self.with(|state| (look(state), state.next_due()));
            let wake = match found {
                Look::Ready(found) => return found,
                Look::Later(wake) => [wake, due].into_iter().flatten().min(),
            };
            let asleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { _ = changed.changed() => {}, () = asleep => {} }
        }
    }
}

impl State {
    fn catch_up(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((due, _), timer) = entry.remove_entry();
            self.now = self.now.max(due);
            match timer {
                Timer::End(id, life, exit) => self.end_by_itself(&id, life, exit),
                Timer::Again(id, life) => self.start_again(&id, life),
                Timer::Release(token) => self.release(&token),
            }
        }
        self.now = self.now.max(now);
    }

    fn next_due(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(due, _)| *due)
    }

    fn schedule(&mut self, after: Duration, timer: Timer) {
        self.next_timer += 1;
        self.timers.insert((saturating_add(self.now, after), self.next_timer), timer);
        self.dirty = true;
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.options.base + (self.now - self.born)
    }
}
