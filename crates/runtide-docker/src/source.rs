//! [`DockerSource`]: the daemon's events as batches of signals.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    Detail, Error, Gap, Instance, Listing, Result, RuntimeKind,
    backend::saturating_add,
    event::ResumeToken,
    watch::{Flow, Inspector, Opened, Signal, SignalBody, Source},
};
use runtide_engine::Unreadables;
use tokio::time::{Instant, Sleep};

use crate::{
    client::{Client, Server},
    frame::{Framed, Frames, subject},
    inspector::DockerInspector,
    reported_state,
    subscription::{self, EventSubscription, Proof},
};

/// Most signals in one batch.
const BATCH: usize = 256;

/// Events older than this before the subscription are skipped, since a later listing includes them. Longer than Docker takes
/// to update its list (see [`reported_state`]).
const SETTLED: Duration = Duration::from_secs(2);

/// The daemon sends its history at once. After this time no message counts as history, whatever the daemon's clock does.
const HISTORY_COMES_WITHIN: Duration = Duration::from_secs(5);

/// A replay has ended when no event follows for `QUIET`, or at an event that is certainly live: the daemon writes its history
/// in one go. A second response that ends at `until` would be exact, but not every daemon ends it (trap D13).
const QUIET: Duration = Duration::from_millis(30);
const LONGEST_REPLAY: Duration = Duration::from_secs(2);

/// The event source of one daemon.
pub(crate) struct DockerSource {
    client: Client,
    reported_state: reported_state::Shared,
    inspector: Arc<DockerInspector>,
    subscription: Option<EventSubscription>,
    /// Token of the last message, emitted or skipped: the watch resumes there.
    last: Option<ResumeToken>,
    /// Until this moment, messages older than this many nanoseconds since the epoch are history: only their token counts.
    settled_before: Option<(Instant, u64)>,
    /// A replay is under way, at most until this moment, and up to this many nanoseconds since the epoch.
    replaying: Option<(Instant, u64)>,
    /// Signal to emit before any other.
    pending: Option<SignalBody>,
    /// Error to emit after every buffered signal.
    broken: Option<Error>,
    /// Time of the last message; the silence is counted from it.
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
    probe: Option<Pin<Box<dyn Future<Output = Result<Probed>> + Send>>>,
    unreadables: Unreadables,
    /// A listing, to be emitted behind the messages that have come: the stream has reported what it shows then.
    listed: Option<Listing>,
    /// The consumer's rows, until the first subscription: the history need not reach back to the start of a container, whose
    /// message has the labels (trap D16).
    known: Vec<Arc<Instance>>,
}

/// Result of opening a second stream after the first one fell silent.
enum Probed {
    Continued(EventSubscription, Proof),
    /// There was no token to continue from: a listing, made after the second stream was opened.
    Listed(EventSubscription, Listing, Arc<Server>),
}

impl DockerSource {
    pub(crate) fn new(client: Client, reported_state: reported_state::Shared) -> Self {
        let inspector = Arc::new(DockerInspector::new(client.clone(), reported_state.clone()));
        Self {
            client,
            reported_state,
            inspector,
            subscription: None,
            last: None,
            settled_before: None,
            replaying: None,
            pending: None,
            broken: None,
            heard: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            probe: None,
            unreadables: Unreadables::default(),
            listed: None,
            known: Vec::new(),
        }
    }

    fn adopt(&mut self, subscription: EventSubscription) {
        self.subscription = Some(subscription);
        self.replaying = None;
        self.settled_before = None;
        self.hear();
    }

