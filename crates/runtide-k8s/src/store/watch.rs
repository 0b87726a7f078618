//! Watches: one of the server's for each kind and namespace, in one stream. It reads as it is read: nothing is held for a slow watcher but
//! what its connections hold, and the server's own history.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, future::join_all};
use runtide_core::{
    Error, ErrorKind, Gap, Result, Retry, SlowConsumer,
    store::{Resource, Revision, Selector, Since, StoreEvent, StoreStream, StoreWatchOptions},
};
use tokio::time::{Instant, Sleep};

use super::{
    Shared,
    object::Object,
    read::{At, Query, Report, Reported, Scope},
};
use crate::{
    lines::{Line, Lines},
    status::of_transport,
    subscription::BoxFuture,
};

const WATCH: &str = "k8s.store.watch";

/// Length of the first watch after a revision: its report, or its end without one, proves that the history reaches back to it.
const PROBE: Duration = Duration::from_secs(1);
/// First and longest pause before a watch is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Interval at which the kinds are compared with those that are watched.
const SURVEY: Duration = Duration::from_secs(30);

/// One more watch of the store, until it is dropped.
struct Subscriber(Arc<AtomicU64>);

impl Subscriber {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The watch of one scope.
struct Tracked {
    scope: Scope,
    /// The version after the last report.
    version: u64,
    failures: u32,
    link: Link,
}

enum Link {
    Open(Box<Open>),
    Opening(BoxFuture<Result<Lines>>),
    Pausing(Pin<Box<Sleep>>),
}

struct Open {
    lines: Lines,
    opened: Instant,
    /// Time after which the server was asked to end it.
    asked: Duration,
    silence: Pin<Box<Sleep>>,
}

/// The whole state, and what it is of.
struct Filled {
    scopes: Vec<Scope>,
    version: u64,
    items: Vec<Arc<Resource>>,
}

struct Watching {
    shared: Arc<Shared>,
    selector: Selector,
    narrowed: Selector,
    query: Query,
    options: StoreWatchOptions,
    tracked: Vec<Tracked>,
    queue: VecDeque<StoreEvent>,
    /// The last position that was told.
    position: u64,
    filling: Option<(Gap, BoxFuture<Result<Filled>>)>,
    /// Pause before the state is asked for again.
    resting: Option<(Gap, Pin<Box<Sleep>>)>,
    failures: u32,
    surveying: BoxFuture<Result<Vec<Scope>>>,
    closed: BoxFuture<Error>,
    is_over: bool,
    _subscriber: Subscriber,
}

pub(super) async fn open(shared: &Arc<Shared>, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
    shared.client.check_open(WATCH)?;
    let subscriber = Subscriber::new(&shared.subscribers);
    let narrowed = shared.form.narrow(selector);
    let query = Query::of(&narrowed);
    let scopes = shared.scopes(WATCH, &narrowed).await?;
    let client = shared.client.clone();
    let mut watching = Watching {
        shared: Arc::clone(shared),
        selector: selector.clone(),
        narrowed,
        query,
        tracked: Vec::new(),
        queue: VecDeque::new(),
        position: 0,
        filling: None,
        resting: None,
        failures: 0,
        surveying: Box::pin(pending()),
        closed: Box::pin(async move {
            let closed = client.until_closed(WATCH, pending::<Result<()>>()).await;
            closed.err().unwrap_or_else(|| client.site(WATCH).closed())
        }),
        options,
        is_over: false,
        _subscriber: subscriber,
    };
    match watching.options.since {
        Since::Now => {
            let version = shared.present(WATCH, &scopes, &watching.query).await?;
            watching.track(scopes, version);
            watching.queue.push_back(StoreEvent::Bookmark { revision: Revision(version) });
        }
        Since::Start => watching.fill(Gap::Initial),
        Since::After(revision) => {
            let probed = prove(shared, &scopes, &watching.query, revision).await?;
            watching.resume(scopes, revision, probed)?;
        }
        other => {
            let message = format!("a watch cannot begin at {other:?} here");
            return Err(shared.client.site(WATCH).error(ErrorKind::Unsupported, message));
        }
    }
    Ok(StoreStream::new(watching))
}

fn with_revision(error: Error, revision: Revision) -> Error {
    if error.kind() == ErrorKind::Expired { error.with_context("revision", revision) } else { error }
}

/// Finds out if the server still has all changes after a revision. Returns, for each scope, a short watch with its first line; `None`: it ended
/// without one.
async fn prove(
    shared: &Shared,
    scopes: &[Scope],
    query: &Query,
    revision: Revision,
) -> Result<Vec<Option<(Lines, Bytes)>>> {
    let site = shared.client.site(WATCH);
    let expired = |message: &str| with_revision(site.error(ErrorKind::Expired, message), revision);
    // The server takes 0 for any version at all.
    if revision.0 == 0 {
        return Err(expired("the server's history does not reach back to the beginning"));
    }
    if revision.0 > shared.present(WATCH, scopes, query).await? {
        return Err(expired("the server has no such revision yet"));
    }
    let probing = scopes.iter().map(async |scope| {
        let mut lines = shared.open_watch(WATCH, scope, query, revision.0, PROBE).await?;
        let first = site.within(shared.client.config().deadline, async {
            poll_fn(|cx| lines.poll_line(cx)).await.map_err(|error| of_transport(site, error))
        });
        Ok(match first.await? {
            Line::Whole(line) => Some((lines, line)),
            Line::End | Line::TooLong => None,
        })
    });
    let probed: Result<Vec<_>> = join_all(probing).await.into_iter().collect();
    probed.map_err(|error| with_revision(error, revision))
}

impl Watching {
    /// Goes on after a revision, with the first lines of short watches.
    fn resume(&mut self, scopes: Vec<Scope>, revision: Revision, probed: Vec<Option<(Lines, Bytes)>>) -> Result<()> {
        self.track(scopes, revision.0);
        for (index, probed) in probed.into_iter().enumerate() {
            let Some((lines, first)) = probed else { continue };
            let open = self.opened(lines, PROBE);
            if let Some(tracked) = self.tracked.get_mut(index) {
                tracked.link = open;
            }
            self.line(index, &first).map_err(|error| with_revision(error, revision))?;
        }
        Ok(())
    }

