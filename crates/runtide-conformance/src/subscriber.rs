//! One subscriber of a law: every event checked, folded and kept.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use runtide_core::{
    Completeness, Error, EventStream, Gap, Instance, InstanceId, InstanceTable, RuntimeBackend, RuntimeEvent,
    RuntimeEventKind as Kind, Transition, WatchOptions,
};
use tokio::time::Instant;

use crate::{Harness, Law, StreamChecker, Violation, compare, outcome::line};

/// One watch, every event of which is checked by a [`StreamChecker`], folded into an [`InstanceTable`], and kept.
#[derive(Debug)]
pub struct Subscriber {
    backend: Arc<dyn RuntimeBackend>,
    stream: EventStream,
    /// The checker of every event.
    pub checker: StreamChecker,
    /// The fold of the stream.
    pub table: InstanceTable,
    /// Every event, in order.
    pub events: Vec<Arc<RuntimeEvent>>,
    /// Every transition of the table.
    pub transitions: Vec<Transition>,
    /// The error that ended the stream.
    pub ended: Option<Error>,
    finished: bool,
}

impl Subscriber {
    /// Opens a watch.
    ///
    /// # Errors
    /// If the watch is refused, which it never is for the runtime's sake.
    pub async fn open(backend: &Arc<dyn RuntimeBackend>, options: WatchOptions) -> Result<Self, Violation> {
        let checker = match (&options.from, options.filter.is_empty()) {
            (Some(from), true) => StreamChecker::default().resumed(from),
            (Some(from), false) => StreamChecker::default().filtered().resumed(from),
            (None, true) => StreamChecker::default(),
            (None, false) => StreamChecker::default().filtered(),
        };
        Self::open_with(backend, options, checker).await
    }

    /// Opens a watch with a checker that has seen an earlier stream.
    ///
    /// # Errors
    /// If the watch is refused.
    pub async fn open_with(
        backend: &Arc<dyn RuntimeBackend>,
        options: WatchOptions,
        checker: StreamChecker,
    ) -> Result<Self, Violation> {
        let table = options.known.clone().unwrap_or_default();
        let stream = backend.watch(options).await.map_err(|error| {
            Violation::of(Law::R17, "`watch` to succeed in any state of the runtime", error.to_string())
        })?;
        let backend = Arc::clone(backend);
        Ok(Self {
            backend,
            stream,
            checker,
            table,
            events: Vec::new(),
            transitions: Vec::new(),
            ended: None,
            finished: false,
        })
    }

    /// Watches everything, up to the end of the first resync.
    ///
    /// # Errors
    /// A violation on the way, or that it does not come.
    pub async fn live(h: &dyn Harness, backend: &Arc<dyn RuntimeBackend>) -> Result<Self, Violation> {
        let mut subscriber = Self::open(backend, WatchOptions::default()).await?;
        subscriber.until_live(h).await?;
        Ok(subscriber)
    }

    /// Reads up to the point from which each edge is delivered.
    ///
    /// # Errors
    /// A violation on the way, or that it does not come.
    pub async fn until_live(&mut self, h: &dyn Harness) -> Result<(), Violation> {
        self.until(h, Law::R1, "the watch to be live", |one| one.checker.is_live()).await
    }

    /// Reads until `done`, at most for the harness's timeout.
    ///
    /// # Errors
    /// A violation on the way; that it does not come, as a violation of `law`.
    pub async fn until(
        &mut self,
        h: &dyn Harness,
        law: Law,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        self.until_within(h.timing().timeout, law, what, done).await
    }