    fn adopt_fresh(&mut self, subscription: EventSubscription, server: &Server) {
        self.adopt(subscription);
        self.last = None;
        let settled = server.date.and_then(|date| subscription::nanoseconds(date.checked_sub(SETTLED)?));
        self.settled_before = settled.map(|nanoseconds| (Instant::now() + HISTORY_COMES_WITHIN, nanoseconds));
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.probe = None;
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Poll<Result<Flow>> {
        let before = out.len();
        let mut noise = false;
        loop {
            if let Some(body) = self.pending.take() {
                out.push(Signal::new(body).with_token(self.last.clone()));
            }
            let read = self.drain(out);
            noise |= read > 0;
            if read == BATCH && out.len() - before < BATCH {
                continue;
            }
            if read < BATCH
                && let Some(listing) = self.listed.take()
            {
                out.push(Signal::new(SignalBody::Full(listing)).with_token(self.last.clone()));
                return Poll::Ready(Ok(Flow::Open));
            }
            if read > 0 && out.len() > before {
                // The signals that are at hand are delivered before the connection is looked at again.
                self.hear();
                return Poll::Ready(Ok(Flow::Open));
            }
            let Some(subscription) = &mut self.subscription else {
                return Poll::Ready(match self.broken.take() {
                    Some(error) if out.len() == before => Err(error),
                    later => {
                        self.broken = later;
                        Ok(if self.broken.is_some() { Flow::Open } else { Flow::Closed })
                    }
                });
            };
            let more = if out.len() - before < BATCH { subscription.poll_more(cx) } else { Poll::Pending };
            match more {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(ended) => {
                    self.subscription = None;
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
                    if self.replaying.is_some() {
                        let quiet = self.heard + QUIET;
                        ready!(self.poll_until(cx, quiet));
                        self.caught_up(out);
                        return Poll::Ready(Ok(Flow::Open));
                    }
                    ready!(self.poll_silence(cx))?;
                }
            }
        }
    }

    /// Decodes at most a batch of the buffered messages; returns their number.
    fn drain(&mut self, out: &mut Vec<Signal>) -> usize {
        let Some(subscription) = &mut self.subscription else { return 0 };
        let (mut read, mut reached, mut last) = (0, 0, None);
        let unread = subscription.unread();
        if !unread.is_empty() {
            let now = Instant::now();
            let settled = self.settled_before.filter(|(until, _)| now < *until).map(|(_, before)| before);
            let mut reported_state = self.reported_state.lock();
            let mut frames = Frames::of(unread);
            let mut text = String::new();
            while read < BATCH
                && let Some(framed) = frames.next()
            {
                match framed {
                    Framed::Event(event) => {
                        let token = event.token(&mut text);
                        reached = event.nanoseconds().unwrap_or(reached);
                        if event.nanoseconds().zip(settled).is_some_and(|(at, settled)| at < settled) {
                            reported_state.learn(&event);
                        } else {
                            reported_state.translate(&event, token.as_ref(), now, out);
                        }
                        if token.is_some() {
                            last = token;
                            self.unreadables.pass();
                        }
                    }
                    Framed::Unreadable(bytes) if !self.unreadables.is_news(bytes) => {}
                    Framed::Unreadable(bytes) => {
                        let body = subject(bytes).map_or(SignalBody::Lost(Gap::Undecodable), SignalBody::Hint);
                        tracing::warn!(backend = %self.client.id(), signal = ?body, "a message cannot be read");
                        out.push(Signal::new(body));
                    }
                }
                read += 1;
            }
            drop(reported_state);
            let used = frames.read();
            subscription.consume(used);
        }
        if last.is_some() {
            self.last = last;
        }
        let live = |(until, reaching)| reached >= reaching || Instant::now() >= until;
        if self.replaying.is_some_and(live) {
            self.caught_up(out);
        }
        read
    }

    fn caught_up(&mut self, out: &mut Vec<Signal>) {
        self.replaying = None;
        out.push(Signal::new(SignalBody::CaughtUp).with_token(self.last.clone()));
    }

    /// Waits until `due`, which moves with each message: an alarm that is set too early stays, and is set again when it goes off.
    fn poll_until(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        loop {
            if self.alarm.is_elapsed() || self.alarm.deadline() > due {
                self.alarm.as_mut().reset(due);
            }
            ready!(self.alarm.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
        }
    }

    /// After half of the longest silence, opens a second stream, which either proves that no event was missed or reports the
    /// missed ones. A ping on another connection would prove nothing about this one.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(probe) = &mut self.probe {
                return match probe.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(error)) => {
                        self.subscription = None;
                        self.probe = None;
                        Poll::Ready(Err(error))
                    }
                    Poll::Ready(Ok(probed)) => {
                        self.swap(probed);
                        Poll::Ready(Ok(()))
                    }
                };
            }
            let due = saturating_add(self.heard, self.client.config().max_silence / 2);
            ready!(self.poll_until(cx, due));
            tracing::debug!(backend = %self.client.id(), "the event stream is silent: proving it");
            let (client, inspector, last) = (self.client.clone(), Arc::clone(&self.inspector), self.last.clone());
            let reported_state = self.reported_state.clone();
            self.probe = Some(Box::pin(async move { probe(&client, &reported_state, &inspector, last).await }));
        }
    }

    fn swap(&mut self, probed: Probed) {
        self.unreadables.again();
        self.pending = Some(match probed {
            Probed::Continued(subscription, Proof::Continues) => {
                self.adopt(subscription);
                SignalBody::Alive
            }
            Probed::Continued(subscription, Proof::Expired | Proof::Empty) => {
                self.adopt(subscription);
                self.last = None;
                self.reported_state.lock().forget();
                self.reported_state.lock().go_live();
                SignalBody::Lost(Gap::HistoryExpired)
            }
            Probed::Listed(subscription, listing, server) => {
                if server.kind == RuntimeKind::Docker {
                    // It sends its whole history, and no message was seen before: each one in it is new.
                    self.adopt(subscription);
                } else {
                    self.adopt_fresh(subscription, &server);
                }
                self.listed = Some(listing);
                SignalBody::Alive
            }
        });
    }
}

