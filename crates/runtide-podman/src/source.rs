//! [`PodmanSource`]: the service's events as batches of signals.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Gap, Instance, InstanceId, Listing, Result,
    backend::saturating_add,
    event::ResumeToken,
    watch::{Flow, Inspector, Opened, Signal, SignalBody, Source},
};
use runtide_engine::{Feed, Framed, Unreadables, Values};
use tokio::time::{Instant, Sleep};

use crate::{
    client::{Client, EventLogger, Podman},
    infra,
    inspector::PodmanInspector,
    normalize::{Action, Event, Kind},
    polled::Poller,
    probe::Probed,
    progress::Progress,
    recent::Recent,
    signals::{subject, translate, unknown_member},
    subscription::{self, Connection, DISORDER, Subscription},
};

/// Most signals in one batch.
const BATCH: usize = 256;

/// The service's clock is in whole seconds; a stream that begins this much before it begins in the past.
const BEFORE: Duration = Duration::from_secs(1);

/// With a proxy that replaces the service's clock, ours may be this far ahead of it.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// Time from the message about a health check to the inspection of its verdict, which Podman 4 writes down after the message.
const VERDICT: Duration = Duration::from_secs(1);

/// The event source of one service.
pub(crate) struct PodmanSource {
    client: Client,
    known: infra::Shared,
    progress: Progress,
    inspector: Arc<PodmanInspector>,
    feed: Option<Feed<Podman>>,
    /// In place of a stream, for a service that reports no events.
    poller: Option<Poller>,
    /// The polling was known when the watch began: then a listing is the news, and not a contradiction to the stream.
    reports_edges: bool,
    /// Token of the last message, emitted or skipped: the watch resumes there.
    last: Option<ResumeToken>,
    /// Begin of the stream, as long as no message came.
    began: Option<Duration>,
    /// The messages that the stream has passed.
    recent: Recent,
    unreadables: Unreadables,
    /// A listing, to be emitted behind this message: the stream has reported what it shows then.
    listed: Option<(ResumeToken, Listing)>,
    /// Messages up to and with this one are no news.
    skip: Option<ResumeToken>,
    /// Messages from before this time are no news.
    from: Duration,
    /// A replay is under way, up to and with this message.
    replaying: Option<ResumeToken>,
    /// Signals to emit before any other.
    pending: VecDeque<SignalBody>,
    /// Containers whose health was checked; kept over the end of a stream, since the next one begins behind the message.
    checked: HashMap<InstanceId, Checked>,
    verdict: Pin<Box<Sleep>>,
    /// A stream to go on with, before any further message is read.
    placing: Option<Pin<Box<Placing>>>,
    /// Time of the last rotation of the log over which the stream was opened again.
    bridged: Duration,
    /// Error to emit after every buffered signal.
    broken: Option<Error>,
    /// Time of the last message; the silence is counted from it.
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
    probe: Option<Pin<Box<dyn Future<Output = Result<Probed>> + Send>>>,
    /// Asks if a container holds a pod together; the messages wait for the answer.
    asking: Option<Pin<Box<Asking>>>,
}

type Asking = dyn Future<Output = (InstanceId, Result<bool>)> + Send;

/// Opens another stream, which has what the first one may have skipped.
type Placing = dyn Future<Output = Result<Subscription>> + Send;

/// A container whose health was checked.
#[derive(Clone, Copy)]
struct Checked {
    /// Its next inspection.
    due: Instant,
    /// The inspection that the last check needs. Checks that follow one another closely must not postpone the next one.
    last: Instant,
}

/// The messages that were decoded.
#[derive(Default)]
struct Drained {
    read: usize,
    /// The next message is about a container of a pod that is not known, which may be its infra container; true if its name says so.
    unknown: Option<(InstanceId, bool)>,
    /// The next message says that the log was replaced: what was written just before may not be in the stream.
    rotated: bool,
}