    /// Reads until `done`, at most for `limit`.
    ///
    /// # Errors
    /// A violation on the way; that it does not come, as a violation of `law`.
    pub async fn until_within(
        &mut self,
        limit: Duration,
        law: Law,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            match tokio::time::timeout_at(deadline, self.step()).await {
                Ok(more) => {
                    if !more? && !done(self) {
                        let end = self.ended.as_ref().map_or_else(|| "no error".to_owned(), ToString::to_string);
                        return Err(self.violation(law, what, &format!("the end of the stream, with {end}")));
                    }
                }
                Err(_) => {
                    return Err(self.violation(law, &format!("{what}, within {limit:?}"), "nothing of that kind"));
                }
            }
        }
        Ok(())
    }

    /// Reads every event for this time.
    ///
    /// # Errors
    /// A violation on the way.
    pub async fn read_for(&mut self, time: Duration) -> Result<(), Violation> {
        let deadline = Instant::now() + time;
        while let Ok(more) = tokio::time::timeout_at(deadline, self.step()).await {
            if !more? {
                tokio::time::sleep_until(deadline).await;
                break;
            }
        }
        Ok(())
    }

    /// Reads while `work` is under way.
    ///
    /// # Errors
    /// A violation on the way.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Violation> {
        let mut work = std::pin::pin!(work);
        loop {
            if self.finished {
                return Ok(work.await);
            }
            tokio::select! {
                biased;
                more = self.step() => { more?; }
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Reads until the stream is silent, and its fold equals the runtime's state.
    ///
    /// # Errors
    /// A violation on the way; the remaining differences after the harness's timeout, as a violation of `law`.
    pub async fn converge(&mut self, h: &dyn Harness, law: Law) -> Result<(), Violation> {
        let timing = h.timing();
        let deadline = Instant::now() + timing.timeout;
        loop {
            self.read_for(timing.quiet).await?;
            let truth = h.truth().await?;
            let differs =
                compare::differences("the fold of the stream", self.rows(), "the runtime's state", truth.iter());
            if differs.is_empty() && self.checker.is_live() {
                return Ok(());
            }
            if Instant::now() >= deadline || self.finished {
                let found = if differs.is_empty() { "a watch that is not live".to_owned() } else { differs.join("; ") };
                return Err(self.violation(law, "the fold of the stream to equal the runtime's state", &found));
            }
        }
    }

    /// Reads the next event; `false` at the end of the stream.
    async fn step(&mut self) -> Result<bool, Violation> {
        if self.finished {
            return Ok(false);
        }
        match self.stream.next().await {
            None => {
                self.finished = true;
                Ok(false)
            }
            Some(Err(error)) => {
                self.finished = true;
                self.ended = Some(error);
                Ok(false)
            }
            Some(Ok(event)) => {
                self.checker.observe(&event)?;
                self.transitions.extend(self.table.apply(&event));
                self.events.push(event);
                Ok(true)
            }
        }
    }

    /// The instances, as the stream reported them.
    pub fn rows(&self) -> impl Iterator<Item = &Instance> {
        self.table.of(self.backend.id()).map(|row| &**row)
    }

    /// One instance, as the stream reported it.
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.table.get(self.backend.id(), id)
    }

    /// Completeness of the rows, as the last resync said it.
    pub fn completeness(&self) -> &Completeness {
        self.table.completeness(self.backend.id())
    }

    /// The events of one instance, from the `from`th event on.
    pub fn events_of<'a>(&'a self, id: &'a InstanceId, from: usize) -> impl Iterator<Item = &'a Arc<RuntimeEvent>> {
        self.events.iter().skip(from).filter(move |event| event.instance().is_some_and(|instance| instance.id == *id))
    }

    /// The names of one instance's lifecycle events outside resyncs, from the `from`th event on: `started`, `stopped`, `removed`.
    pub fn edges_of<'a>(&'a self, id: &'a InstanceId, from: usize) -> impl Iterator<Item = &'static str> + 'a {
        self.events_of(id, from).filter_map(|event| match event.kind {
            Kind::Started(_) | Kind::Stopped(_) | Kind::Removed(_) => Some(event.kind.name()),
            _ => None,
        })
    }

    /// The gaps of the resyncs, from the `from`th event on.
    pub fn gaps(&self, from: usize) -> impl Iterator<Item = Gap> {
        self.events.iter().skip(from).filter_map(|event| match event.kind {
            Kind::ResyncBegin { gap } => Some(gap),
            _ => None,
        })
    }

    /// Number of events of each kind, from the `from`th on.
    pub fn counts(&self, from: usize) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for event in self.events.iter().skip(from) {
            *counts.entry(event.kind.name()).or_default() += 1;
        }
        counts
    }

    /// `true` if the stream has ended.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// A violation with the last events as its trail.
    pub fn violation(&self, law: Law, expected: &str, found: &str) -> Violation {
        Violation::of(law, expected, found).after(self.checker.trail())
    }

    /// The events of an instance from the `from`th on, each on a line.
    pub(crate) fn lines_of<'a>(&'a self, id: &'a InstanceId, from: usize) -> impl Iterator<Item = String> + 'a {
        self.events_of(id, from).map(|event| line(event))
    }

    /// Every event on a line, for a trace.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.events.iter().map(|event| line(event))
    }
}