    /// Watches these scopes from a version on.
    fn track(&mut self, scopes: Vec<Scope>, version: u64) {
        let tracked = scopes.into_iter().map(|scope| {
            let link = Link::Opening(self.open(&scope, version));
            Tracked { scope, version, failures: 0, link }
        });
        self.tracked = tracked.collect();
        self.position = version;
        self.survey();
    }

    fn open(&self, scope: &Scope, version: u64) -> BoxFuture<Result<Lines>> {
        let (shared, scope, query) = (Arc::clone(&self.shared), scope.clone(), self.query.clone());
        Box::pin(async move {
            let window = shared.client.config().window();
            shared.open_watch(WATCH, &scope, &query, version, window).await
        })
    }

    fn opened(&self, lines: Lines, asked: Duration) -> Link {
        let silence = Box::pin(tokio::time::sleep(self.shared.client.config().max_silence));
        Link::Open(Box::new(Open { lines, opened: Instant::now(), asked, silence }))
    }

    /// Compares the kinds that the server serves with those that are watched, after a while. A selection of one kind that is there has
    /// nothing to compare.
    fn survey(&mut self) {
        if self.narrowed.kind.is_some() && !self.tracked.is_empty() {
            self.surveying = Box::pin(pending());
            return;
        }
        let (shared, narrowed) = (Arc::clone(&self.shared), self.narrowed.clone());
        self.surveying = Box::pin(async move {
            tokio::time::sleep(SURVEY).await;
            shared.catalog.clear();
            shared.scopes(WATCH, &narrowed).await
        });
    }

    /// Begins again with the whole state.
    fn fill(&mut self, gap: Gap) {
        self.tracked.clear();
        self.surveying = Box::pin(pending());
        let (shared, selector) = (Arc::clone(&self.shared), self.selector.clone());
        let (narrowed, query) = (self.narrowed.clone(), self.query.clone());
        let work = async move {
            let scopes = shared.scopes(WATCH, &narrowed).await?;
            let (version, items) = shared.everything(WATCH, &selector, &scopes, &query, At::Latest).await?;
            Ok(Filled { scopes, version, items })
        };
        self.filling = Some((gap, Box::pin(work)));
    }

    fn filled(&mut self, gap: Gap, filled: Filled) {
        let Filled { scopes, version, mut items } = filled;
        let revision = Revision(version);
        items.sort_by(|one, other| one.reference.cmp(&other.reference));
        self.queue.push_back(StoreEvent::Reset { gap, revision });
        let format = self.options.format;
        self.queue.extend(items.into_iter().map(|one| StoreEvent::Added(one.shown(format))));
        self.queue.push_back(StoreEvent::Bookmark { revision });
        self.failures = 0;
        self.track(scopes, version);
    }

    /// The position is lost: a reset, or the end for a watcher that asked for it.
    fn lost(&mut self, gap: Gap, error: Error) -> Result<()> {
        if self.options.slow_consumer == SlowConsumer::Close {
            return Err(if error.kind() == ErrorKind::Expired {
                error
            } else {
                let message = "the watch lost its position";
                self.shared.client.site(WATCH).error(ErrorKind::Expired, message).with_source(error)
            });
        }
        self.fill(gap);
        Ok(())
    }

