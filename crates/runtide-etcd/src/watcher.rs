//! Task behind one subscriber's stream: [`Watcher`].
//!
//! One watch of etcd's carries the pointer and all data, so that a restore is ordered among the writes. It is opened *at* the last
//! revision that was delivered, not behind it, and the events of that revision are skipped: a member drops deletes at the very
//! revision of a compaction, and does not report that to a watch that begins there. A watch that begins one earlier is cancelled.

use std::{sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind, Gap, Result, SlowConsumer,
    store::{Resource, ResourceRef, Revision, Selector, StoreEvent, StoreWatchOptions},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use crate::{
    call::Call,
    client::positive,
    connection::{Connection, WatchStream},
    error::{Fault, Recovery, text},
    feed::{EventSender, Gone},
    keys,
    read::{PAGE, ReadError},
    shared::Shared,
    value,
    view::signed,
    wire::{Event, EventType, KeyValue, RangeRequest, WatchCreateRequest, WatchResponse},
};

const OPERATION: &str = "etcd.watch";

/// Pause after the first failure; it doubles with each further one.
const BASE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Position in the store's history: all up to the revision was delivered, and the generation was live then.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) generation: Option<Arc<str>>,
    pub(crate) revision: u64,
}

/// First events of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// A bookmark at the position.
    Bookmark,
    /// A resync.
    Resync(Gap),
    /// None: the subscriber named the position.
    Resume,
}

/// Reason why a link ended.
#[derive(Debug)]
enum End {
    /// The subscriber dropped its stream.
    Gone,
    /// The subscriber is slow, and the queue is full.
    Full,
    /// Another generation is live from this position on.
    Flip(Position),
    /// The history no longer reaches back to the position.
    Lost,
    /// The link broke; another one may do.
    Broken(Error),
    /// Every further link would fail the same way.
    Fatal(Error),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    selector: Selector,
    options: StoreWatchOptions,
    sender: EventSender,
    position: Position,
    /// Revision of the last event or bookmark that was sent; the position may be ahead of it.
    emitted: u64,
    /// Events of a revision of which more may follow.
    pending: Vec<Event>,
    failures: u32,
}