impl PodmanSource {
    pub(crate) fn new(client: Client, known: infra::Shared) -> Self {
        let progress = Progress::default();
        let inspector = PodmanInspector::new(client.clone(), known.clone()).behind(progress.clone());
        let inspector = Arc::new(inspector);
        Self {
            reports_edges: client.known_logger() != Some(EventLogger::None),
            client,
            known,
            progress,
            inspector,
            feed: None,
            poller: None,
            last: None,
            began: None,
            recent: Recent::default(),
            unreadables: Unreadables::default(),
            listed: None,
            skip: None,
            from: Duration::ZERO,
            replaying: None,
            pending: VecDeque::new(),
            checked: HashMap::new(),
            verdict: Box::pin(tokio::time::sleep(Duration::ZERO)),
            placing: None,
            bridged: Duration::ZERO,
            broken: None,
            heard: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            probe: None,
            asking: None,
        }
    }

    fn adopt(&mut self, subscription: Subscription) {
        let Subscription { feed, skip, newest, .. } = subscription;
        self.feed = Some(feed);
        self.last = skip.clone().or(self.last.take());
        self.progress.reach(self.last.as_ref());
        self.replaying = newest.filter(|newest| skip.as_ref().is_some_and(|skip| skip != newest));
        self.skip = skip;
        (self.asking, self.placing, self.listed) = (None, None, None);
        self.hear();
    }

    /// Begins with a stream from this time on, of which the messages that are in the log already are no news.
    fn begin(&mut self, gap: Gap, since: Duration, subscription: Subscription) -> Opened {
        self.last = None;
        self.began = Some(since);
        self.from = subscription.from;
        self.adopt(subscription);
        self.replaying = None;
        self.pending.push_back(SignalBody::Alive); // with the position, which a stream that ends before its first message has as well
        Opened::Fresh(gap)
    }

    /// Goes on with this stream, opened after the last message of another one.
    fn replace(&mut self, subscription: Subscription) {
        if !subscription.continues {
            self.pending.push_back(SignalBody::Lost(Gap::HistoryExpired));
        }
        // A replay that was under way ends where it would have ended.
        let replaying = self.replaying.take().filter(|_| subscription.continues);
        self.unreadables.again();
        self.adopt(subscription);
        self.replaying = replaying;
    }

