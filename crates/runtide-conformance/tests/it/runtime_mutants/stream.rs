//! A watch that is spoilt on its way: the sound events of the inner watch come in, and the events that a naive loop would have
//! made of them go out, with their own numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use runtide_core::{
    Completeness, Cursor, Error, ErrorKind, EventStream, ExitStatus, Gap, Incarnation, Instance, InstanceId,
    InstanceState, Listing, RuntimeBackend, RuntimeEvent, RuntimeEventKind as Kind,
    event::{Continuity, Epoch, FieldSet},
};
use runtide_memory::{FactKind, MemoryBackend, MemoryRuntime};
use tokio::time::Instant;

use super::table::{Mutant, Shared};

type Item = Result<Arc<RuntimeEvent>, Error>;

/// A spoilt stream.
#[allow(clippy::struct_excessive_bools, reason = "each is the whole state of one mutant")]
pub(crate) struct Spoilt {
    how: Mutant,
    inner: EventStream,
    runtime: MemoryRuntime,
    out: VecDeque<Item>,
    numbers: Numbers,
    /// The rows that the consumer holds.
    rows: BTreeMap<InstanceId, Arc<Instance>>,
    /// The resync under way.
    resync: Option<(Gap, Vec<Arc<Instance>>)>,
    /// The event that `SwapsNeighbours` holds back.
    held: Option<Arc<RuntimeEvent>>,
    /// The events that `ReplaysDuplicates` repeats.
    replayed: VecDeque<Arc<RuntimeEvent>>,
    /// The first incarnation of each instance, for `FirstLifeForEver`.
    incarnations: BTreeMap<InstanceId, Incarnation>,
    /// State shared with the other streams of this backend.
    shared: Arc<Shared>,
    /// Number of failed attempts.
    in_vain: u32,
    /// The backend that `HotLoop` dials without a pause while the link is down.
    wire: Arc<MemoryBackend>,
    down: bool,
    /// `true` if `PretendsToHaveResumed` has claimed a replay, and not its end.
    pretends: bool,
    /// Time at which the link broke, for `BacksOffUnheard`.
    down_since: Instant,
    /// Number of facts that `read_raw` has read.
    read: usize,
    ended: bool,
    first: bool,
    /// `true` if the first resync was made from its own list.
    listed: bool,
}

/// Numbers the events as the rules ask.
struct Numbers {
    ring: Epoch,
    seq: u64,
    resyncs: u64,
    resync: Option<(Epoch, u64)>,
}

impl Numbers {
    fn next(&mut self, kind: &Kind, native: &Cursor) -> Cursor {
        match kind {
            Kind::ResyncBegin { .. } => {
                self.resyncs += 1;
                let epoch = Epoch::from(format!("{}.{}", self.ring, self.resyncs));
                self.resync = Some((epoch.clone(), 1));
                Cursor::new(epoch, 1, native.native.clone())
            }
            Kind::Present(_) => {
                let (epoch, seq) = self.resync.as_mut().expect("in a resync");
                *seq += 1;
                Cursor::new(epoch.clone(), *seq, native.native.clone())
            }
            Kind::Bookmark => Cursor::new(self.ring.clone(), self.seq, native.native.clone()),
            _ => {
                self.resync = None;
                self.seq += 1;
                Cursor::new(self.ring.clone(), self.seq, native.native.clone())
            }
        }
    }
}

impl Spoilt {
    pub(crate) fn new(how: Mutant, inner: EventStream, wire: &Arc<MemoryBackend>, shared: &Arc<Shared>) -> Self {
        let runtime = wire.runtime().clone();
        let epoch = format!("spoilt-{:016x}", fastrand::u64(..));
        let read = runtime.history().len();
        Self {
            how,
            inner,
            runtime,
            out: VecDeque::new(),
            numbers: Numbers { ring: Epoch::from(epoch), seq: 0, resyncs: 0, resync: None },
            rows: BTreeMap::new(),
            resync: None,
            held: None,
            replayed: VecDeque::new(),
            incarnations: BTreeMap::new(),
            shared: Arc::clone(shared),
            in_vain: 0,
            wire: Arc::clone(wire),
            down: false,
            pretends: false,
            down_since: Instant::now(),
            read,
            ended: false,
            first: true,
            listed: false,
        }
    }