    /// Reads one line of a scope's watch.
    fn line(&mut self, index: usize, line: &[u8]) -> Result<()> {
        let Some(tracked) = self.tracked.get_mut(index) else { return Ok(()) };
        tracked.failures = 0;
        match self.shared.reported(WATCH, &tracked.scope.kind, line)? {
            Reported::Object(report) => {
                let (Report::Shown(object, _) | Report::Gone(object)) = &report;
                tracked.version = tracked.version.max(object.revision);
                if let Some(event) = self.event(report) {
                    self.queue.push_back(event);
                }
            }
            Reported::Position(version) | Reported::Unnamed(Some(version)) => {
                tracked.version = tracked.version.max(version);
                self.bookmark();
            }
            Reported::Unnamed(None) => {}
        }
        Ok(())
    }

    fn event(&self, report: Report) -> Option<StoreEvent> {
        let of = |object: &Object| {
            object.resource(&*self.shared.form).filter(|resource| self.selector.names(&resource.reference))
        };
        match report {
            Report::Shown(object, is_new) => {
                let resource = of(&object)?.shown(self.options.format);
                Some(if is_new { StoreEvent::Added(resource) } else { StoreEvent::Modified(resource) })
            }
            Report::Gone(object) => {
                let reference = of(&object)?.reference.clone();
                Some(StoreEvent::Deleted { reference, revision: Revision(object.revision) })
            }
        }
    }

    /// Tells the position that all scopes have reached.
    fn bookmark(&mut self) {
        let reached = self.tracked.iter().map(|tracked| tracked.version).min().unwrap_or(0);
        if reached > self.position {
            self.position = reached;
            self.queue.push_back(StoreEvent::Bookmark { revision: Revision(reached) });
        }
    }

    /// Opens a scope's next watch, after a pause if the last one failed.
    fn reopen(&mut self, index: usize, failure: Option<&Error>) {
        let Some(tracked) = self.tracked.get_mut(index) else { return };
        let Some(failure) = failure else {
            let (scope, version) = (tracked.scope.clone(), tracked.version);
            let opening = self.open(&scope, version);
            if let Some(tracked) = self.tracked.get_mut(index) {
                tracked.link = Link::Opening(opening);
            }
            return;
        };
        let pause = pause(&mut tracked.failures, failure);
        tracked.link = Link::Pausing(Box::pin(tokio::time::sleep(pause)));
    }