    /// Opens a second stream after the last message; `None`: the log could not be read in time.
    fn again(&self) -> impl Future<Output = Result<(Client, Option<Subscription>)>> + Send + use<> {
        let (client, last, began) = (self.client.clone(), self.last.clone(), self.began);
        async move {
            let position = last.as_ref().and_then(|last| Some((last, subscription::time_of(last)?)));
            let subscription = match (position, began) {
                (Some((token, at)), _) => subscription::open_after(&client, Connection::New, token, at).await?,
                (None, Some(since)) => Some(subscription::open_since(&client, since).await?),
                (None, None) => {
                    let site = client.site(subscription::OPERATION);
                    return Err(site.error(ErrorKind::Unexpected, "the stream has no position"));
                }
            };
            Ok((client, subscription))
        }
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.probe = None;
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Poll<Result<Flow>> {
        if let Some(poller) = &mut self.poller {
            let listing = ready!(poller.poll(cx))?;
            out.push(Signal::new(SignalBody::Full(listing)));
            return Poll::Ready(Ok(Flow::Open));
        }
        let before = out.len();
        let mut noise = false;
        loop {
            while let Some(body) = self.pending.pop_front() {
                out.push(Signal::new(body).with_token(self.last.clone()));
            }
            if !self.checked.is_empty() {
                let now = Instant::now();
                self.checked.retain(|id, Checked { due, last }| {
                    if *due > now {
                        return true;
                    }
                    out.push(Signal::new(SignalBody::Hint(id.clone())).with_token(self.last.clone()));
                    std::mem::replace(due, *last) < *last
                });
            }
            let is_held = self.asking.is_some() || self.placing.is_some();
            match self.poll_held(cx) {
                Poll::Ready(()) if is_held => continue,
                Poll::Ready(()) => {}
                Poll::Pending if noise && out.len() == before => {
                    // As below: a service that is asked for one container after another is heard.
                    out.push(Signal::new(SignalBody::Alive).with_token(self.last.clone()));
                    return Poll::Ready(Ok(Flow::Open));
                }
                Poll::Pending if out.len() > before => return Poll::Ready(Ok(Flow::Open)),
                Poll::Pending => return Poll::Pending,
            }
            let Drained { read, unknown, rotated } = self.drain(out);
            noise |= read > 0;
            if rotated {
                tracing::debug!(backend = %self.client.id(), "the log was replaced: reading it again from the last message");
                let again = self.again();
                self.placing = Some(Box::pin(async move {
                    let (client, subscription) = again.await?;
                    let site = client.site(subscription::OPERATION);
                    let late = || site.error(ErrorKind::Timeout, "the log could not be read to its end in time");
                    subscription.ok_or_else(late)
                }));
                continue;
            }
            if let Some((id, by_name)) = unknown {
                let inspector = Arc::clone(&self.inspector);
                self.asking = Some(Box::pin(async move {
                    let answer = inspector.is_infra(id.clone(), by_name).await;
                    (id, answer)
                }));
                continue;
            }
            if read == BATCH && out.len() - before < BATCH {
                continue;
            }
            let Some(feed) = &mut self.feed else {
                return Poll::Ready(match self.broken.take() {
                    Some(error) if out.len() == before => Err(error),
                    later => {
                        self.broken = later;
                        Ok(if self.broken.is_some() { Flow::Open } else { Flow::Closed })
                    }
                });
            };
            let more = if out.len() - before < BATCH { feed.poll_more(cx) } else { Poll::Pending };
            match more {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(ended) => {
                    self.feed = None;
                    self.broken = ended.err();
                }
                Poll::Pending => {
                    if noise && out.len() == before {
                        // The messages gave no signal, but their token moves the position.
                        out.push(Signal::new(SignalBody::Alive).with_token(self.last.clone()));
                    }
                    if out.len() > before {
                        self.hear();
                        return Poll::Ready(Ok(Flow::Open));
                    }
                    if let Some(due) = self.checked.values().map(|check| check.due).min() {
                        if self.verdict.deadline() != due {
                            self.verdict.as_mut().reset(due);
                        }
                        if self.verdict.as_mut().poll(cx).is_ready() {
                            continue;
                        }
                    }
                    ready!(self.poll_silence(cx))?;
                }
            }
        }
    }

    /// Finds out what the messages wait for: what a container is, and what another stream has.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(asking) = &mut self.asking {
            let (id, answer) = ready!(asking.as_mut().poll(cx));
            self.asking = None;
            match answer {
                Ok(is_infra) => self.known.lock().learn(id.as_str(), is_infra),
                // The messages stay unread, and are read again by the next stream.
                Err(error) => (self.feed, self.broken) = (None, Some(error)),
            }
        }
        if let Some(placing) = &mut self.placing {
            let placed = ready!(placing.as_mut().poll(cx));
            self.placing = None;
            match placed {
                Ok(subscription) => self.replace(subscription),
                // As above.
                Err(error) => (self.feed, self.broken) = (None, Some(error)),
            }
        }
        Poll::Ready(())
    }

    /// Decodes at most a batch of the buffered messages.
    fn drain(&mut self, out: &mut Vec<Signal>) -> Drained {
        let Some(feed) = &mut self.feed else { return Drained::default() };
        let (mut drained, mut used) = (Drained::default(), 0);
        let mut known = self.known.lock();
        let mut values = Values::<Event<'_>>::of(feed.unread());
        while drained.read < BATCH
            && let Some(framed) = values.next()
        {
            match framed {
                Framed::Value(event) => {
                    let token = event.token();
                    if event.kind() == Kind::System && event.action() == Action::Rotated {
                        let at = Duration::from_nanos(event.nanoseconds().unwrap_or_default());
                        let begin = self.skip.as_ref().and_then(subscription::time_of).unwrap_or_default();
                        if at > self.bridged.max(begin).max(self.from) {
                            self.bridged = at;
                            drained.rotated = true;
                            break;
                        }
                    }
                    let is_repeated = token.as_ref().is_some_and(|token| self.recent.contains(token));
                    if is_repeated && self.skip.is_none() {
                        // It is no news.
                    } else if let Some(skip) = &self.skip {
                        self.recent.insert(token.as_ref());
                        if token.as_ref() == Some(skip) {
                            self.skip = None;
                        } else if is_beyond(&event, skip) {
                            // The log was cut in between: what was skipped may have been news.
                            self.skip = None;
                            self.replaying = None;
                            out.push(Signal::new(SignalBody::Lost(Gap::HistoryExpired)));
                            continue;
                        }
                    } else if event.nanoseconds().is_some_and(|at| Duration::from_nanos(at) < self.from) {
                        self.recent.insert(token.as_ref());
                        if token.is_some() {
                            self.last.clone_from(&token);
                            self.unreadables.pass();
                        }
                        self.progress.reach(self.last.as_ref());
                    } else if let Some(unknown) = unknown_member(&known, &event) {
                        drained.unknown = Some(unknown);
                        break;
                    } else {
                        if event.action() == Action::Checked && event.kind() == Kind::Container {
                            if let Some(id) = event.container().filter(|id| known.is_infra(id) != Some(true)) {
                                let last = saturating_add(Instant::now(), VERDICT);
                                self.checked.entry(InstanceId::from(id)).or_insert(Checked { due: last, last }).last =
                                    last;
                            }
                        } else {
                            translate(self.client.id(), &mut known, &event, token.as_ref(), out);
                        }
                        if token.is_some() {
                            self.last.clone_from(&token);
                            self.unreadables.pass();
                        }
                        self.progress.reach(self.last.as_ref());
                        self.recent.insert(token.as_ref());
                    }
                    if let Some((_, listing)) = self.listed.take_if(|(newest, _)| token.as_ref() == Some(newest)) {
                        out.push(Signal::new(SignalBody::Full(listing)).with_token(self.last.clone()));
                    }
                    if token.is_some() && token == self.replaying {
                        self.replaying = None;
                        out.push(Signal::new(SignalBody::CaughtUp).with_token(self.last.clone()));
                    }
                }
                // Those before the position are no news either.
                Framed::Unreadable(bytes) if self.skip.is_some() || !self.unreadables.is_news(bytes) => {}
                Framed::Unreadable(bytes) => {
                    let body = subject(bytes).map_or(SignalBody::Lost(Gap::Undecodable), SignalBody::Hint);
                    tracing::warn!(backend = %self.client.id(), signal = ?body, "a message cannot be read");
                    out.push(Signal::new(body));
                }
            }
            drained.read += 1;
            used = values.read();
        }
        drop(known);
        feed.consume(used);
        drained
    }

    fn arm(&mut self, due: Instant) -> &mut Pin<Box<Sleep>> {
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        &mut self.alarm
    }

    /// After half of the longest silence, opens a second stream, which reports what the first one missed, and lists everything: a
    /// journal that keeps no messages of Podman's looks like a service at which nothing happens (trap P4).
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(probe) = &mut self.probe {
                return match ready!(probe.as_mut().poll(cx)) {
                    Err(error) => {
                        self.feed = None;
                        self.probe = None;
                        Poll::Ready(Err(error))
                    }
                    Ok(Probed { subscription, listing, newest }) => {
                        let continues = subscription.as_ref().is_none_or(|subscription| subscription.continues);
                        match subscription {
                            Some(subscription) => self.replace(subscription),
                            None => self.hear(),
                        }
                        let is_ahead =
                            |newest: &ResumeToken| self.last.as_ref() != Some(newest) && !self.recent.contains(newest);
                        match newest.filter(is_ahead) {
                            _ if !continues => {}
                            Some(newest) => self.listed = Some((newest, listing)),
                            None => self.pending.push_back(SignalBody::Full(listing)),
                        }
                        Poll::Ready(Ok(()))
                    }
                };
            }
            let due = saturating_add(self.heard, self.client.config().max_silence / 2);
            ready!(self.arm(due).as_mut().poll(cx));
            tracing::debug!(backend = %self.client.id(), "the event stream is silent: proving it");
            let (again, inspector) = (self.again(), Arc::clone(&self.inspector));
            self.probe = Some(Box::pin(async move {
                let (client, subscription) = again.await?;
                Probed::of(&client, subscription, &inspector).await
            }));
        }
    }
}