    /// Lists before it subscribes: the rows of that list are its first resync, and the one that belongs to the subscription is
    /// dropped, as if there had been none.
    pub(crate) fn listed_first(mut self, listed: &Listing) -> Self {
        let rows = &listed.instances;
        let backend = rows.first().map_or_else(|| "memory:test".into(), |row| row.backend.clone());
        let event = RuntimeEvent::new(backend, Cursor::new("x".into(), 0, None), SystemTime::now(), Kind::Bookmark);
        self.emit_resync(&event, Gap::Initial, rows, listed.completeness.clone());
        self.listed = true;
        self
    }

    /// Continues the numbers of this position.
    pub(crate) fn after(mut self, from: Option<Cursor>) -> Self {
        if let Some(from) = from {
            (self.numbers.ring, self.numbers.seq) = (from.epoch, from.seq);
            // The resyncs of this stream are not those of the one before it.
            self.numbers.resyncs = fastrand::u64(1_000..1_000_000);
        }
        self
    }

    pub(crate) fn into_stream(self) -> EventStream {
        let spoilt =
            futures_util::stream::unfold(
                self,
                |mut spoilt| async move { spoilt.next().await.map(|item| (item, spoilt)) },
            );
        EventStream::new(Box::pin(spoilt.fuse()))
    }

    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.out.pop_front() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            match self.how {
                Mutant::DebouncesEvents => self.debounced().await,
                Mutant::UnknownEventIsAnError | Mutant::SignalIsAStop | Mutant::GivesUp => {
                    let read = tokio::time::timeout(Duration::from_millis(100), self.inner.next()).await;
                    match read {
                        Ok(read) => self.take(read),
                        Err(_) => self.read_raw(),
                    }
                }
                Mutant::HotLoop if self.down => {
                    // Dial again, with any outcome.
                    let _ = self.wire.connect().await;
                    if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), self.inner.next()).await {
                        self.take(read);
                    }
                }
                _ => {
                    let read = self.inner.next().await;
                    self.hold_back(read.as_ref()).await;
                    self.take(read);
                }
            }
        }
    }

    /// Waits until the next attempt of a backoff that has doubled all through the outage: it has lasted as long again.
    async fn hold_back(&mut self, read: Option<&Item>) {
        let Some(Ok(event)) = read else { return };
        if self.how == Mutant::BacksOffUnheard && matches!(event.kind, Kind::BackendReconnected { .. }) {
            tokio::time::sleep(self.down_since.elapsed().min(Duration::from_secs(30))).await;
        }
    }

    fn take(&mut self, read: Option<Item>) {
        match read {
            None => self.ended = true,
            Some(Err(error)) => {
                self.ended = true;
                self.out.push_back(Err(error));
            }
            Some(Ok(event)) => self.spoil(&event),
        }
    }

    /// Sends an event on, with a number.
    fn emit(&mut self, like: &RuntimeEvent, kind: Kind) {
        let mut event = like.clone();
        event.cursor = self.numbers.next(&kind, &like.cursor);
        if kind.name() != like.kind.name() {
            event.token = None;
        }
        event.kind = kind;
        let place = (event.cursor.epoch.clone(), event.cursor.seq);
        self.shared.places.lock().unwrap().insert(place, like.cursor.clone());
        match &event.kind {
            Kind::Removed(instance) => drop(self.rows.remove(&instance.id)),
            kind => {
                if let Some(instance) = kind.instance() {
                    self.rows.insert(instance.id.clone(), Arc::clone(instance));
                }
            }
        }
        self.out.push_back(Ok(Arc::new(event)));
    }

    fn emit_resync(&mut self, like: &RuntimeEvent, gap: Gap, rows: &[Arc<Instance>], completeness: Completeness) {
        self.rows.clear();
        self.emit(like, Kind::ResyncBegin { gap });
        for row in rows {
            self.emit(like, Kind::Present(Arc::clone(row)));
        }
        self.emit(like, Kind::ResyncEnd(completeness));
    }

    fn spoil(&mut self, event: &Arc<RuntimeEvent>) {
        match &event.kind {
            Kind::BackendDisconnected { .. } => (self.down, self.down_since) = (true, Instant::now()),
            Kind::BackendReconnected { .. } => self.down = false,
            _ => {}
        }
        match &event.kind {
            Kind::ResyncBegin { gap } => self.resync = Some((*gap, Vec::new())),
            Kind::Present(row) => {
                let row = self.named(row);
                if let Some((_, rows)) = &mut self.resync {
                    rows.push(row);
                }
            }
            Kind::ResyncEnd(completeness) => {
                let Some((gap, rows)) = self.resync.take() else { return };
                self.spoil_resync(event, gap, rows, completeness.clone());
            }
            kind => self.spoil_event(event, kind.clone()),
        }
    }

    fn spoil_resync(
        &mut self,
        event: &RuntimeEvent,
        gap: Gap,
        mut rows: Vec<Arc<Instance>>,
        mut completeness: Completeness,
    ) {
        let first = std::mem::take(&mut self.first);
        match self.how {
            Mutant::ListsFirst if first && self.listed => return,
            Mutant::EventsBeforeTheBracket if first => {
                for row in rows {
                    self.emit(event, Kind::Updated { instance: row, changed: FieldSet::default() });
                }
                return;
            }
            Mutant::ForgetsDeletesOverAGap if !first => {
                let gone = self.rows.values().filter(|old| rows.iter().all(|row| row.id != old.id)).cloned();
                let gone: Vec<_> = gone.collect();
                rows.extend(gone);
            }
            Mutant::PretendsToHaveResumed if !first => {
                // The instances that it missed never come.
                for row in rows {
                    if let Some(known) = self.rows.get(&row.id)
                        && known != &row
                    {
                        let changed = FieldSet::between(known, &row);
                        self.emit(event, Kind::Updated { instance: row, changed });
                    }
                }
                if std::mem::take(&mut self.pretends) {
                    self.emit(event, Kind::CaughtUp);
                }
                return;
            }
            Mutant::PartialListIsTheTruth => {
                let faults = self.runtime.faults(|faults| faults.clone());
                let cut = faults.truncate_list.unwrap_or(usize::MAX);
                rows.sort_by(|a, b| a.id.cmp(&b.id));
                rows = rows.into_iter().take(cut).filter(|row| !faults.bad_items.contains(&row.id)).collect();
                completeness = Completeness::Complete;
            }
            Mutant::CallsEveryResyncComplete => completeness = Completeness::Complete,
            _ => {}
        }
        self.emit_resync(event, gap, &rows, completeness);
    }

    fn spoil_event(&mut self, event: &Arc<RuntimeEvent>, kind: Kind) {
        let kind = self.renamed(kind);
        match (self.how, &kind) {
            (Mutant::SkipsNumbers, Kind::Stopped(_)) => self.numbers.seq += 1,
            (Mutant::CaughtUpAtOnce, Kind::BackendReconnected { continuity: Continuity::Resumed }) => {
                self.emit(event, kind);
                return self.emit(event, Kind::CaughtUp);
            }
            (Mutant::PretendsToHaveResumed, Kind::BackendReconnected { .. }) => {
                self.pretends = matches!(kind, Kind::BackendReconnected { continuity: Continuity::Lost });
                return self.emit(event, Kind::BackendReconnected { continuity: Continuity::Resumed });
            }
            (Mutant::ReplaysDuplicates, Kind::BackendReconnected { .. }) => {
                self.emit(event, kind);
                // From the token on, inclusive, without a check for repetitions.
                for replayed in std::mem::take(&mut self.replayed) {
                    self.emit(&replayed.clone(), replayed.kind.clone());
                }
                return;
            }
            (Mutant::ReplaysDuplicates, _) if event.token.is_some() => {
                self.replayed = VecDeque::from([Arc::clone(event)]);
            }
            (Mutant::SwapsNeighbours, Kind::Stopped(_)) if self.held.is_none() => {
                self.held = Some(Arc::clone(event));
                return;
            }
            (Mutant::SwapsNeighbours, _) => {
                self.emit(event, kind);
                if let Some(held) = self.held.take() {
                    self.emit(&held, held.kind.clone());
                }
                return;
            }
            (Mutant::IgnoresSmallChanges, Kind::Updated { changed, .. }) if !changed.contains("state") => return,
            (Mutant::ExitFromRemove, Kind::Stopped(instance)) => {
                let mut instance = Instance::clone(instance);
                instance.exit = Some(ExitStatus::code(0));
                return self.emit(event, Kind::Stopped(Arc::new(instance)));
            }
            // Each edge is followed by an inspection, and an instance that is gone by then is dropped.
            (Mutant::DropsWhatNobodyLookedAt, Kind::Started(instance) | Kind::Stopped(instance))
                if !self.runtime.truth().iter().any(|there| there.id == instance.id) =>
            {
                return;
            }
            (Mutant::ForgetsRemovals, Kind::Removed(_)) | (Mutant::CaughtUpAtOnce, Kind::CaughtUp) => return,
            (Mutant::OneEventPerAttempt, Kind::BackendDisconnected { cause }) => {
                for _ in 0..10 {
                    self.emit(event, Kind::BackendDisconnected { cause: cause.clone() });
                }
                return;
            }
            _ => {}
        }
        self.emit(event, kind);
    }

    /// Renames the instance, for `NameIsIdentity` and `FirstLifeForEver`.
    fn renamed(&mut self, kind: Kind) -> Kind {
        match kind {
            Kind::Started(row) => Kind::Started(self.named(&row)),
            Kind::Stopped(row) => Kind::Stopped(self.named(&row)),
            Kind::Removed(row) => Kind::Removed(self.named(&row)),
            Kind::Updated { instance, changed } => Kind::Updated { instance: self.named(&instance), changed },
            other => other,
        }
    }

    fn named(&mut self, row: &Arc<Instance>) -> Arc<Instance> {
        match self.how {
            Mutant::NameIsIdentity => self.shared.canonical(row),
            Mutant::FirstLifeForEver => {
                let mut row = Instance::clone(row);
                if let Some(incarnation) = row.incarnation.clone() {
                    row.incarnation = Some(self.incarnations.entry(row.id.clone()).or_insert(incarnation).clone());
                }
                Arc::new(row)
            }
            _ => Arc::clone(row),
        }
    }

    /// Waits for quiet, and emits the last event of each instance.
    async fn debounced(&mut self) {
        let read = self.inner.next().await;
        let mut last: BTreeMap<InstanceId, Arc<RuntimeEvent>> = BTreeMap::new();
        let mut read = Some(read);
        loop {
            match read.take() {
                Some(Some(Ok(event)))
                    if matches!(event.kind, Kind::Started(_) | Kind::Stopped(_) | Kind::Updated { .. }) =>
                {
                    let id = event.instance().expect("of an instance").id.clone();
                    last.insert(id, event);
                }
                Some(other) => {
                    for event in std::mem::take(&mut last).into_values() {
                        self.spoil(&event);
                    }
                    return self.take(other);
                }
                None => {}
            }
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(100), self.inner.next()).await {
                read = Some(next);
            } else {
                for event in std::mem::take(&mut last).into_values() {
                    self.spoil(&event);
                }
                return;
            }
        }
    }

    /// Reads each raw message of the runtime, also those that it does not need.
    fn read_raw(&mut self) {
        let history = self.runtime.history();
        let new: Vec<_> = history.iter().skip(self.read).cloned().collect();
        self.read = history.len();
        for fact in new {
            match (self.how, fact.kind) {
                (Mutant::UnknownEventIsAnError, FactKind::Signalled(_)) => {
                    self.ended = true;
                    self.out.push_back(Err(Error::new(
                        ErrorKind::Protocol,
                        "mutant.events",
                        "an event of an unknown kind",
                    )));
                }
                (Mutant::SignalIsAStop, FactKind::Signalled(_)) => {
                    if let Some(row) = self.rows.get(&fact.id).cloned() {
                        let mut row = Instance::clone(&row);
                        row.state = InstanceState::Stopped;
                        let event = RuntimeEvent::new(
                            row.backend.clone(),
                            Cursor::new("x".into(), 0, None),
                            SystemTime::now(),
                            Kind::Bookmark,
                        );
                        self.emit(&event, Kind::Stopped(Arc::new(row)));
                    }
                }
                _ => {}
            }
        }
        if self.how == Mutant::GivesUp && self.down {
            // It gives up after ten minutes.
            self.in_vain += 1;
            self.ended = self.in_vain > 6_000;
        }
    }
}