impl Drop for DockerSource {
    /// The reports become stale without a subscriber.
    fn drop(&mut self) {
        self.reported_state.lock().forget();
    }
}

async fn probe(
    client: &Client,
    reported_state: &reported_state::Shared,
    inspector: &DockerInspector,
    last: Option<ResumeToken>,
) -> Result<Probed> {
    if let Some(token) = last
        && let Some(since) = subscription::since(&token)
    {
        let server = client.server().await?;
        let since = history(&server, Some(since)).unwrap_or_default();
        let (mut subscription, proof) = EventSubscription::open_after(client, reported_state, &token, &since).await?;
        if matches!(proof, Proof::Expired) {
            subscription.await_history(None).await?;
        }
        return Ok(Probed::Continued(subscription, proof));
    }
    let (mut subscription, server) = open_fresh(client).await?;
    let listing = inspector.list(Detail::Summary).await?;
    // Also what the listing shows by now.
    subscription.await_history(None).await?;
    Ok(Probed::Listed(subscription, listing, server))
}

/// The `since` of a subscription. Docker's history is short and is requested whole; Podman's is a journal that may go back for
/// months, so only the necessary part is requested.
fn history(server: &Server, needed: Option<String>) -> Option<String> {
    if server.kind == RuntimeKind::Docker { Some("1".to_owned()) } else { needed }
}

/// The time, in nanoseconds, after which an event is after the subscription that follows this negotiation: the date is cut to the
/// second.
fn live_after(server: &Server) -> Option<u64> {
    server.date?.checked_add(Duration::from_secs(1)).and_then(subscription::nanoseconds)
}

/// Negotiates, then subscribes from a time before that: the response's head is sent before the subscription, so the events
/// between the two must be replayed. Of older events only the last token counts.
async fn open_fresh(client: &Client) -> Result<(EventSubscription, Arc<Server>)> {
    let server = client.negotiate().await?;
    let before = server.date.and_then(|date| subscription::nanoseconds(date.checked_sub(SETTLED)?));
    let since = history(&server, before.map(|nanoseconds| subscription::stamp(Duration::from_nanos(nanoseconds))));
    Ok((EventSubscription::open(client, since.as_deref()).await?, server))
}

#[async_trait]
impl Source for DockerSource {
    fn learn(&mut self, known: &[Arc<Instance>]) {
        self.known = known.to_vec();
    }

    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        self.subscription = None;
        (self.pending, self.broken, self.listed) = (None, None, None);
        self.unreadables.pass();
        self.hear();
        let gap = match resume {
            None => Gap::Initial,
            Some(token) => match subscription::since(token) {
                None => Gap::ForeignCursor,
                Some(since) => {
                    let server = self.client.negotiate().await?;
                    let since = history(&server, Some(since)).unwrap_or_default();
                    let (subscription, proof) =
                        EventSubscription::open_after(&self.client, &self.reported_state, token, &since).await?;
                    match proof {
                        Proof::Continues => {
                            self.adopt(subscription);
                            self.last = Some(token.clone());
                            self.replaying =
                                Some((Instant::now() + LONGEST_REPLAY, live_after(&server).unwrap_or(u64::MAX)));
                            let mut reported_state = self.reported_state.lock();
                            for row in std::mem::take(&mut self.known) {
                                reported_state.learn_labels(&row);
                            }
                            reported_state.go_live();
                            drop(reported_state);
                            return Ok(Opened::Resumed);
                        }
                        Proof::Expired => Gap::HistoryExpired,
                        Proof::Empty => Gap::RuntimeRestarted,
                    }
                }
            },
        };
        let (mut subscription, server) = open_fresh(&self.client).await?;
        if gap == Gap::HistoryExpired {
            subscription.await_history(live_after(&server)).await?;
        }
        self.reported_state.lock().forget();
        self.reported_state.lock().go_live();
        self.adopt_fresh(subscription, &server);
        self.known.clear();
        Ok(Opened::Fresh(gap))
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
        true
    }
}