    /// Takes one scope one step further; `false`: it waits.
    fn step(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool> {
        let Some(tracked) = self.tracked.get_mut(index) else { return Ok(false) };
        let site = self.shared.client.site(WATCH);
        match &mut tracked.link {
            Link::Pausing(until) => {
                if until.as_mut().poll(cx).is_pending() {
                    return Ok(false);
                }
                self.reopen(index, None);
            }
            Link::Opening(opening) => {
                let Poll::Ready(opened) = opening.as_mut().poll(cx) else { return Ok(false) };
                match opened {
                    Ok(lines) => {
                        let open = self.opened(lines, self.shared.client.config().window());
                        if let Some(tracked) = self.tracked.get_mut(index) {
                            tracked.link = open;
                        }
                    }
                    Err(error) => self.failed(index, error)?,
                }
            }
            Link::Open(open) => {
                let Poll::Ready(line) = open.lines.poll_line(cx) else {
                    if open.silence.as_mut().poll(cx).is_ready() {
                        let error = site.error(ErrorKind::Timeout, "the watch is silent");
                        self.reopen(index, Some(&error));
                        return Ok(true);
                    }
                    return Ok(false);
                };
                match line {
                    Ok(Line::Whole(line)) => {
                        open.silence.as_mut().reset(Instant::now() + self.shared.client.config().max_silence);
                        if let Err(error) = self.line(index, &line) {
                            self.failed(index, error)?;
                        }
                    }
                    // An end before half of the time is an outage (trap K4).
                    Ok(Line::End) if open.opened.elapsed() < open.asked / 2 => {
                        let error = site.error(ErrorKind::Unavailable, "the watch ended before its time");
                        self.reopen(index, Some(&error));
                    }
                    Ok(Line::End) => self.reopen(index, None),
                    Ok(Line::TooLong) => {
                        let error = site.error(ErrorKind::Protocol, "a line of the watch is longer than any object");
                        self.failed(index, error)?;
                    }
                    Err(error) => {
                        let error = of_transport(site, error);
                        self.reopen(index, Some(&error));
                    }
                }
            }
        }
        Ok(true)
    }

    /// Decides what becomes of the stream when a scope's watch failed.
    fn failed(&mut self, index: usize, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Expired => self.lost(Gap::HistoryExpired, error),
            // Its message cannot be read: the state can, perhaps.
            ErrorKind::Protocol => self.lost(Gap::Undecodable, error),
            // The kind is no longer served.
            ErrorKind::NotFound => {
                self.rest(Gap::Disconnected, &error);
                Ok(())
            }
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited => {
                self.reopen(index, Some(&error));
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Asks for the state again after a pause.
    fn rest(&mut self, gap: Gap, failure: &Error) {
        self.tracked.clear();
        let pause = pause(&mut self.failures, failure);
        self.resting = Some((gap, Box::pin(tokio::time::sleep(pause))));
    }

    fn poll_state(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        if let Some((gap, until)) = &mut self.resting {
            if until.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            let gap = *gap;
            self.resting = None;
            self.fill(gap);
        }
        let Some((gap, filling)) = &mut self.filling else { return Ok(false) };
        let Poll::Ready(done) = filling.as_mut().poll(cx) else { return Ok(false) };
        let gap = *gap;
        self.filling = None;
        match done {
            Ok(filled) => self.filled(gap, filled),
            Err(error) => match error.kind() {
                ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::RateLimited
                | ErrorKind::Expired
                | ErrorKind::NotFound
                | ErrorKind::Protocol => self.rest(gap, &error),
                _ => return Err(error),
            },
        }
        Ok(true)
    }

    fn poll_survey(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let Poll::Ready(found) = self.surveying.as_mut().poll(cx) else { return Ok(false) };
        let is_same = is_current(found, self.tracked.iter().map(|tracked| &tracked.scope));
        if is_same {
            self.survey();
        } else {
            let error = self.shared.client.site(WATCH).error(ErrorKind::Expired, "the server's kinds changed");
            self.lost(Gap::Disconnected, error)?;
        }
        Ok(true)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<StoreEvent>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(Ok(event));
            }
            if let Poll::Ready(error) = self.closed.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            let mut has_moved = self.poll_state(cx)?;
            for index in 0..self.tracked.len() {
                has_moved |= self.step(index, cx)?;
            }
            if self.queue.is_empty() && !has_moved {
                has_moved = self.poll_survey(cx)?;
            }
            if self.queue.is_empty() && !has_moved {
                return Poll::Pending;
            }
        }
    }
}

/// True unless the server has other scopes than those that are watched. An outage says nothing: what is watched goes on.
fn is_current<'a>(found: Result<Vec<Scope>>, tracked: impl ExactSizeIterator<Item = &'a Scope>) -> bool {
    match found {
        Ok(scopes) => scopes.iter().eq(tracked),
        Err(error) => {
            tracing::debug!(%error, "the kinds could not be compared");
            true
        }
    }
}

/// Pause before another attempt, as long as the server asked for. One that reached no server is no failure, and makes no later pause longer.
fn pause(failures: &mut u32, failure: &Error) -> Duration {
    if let Retry::Poll(pause) = failure.retry() {
        return pause.clamp(Duration::from_millis(10), Duration::from_secs(1));
    }
    let growing = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
    *failures = failures.saturating_add(1);
    if let Retry::After(pause) = failure.retry() { pause } else { growing }
}

impl Stream for Watching {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.poll_event(cx));
        if event.is_err() {
            self.is_over = true;
            self.tracked.clear();
        }
        Poll::Ready(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::tests::kind;

    #[test]
    fn a_server_that_was_away_for_long_is_back_at_once() {
        let error = |retry| Error::new(ErrorKind::Unavailable, WATCH, "away").with_retry(retry);
        let mut failures = 0;
        for _ in 0..100 {
            let away = error(Retry::Poll(Duration::from_millis(250)));
            assert_eq!(pause(&mut failures, &away), Duration::from_millis(250));
        }
        assert_eq!(pause(&mut failures, &error(Retry::Backoff)), FIRST_PAUSE, "it answers, and is starting");
        assert_eq!(pause(&mut failures, &error(Retry::Backoff)), FIRST_PAUSE * 2);
        assert_eq!(pause(&mut failures, &error(Retry::After(Duration::from_secs(7)))), Duration::from_secs(7));
    }

    #[test]
    fn kinds_that_could_not_be_asked_for_are_those_that_are_watched() {
        let scope = |name: &str| Scope { kind: Arc::new(kind("", name)), namespace: None };
        let tracked = [scope("Pod"), scope("Secret")];
        let outage = Error::new(ErrorKind::Unavailable, WATCH, "away");
        for (found, is_same) in [
            (Err(outage), true),
            (Ok(tracked.to_vec()), true),
            (Ok(vec![scope("Pod")]), false),
            (Ok(vec![scope("Pod"), scope("Secret"), scope("Thing")]), false),
            (Ok(vec![]), false),
        ] {
            assert_eq!(is_current(found, tracked.iter()), is_same);
        }
    }
}