impl Watcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        selector: Selector,
        options: StoreWatchOptions,
        sender: EventSender,
        position: Position,
    ) -> Self {
        Self {
            shared,
            selector,
            options,
            sender,
            emitted: position.revision,
            position,
            pending: Vec::new(),
            failures: 0,
        }
    }

    pub(crate) async fn run(mut self, start: Start) {
        let begun = match start {
            Start::Bookmark => self.bookmark().await.map_err(End::from),
            Start::Resume => Ok(()),
            Start::Resync(gap) => self.resync(gap, Some(self.position.clone())).await,
        };
        let mut end = match begun {
            Ok(()) => self.follow().await,
            Err(end) => end,
        };
        loop {
            end = match end {
                End::Gone => return,
                End::Full => match self.sender.half_empty().await {
                    Ok(()) => self.follow().await,
                    Err(gone) => gone.into(),
                },
                End::Flip(position) => self.resync_and_follow(Gap::Restored, Some(position)).await,
                End::Lost if self.options.slow_consumer == SlowConsumer::Close => {
                    let message = "the changes after the last event are compacted";
                    let error = Error::new(ErrorKind::Expired, OPERATION, message)
                        .with_context("store", self.shared.client.name())
                        .with_context("revision", self.position.revision);
                    End::Fatal(error)
                }
                End::Lost => self.resync_and_follow(Gap::HistoryExpired, None).await,
                End::Broken(error) => {
                    tracing::debug!(store = self.shared.client.name(), %error, "a watch is interrupted");
                    self.pause(&error).await;
                    self.follow().await
                }
                End::Fatal(error) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
            };
        }
    }

    /// Resyncs the subscriber, then follows.
    async fn resync_and_follow(&mut self, gap: Gap, at: Option<Position>) -> End {
        match self.resync(gap, at).await {
            Ok(()) => self.follow().await,
            Err(end) => end,
        }
    }

    async fn bookmark(&mut self) -> Result<(), Gone> {
        self.emitted = self.position.revision;
        self.sender.send(Ok(StoreEvent::Bookmark { revision: Revision(self.position.revision) })).await
    }

    /// Sends all resources: as of the given position, if the history still has it, else as of now. Sets the position to it.
    async fn resync(&mut self, gap: Gap, at: Option<Position>) -> Result<(), End> {
        let mut at = at;
        loop {
            let position = match at.take() {
                Some(position) => position,
                None => self.current_position().await?,
            };
            let revision = Revision(position.revision);
            self.position = position;
            self.pending.clear();
            self.sender.send(Ok(StoreEvent::Reset { gap, revision })).await?;
            if self.emit_pages().await? {
                self.bookmark().await?;
                return Ok(());
            }
            // Compacted while it was read: begin again, at the current position.
        }
    }

    /// Current position of the store; retries until it is read.
    async fn current_position(&mut self) -> Result<Position, End> {
        loop {
            let mut call = Call::new(OPERATION, self.shared.request_timeout);
            match self.shared.position(&mut call).await {
                Ok(position) => return Ok(position),
                Err(fault) => self.back_off(fault.error, fault.recovery).await?,
            }
        }
    }

    /// Waits after a failure, unless it is final.
    async fn back_off(&mut self, error: Error, recovery: Recovery) -> Result<(), End> {
        if is_final(&error, recovery) {
            return Err(End::Fatal(error));
        }
        self.pause(&error).await;
        Ok(())
    }

    /// Waits before another attempt: longer with each failure of a member that was reached.
    async fn pause(&mut self, error: &Error) {
        let full = self.shared.client.poll_pause(error).unwrap_or_else(|| {
            let failures = self.failures;
            self.failures = failures.saturating_add(1);
            BASE.saturating_mul(1 << failures.min(10)).min(LONGEST)
        });
        sleep(full.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
    }

    /// Sends the resources that were selected at the position; false if its revision is compacted.
    async fn emit_pages(&mut self) -> Result<bool, End> {
        let Some(generation) = self.position.generation.clone() else { return Ok(true) };
        let mut range = self.shared.keys.selected(&generation, &self.selector);
        loop {
            let mut call = Call::new(OPERATION, self.shared.request_timeout);
            let part = match self.shared.part(&mut call, &range, self.position.revision, PAGE).await {
                Ok(part) => part,
                Err(ReadError::Compacted(_)) => return Ok(false),
                Err(ReadError::Future(error) | ReadError::Failed(error)) => {
                    self.back_off(error, Recovery::NextMember).await?;
                    continue;
                }
            };
            self.failures = 0;
            if let Some(last) = part.kvs.last() {
                range.from = keys::after(&last.key);
            }
            for kv in part.kvs {
                let resource = Arc::new(self.shared.resource(kv).map_err(End::Fatal)?);
                if self.selector.matches(&resource) {
                    self.sender.send(Ok(StoreEvent::Added(resource.shown(self.options.format)))).await?;
                }
            }
            if !part.more {
                return Ok(true);
            }
        }
    }

    /// Follows the store from the position until the link ends.
    async fn follow(&mut self) -> End {
        match self.follow_link().await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn follow_link(&mut self) -> Result<std::convert::Infallible, End> {
        self.pending.clear();
        let (mut watch, trusted) = self.open().await?;
        let silence = self.shared.max_silence;
        let mut heard = Instant::now();
        let mut requested = heard;
        let mut bookmarked = Instant::now();
        loop {
            let next_request = (heard.max(requested)) + silence / 3;
            let next_bookmark = bookmarked + self.shared.bookmark_interval;
            let wake = next_request.min(next_bookmark).min(heard + silence);
            let message = tokio::select! {
                message = watch.message() => Some(message),
                () = tokio::time::sleep_until(wake) => None,
            };
            let now = Instant::now();
            if let Some(message) = message {
                let message = message.map_err(|error| self.broken(&error))?;
                let Some(message) = message else {
                    return Err(End::Broken(self.error("the member closed the watch")));
                };
                heard = now;
                self.failures = 0;
                self.handle(message, trusted).await?;
            }
            if now >= heard + silence {
                return Err(End::Broken(self.error("the link is silent")));
            }
            if now >= next_bookmark {
                bookmarked = now;
                if self.position.revision > self.emitted {
                    self.bookmark().await?;
                }
            }
            // Progress proves that the link is alive. From a member that keeps its order it is also a bookmark, and is requested more often.
            let due = if trusted { next_bookmark.min(next_request) } else { next_request };
            if now >= due && self.pending.is_empty() {
                requested = now;
                let sent = timeout(silence, watch.request_progress()).await;
                sent.map_err(|_| End::Broken(self.error("the link is stuck")))?.map_err(|error| self.broken(&error))?;
            }
        }
    }

    /// A watch at the position, and whether the member keeps requested progress in order.
    async fn open(&mut self) -> Result<(WatchStream, bool), End> {
        let keys::KeyRange { from, to } = self.shared.keys.watched();
        let create = WatchCreateRequest {
            key: from,
            range_end: to,
            start_revision: signed(self.position.revision.max(1)),
            progress_notify: true,
            // Labels are in the value: only the previous one shows that a resource ceases to match.
            prev_kv: !self.selector.labels.is_empty(),
            fragment: true,
        };
        let pointer = RangeRequest::key(self.shared.keys.pointer());
        let open = |connection: Connection| async move {
            // A linearizable read: the revision of the cluster, not of what this member has applied.
            let now = connection.range(&pointer).await?;
            let now = now.header.map_or(0, |header| positive(header.revision));
            // A member that does not report its version is not trusted.
            let trusted = connection.status().await.is_ok_and(|status| keeps_order(&status.version));
            Ok((connection.watch(&create).await?, trusted, now))
        };
        match self.shared.client.attempt(OPERATION, self.shared.request_timeout, open).await {
            // The cluster was set back to a backup: its new revisions are below the position, and would never be sent.
            Ok((_, _, now)) if now < self.position.revision => Err(End::Lost),
            Ok((watch, trusted, _)) => Ok((watch, trusted)),
            Err(Fault { error, recovery, .. }) if is_final(&error, recovery) => Err(End::Fatal(error)),
            Err(fault) => Err(End::Broken(fault.error)),
        }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, OPERATION, message).with_context("store", self.shared.client.name())
    }

    fn broken(&self, status: &Status) -> End {
        End::Broken(self.error(format!("the watch broke off: {}", text(status))).with_causes_of(status))
    }

    /// Handles one message.
    async fn handle(&mut self, message: WatchResponse, trusted: bool) -> Result<(), End> {
        if message.canceled || message.compact_revision > 0 {
            return Err(self.cancelled(&message));
        }
        let at = message.header.map_or(0, |header| positive(header.revision));
        if message.events.is_empty() {
            // Requested progress (watch -1) may overtake events on members that do not keep it in order.
            if !message.created
                && (message.watch_id >= 0 || trusted)
                && self.pending.is_empty()
                && at > self.position.revision
            {
                self.position.revision = at;
            }
            return Ok(());
        }
        for event in message.events {
            if !self.is_wanted(&event) {
                // An event of a generation that is not live.
                continue;
            }
            if revision(&event) != self.pending.first().map_or(0, revision) {
                self.flush().await?;
            }
            self.pending.push(event);
        }
        if !message.fragment {
            self.flush().await?;
        }
        Ok(())
    }

    fn is_wanted(&self, event: &Event) -> bool {
        match (self.generation_of(event), &self.position.generation) {
            (Some(generation), Some(live)) => generation == &**live,
            // No generation is live yet: the pointer may be in the same revision.
            (Some(_), None) => true,
            (None, _) => event.kv.as_ref().is_some_and(|kv| kv.key == self.shared.keys.pointer()),
        }
    }

    /// Generation of the event's resource; `None` for the pointer.
    fn generation_of<'a>(&self, event: &'a Event) -> Option<&'a str> {
        self.shared.keys.parse(&event.kv.as_ref()?.key).map(|(generation, _)| generation)
    }

    fn cancelled(&self, message: &WatchResponse) -> End {
        if message.compact_revision > 0 {
            return End::Lost;
        }
        let error = self.error("the member ended the watch").with_context("reason", &message.cancel_reason);
        if message.cancel_reason.contains("permission denied") {
            let denied = Error::new(ErrorKind::PermissionDenied, OPERATION, "this user may not watch these keys")
                .with_context("store", self.shared.client.name());
            return End::Fatal(denied);
        }
        End::Broken(error)
    }

    /// Sends the events of one revision.
    async fn flush(&mut self) -> Result<(), End> {
        let events = std::mem::take(&mut self.pending);
        let Some(at) = events.first().map(revision) else { return Ok(()) };
        if at <= self.position.revision {
            // Delivered before the link was replaced.
            return Ok(());
        }
        if self.sender.is_full() {
            return Err(End::Full);
        }
        let pointer = self.shared.keys.pointer();
        for event in &events {
            let Some(kv) = event.kv.as_ref().filter(|kv| kv.key == pointer) else { continue };
            let named: Option<Arc<str>> =
                if is_delete(event) { None } else { std::str::from_utf8(&kv.value).ok().map(Arc::from) };
            // The first write of a store names a generation and puts a resource into it. A restore only names one, whose resources
            // were written before.
            let has_resources = |name: &str| events.iter().any(|event| self.generation_of(event) == Some(name));
            if let Some(named) = &named
                && self.position.generation.as_ref().map_or(!has_resources(named), |live| live != named)
            {
                return Err(End::Flip(Position { generation: Some(Arc::clone(named)), revision: at }));
            }
            if !is_delete(event) {
                self.position.generation = named;
            }
        }
        for event in &events {
            self.emit(event).await?;
        }
        // All keys were removed: the store begins again, with another generation.
        if events.iter().any(|event| is_delete(event) && event.kv.as_ref().is_some_and(|kv| kv.key == pointer)) {
            self.position.generation = None;
        }
        self.position.revision = at;
        Ok(())
    }

    async fn emit(&mut self, event: &Event) -> Result<(), End> {
        let Some(kv) = &event.kv else { return Ok(()) };
        let Some((generation, name)) = self.shared.keys.parse(&kv.key) else { return Ok(()) };
        if self.position.generation.as_deref() != Some(generation) {
            return Ok(());
        }
        let reference: ResourceRef = match name.parse() {
            Ok(reference) => reference,
            Err(_) => return Err(End::Fatal(self.shared.corrupt(&kv.key, "its key names no resource"))),
        };
        if !self.selector.names(&reference) {
            return Ok(());
        }
        let at = Revision(positive(kv.mod_revision));
        let before = self.was_selected(event, &reference)?;
        let change = if is_delete(event) {
            before.then_some(StoreEvent::Deleted { reference, revision: at })
        } else {
            let resource = Arc::new(self.decoded(reference, kv)?);
            match (before, self.selector.matches(&resource)) {
                (false, true) => Some(StoreEvent::Added(resource.shown(self.options.format))),
                (true, true) => Some(StoreEvent::Modified(resource.shown(self.options.format))),
                (true, false) => Some(StoreEvent::Deleted { reference: resource.reference.clone(), revision: at }),
                (false, false) => None,
            }
        };
        let Some(change) = change else { return Ok(()) };
        self.emitted = at.0;
        self.sender.send(Ok(change)).await?;
        Ok(())
    }

    /// The resource was selected before the event.
    fn was_selected(&self, event: &Event, reference: &ResourceRef) -> Result<bool, End> {
        let made = event.kv.as_ref().is_some_and(|kv| !is_delete(event) && kv.version == 1);
        if made {
            return Ok(false);
        }
        if self.selector.labels.is_empty() {
            return Ok(true);
        }
        // Without the previous value, which was compacted, it is not known whether the resource matched: resync.
        let before = event.prev_kv.as_ref().ok_or(End::Lost)?;
        Ok(self.selector.matches(&self.decoded(reference.clone(), before)?))
    }

    fn decoded(&self, reference: ResourceRef, kv: &KeyValue) -> Result<Resource, End> {
        let (document, _) =
            value::decode(kv.value.clone()).map_err(|why| End::Fatal(self.shared.corrupt(&kv.key, why)))?;
        Ok(Resource::new(reference, document, Revision(positive(kv.mod_revision))))
    }
}

fn is_delete(event: &Event) -> bool {
    event.kind() == EventType::Delete
}

fn revision(event: &Event) -> u64 {
    event.kv.as_ref().map_or(0, |kv| positive(kv.mod_revision))
}

/// Every further attempt fails the same way.
fn is_final(error: &Error, recovery: Recovery) -> bool {
    let refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::Corrupt);
    let unknown = error.kind() == ErrorKind::Unauthenticated && recovery == Recovery::None;
    refused || unknown
}

/// Members of this version send requested progress after all events before it: from 3.4.31, 3.5.13 and 3.6 on.
fn keeps_order(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = [numbers.next(), numbers.next(), numbers.next()].map(Option::unwrap_or_default);
    match version {
        [3, 4, patch] => patch >= 31,
        [3, 5, patch] => patch >= 13,
        [major, minor, _] => (major, minor) >= (3, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_members_are_not_believed() {
        for (version, kept) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("3.3.99", false),
            ("", false),
        ] {
            assert_eq!(keeps_order(version), kept, "{version}");
        }
    }
}