/// A time before now, by the service's clock.
fn past(date: Option<SystemTime>) -> Duration {
    let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    date.map_or_else(|| since(SystemTime::now()).saturating_sub(SKEW), |date| since(date).saturating_sub(BEFORE))
}

/// The message is so much later than the one that is looked for that this one cannot come any more.
fn is_beyond(event: &Event<'_>, skip: &ResumeToken) -> bool {
    let looked_for = subscription::time_of(skip).map(|at| at + DISORDER);
    looked_for.zip(event.nanoseconds()).is_some_and(|(latest, at)| Duration::from_nanos(at) > latest)
}

#[async_trait]
impl Source for PodmanSource {
    fn learn(&mut self, known: &[Arc<Instance>]) {
        let mut shared = self.known.lock();
        for row in known {
            shared.learn(row.id.as_str(), false);
        }
    }

    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        (self.feed, self.poller, self.asking, self.placing) = (None, None, None, None);
        self.recent.clear();
        self.unreadables.pass();
        self.pending.clear();
        self.broken = None;
        self.from = Duration::ZERO;
        self.hear();
        let server = self.client.negotiate().await?;
        if self.client.logger().await? == EventLogger::None {
            tracing::warn!(backend = %self.client.id(), "the service keeps no events (events_logger=none): polling it");
            let config = self.client.config();
            let interval = config.poll_interval.min(config.max_silence / 2);
            self.poller = Some(Poller::new(Arc::clone(&self.inspector), interval));
            self.last = None;
            return Ok(Opened::Fresh(if resume.is_some() { Gap::HistoryExpired } else { Gap::Initial }));
        }
        let gap = match resume.map(|token| (token, subscription::time_of(token))) {
            None => Gap::Initial,
            Some((_, None)) => Gap::ForeignCursor,
            Some((token, Some(at))) => {
                match subscription::open_after(&self.client, Connection::Pooled, token, at).await? {
                    Some(subscription) if subscription.continues => {
                        self.adopt(subscription);
                        if self.replaying.is_none() {
                            self.pending.push_back(SignalBody::CaughtUp);
                        }
                        return Ok(Opened::Resumed);
                    }
                    Some(subscription) => {
                        let gap =
                            if subscription.newest.is_some() { Gap::HistoryExpired } else { Gap::RuntimeRestarted };
                        // It shows what is new as a stream that begins now would: another one would be as many connections again.
                        return Ok(self.begin(gap, subscription::since(at), subscription));
                    }
                    None => Gap::HistoryExpired,
                }
            }
        };
        let since = past(server.date);
        let now = server.date.map(|_| since.saturating_add(BEFORE));
        let subscription = subscription::open_fresh(&self.client, since, now).await?;
        Ok(self.begin(gap, since, subscription))
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        poll_fn(|cx| self.poll_batch(cx, out)).await
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        self.inspector.clone()
    }

    fn max_silence(&self) -> Option<Duration> {
        Some(self.client.config().max_silence)
    }

    fn reports_edges(&self) -> bool {
        self.reports_edges
    }
}
