//! Follows etcd for one watcher: [`Follower`].
//!
//! One etcd watch carries the pointer and all data, so that a restore has its place among the writes. It is opened *at* the
//! last revision that was delivered, not behind it, and what was delivered is skipped: a member forgets deletes at the very
//! revision of a compaction, and a watch that begins there is not told. Opened one earlier it is cancelled instead.

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
    connection::{Connection, Watch},
    error::{Cure, Fault},
    feed::{Gone, Outlet},
    keys,
    read::{PAGE, Unread},
    store::Inner,
    value,
    view::signed,
    wire::{Event, EventType, KeyValue, RangeRequest, WatchCreateRequest, WatchResponse},
};

const OPERATION: &str = "etcd.watch";

/// The pause after the first failure; it doubles from there.
const BASE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// A place: everything up to the revision has been delivered, and this generation was live then.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) generation: Option<Arc<str>>,
    pub(crate) revision: u64,
}

/// What a watcher is told first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    /// Its place.
    Bookmark,
    /// What is there.
    State(Gap),
    /// Nothing: it knows where it is.
    There,
}

/// How it ended to follow.
#[derive(Debug)]
enum End {
    /// Nobody reads any more.
    Gone,
    /// The reader is behind.
    Full,
    /// Another generation is live, from here on.
    Flip(Spot),
    /// The place is lost.
    Lost,
    /// The link broke.
    Broken(Error),
    /// It makes no sense to go on.
    Fatal(Error),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

#[derive(Debug)]
pub(crate) struct Follower {
    inner: Arc<Inner>,
    selector: Selector,
    options: StoreWatchOptions,
    outlet: Outlet,
    spot: Spot,
    /// The last revision that the reader knows to have been delivered.
    told: u64,
    /// The events of a revision of which more may come.
    pending: Vec<Event>,
    failures: u32,
}

impl Follower {
    pub(crate) fn new(
        inner: Arc<Inner>,
        selector: Selector,
        options: StoreWatchOptions,
        outlet: Outlet,
        spot: Spot,
    ) -> Self {
        let told = spot.revision;
        Self { inner, selector, options, outlet, spot, told, pending: Vec::new(), failures: 0 }
    }

    pub(crate) async fn run(mut self, begin: Begin) {
        let told = match begin {
            Begin::Bookmark => self.bookmark().await.map_err(End::from),
            Begin::There => Ok(()),
            Begin::State(gap) => self.state(gap, Some(self.spot.clone())).await,
        };
        let mut end = match told {
            Ok(()) => self.follow().await,
            Err(end) => end,
        };
        loop {
            end = match end {
                End::Gone => return,
                End::Full => match self.outlet.half_empty().await {
                    Ok(()) => self.follow().await,
                    Err(gone) => gone.into(),
                },
                End::Flip(spot) => self.told_all(Gap::Restored, Some(spot)).await,
                End::Lost if self.options.slow_consumer == SlowConsumer::Close => {
                    let message = "etcd does not keep what came after the last event any more";
                    let error = Error::new(ErrorKind::Expired, OPERATION, message)
                        .with_context("store", self.inner.client.name())
                        .with_context("revision", self.spot.revision);
                    End::Fatal(error)
                }
                End::Lost => self.told_all(Gap::HistoryExpired, None).await,
                End::Broken(error) => {
                    tracing::debug!(store = self.inner.client.name(), %error, "a watch is interrupted");
                    let full = BASE.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
                    self.failures = self.failures.saturating_add(1);
                    sleep(full.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
                    self.follow().await
                }
                End::Fatal(error) => {
                    let _ = self.outlet.put(Err(error)).await;
                    return;
                }
            };
        }
    }

    /// A reset, and then on.
    async fn told_all(&mut self, gap: Gap, at: Option<Spot>) -> End {
        match self.state(gap, at).await {
            Ok(()) => self.follow().await,
            Err(end) => end,
        }
    }

    async fn bookmark(&mut self) -> Result<(), Gone> {
        self.told = self.spot.revision;
        self.outlet.put(Ok(StoreEvent::Bookmark { revision: Revision(self.spot.revision) })).await
    }

    /// Tells all that is there, at a place if it is still to be had there, and goes on from it.
    async fn state(&mut self, gap: Gap, at: Option<Spot>) -> Result<(), End> {
        let mut at = at;
        loop {
            let spot = match at.take() {
                Some(spot) => spot,
                None => self.present().await?,
            };
            let revision = Revision(spot.revision);
            self.spot = spot;
            self.pending.clear();
            self.outlet.put(Ok(StoreEvent::Reset { gap, revision })).await?;
            if self.tell_pages().await? {
                self.bookmark().await?;
                return Ok(());
            }
            // Compacted while it was told: again, from the present.
        }
    }

    /// Where the store is now; asked until it is known.
    async fn present(&mut self) -> Result<Spot, End> {
        loop {
            let mut call = Call::new(OPERATION, self.inner.request_timeout);
            match self.inner.spot(&mut call).await {
                Ok(spot) => return Ok(spot),
                Err(fault) => self.again(fault.error, fault.cure).await?,
            }
        }
    }

    /// Waits after a failure, if there is hope.
    async fn again(&mut self, error: Error, cure: Cure) -> Result<(), End> {
        if is_final(&error, cure) {
            return Err(End::Fatal(error));
        }
        let full = BASE.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        sleep(full.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        Ok(())
    }

    /// Tells what was selected at the spot; false if etcd does not keep that any more.
    async fn tell_pages(&mut self) -> Result<bool, End> {
        let Some(generation) = self.spot.generation.clone() else { return Ok(true) };
        let mut range = self.inner.keys.selected(&generation, &self.selector);
        loop {
            let mut call = Call::new(OPERATION, self.inner.request_timeout);
            let part = match self.inner.part(&mut call, &range, self.spot.revision, PAGE).await {
                Ok(part) => part,
                Err(Unread::Compacted(_)) => return Ok(false),
                Err(Unread::Future(error) | Unread::Failed(error)) => {
                    self.again(error, Cure::Elsewhere).await?;
                    continue;
                }
            };
            self.failures = 0;
            if let Some(last) = part.kvs.last() {
                range.from = keys::after(&last.key);
            }
            for kv in part.kvs {
                let resource = Arc::new(self.inner.resource(kv).map_err(End::Fatal)?);
                if self.selector.matches(&resource) {
                    self.outlet.put(Ok(StoreEvent::Added(resource.shown(self.options.format)))).await?;
                }
            }
            if !part.more {
                return Ok(true);
            }
        }
    }

    /// Follows from the spot until something ends it.
    async fn follow(&mut self) -> End {
        match self.follow_link().await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn follow_link(&mut self) -> Result<std::convert::Infallible, End> {
        self.pending.clear();
        let (mut watch, trusted) = self.open().await?;
        let silence = self.inner.max_silence;
        let mut heard = Instant::now();
        let mut asked = heard;
        let mut marked = Instant::now();
        loop {
            let next_ask = (heard.max(asked)) + silence / 3;
            let next_token = marked + self.inner.bookmark_interval;
            let wake = next_ask.min(next_token).min(heard + silence);
            let message = tokio::select! {
                message = watch.message() => Some(message),
                () = tokio::time::sleep_until(wake) => None,
            };
            let now = Instant::now();
            if let Some(message) = message {
                let message = message.map_err(|error| self.broken(error))?;
                let Some(message) = message else {
                    return Err(End::Broken(self.error("the member closed the watch")));
                };
                heard = now;
                self.failures = 0;
                self.take(message, trusted).await?;
                // Others have the processor meanwhile, and the link goes on.
            }
            if now >= heard + silence {
                return Err(End::Broken(self.error("the link is silent")));
            }
            if now >= next_token {
                marked = now;
                if self.spot.revision > self.told {
                    self.bookmark().await?;
                }
            }
            // A sign of life; where the member can be trusted with it, a place as well, and then it is asked for more often.
            let due = if trusted { next_token.min(next_ask) } else { next_ask };
            if now >= due && self.pending.is_empty() {
                asked = now;
                let sent = timeout(silence, watch.request_progress()).await;
                sent.map_err(|_| End::Broken(self.error("the link is stuck")))?.map_err(|error| self.broken(error))?;
            }
        }
    }

    /// An etcd watch at the spot, and whether the member's word on progress can be believed.
    async fn open(&mut self) -> Result<(Watch, bool), End> {
        let keys::KeyRange { from, to } = self.inner.keys.watched();
        let create = WatchCreateRequest {
            key: from,
            range_end: to,
            start_revision: signed(self.spot.revision.max(1)),
            progress_notify: true,
            // Only what was there before shows whether it ceases to match.
            prev_kv: !self.selector.labels.is_empty(),
            fragment: true,
        };
        let pointer = RangeRequest::key(self.inner.keys.pointer());
        let open = |connection: Connection| async move {
            // Where the whole cluster is, whatever this member has heard of.
            let now = connection.range(&pointer).await?;
            let now = now.header.map_or(0, |header| positive(header.revision));
            // A member that does not say its version is believed less.
            let trusted = connection.status().await.is_ok_and(|status| keeps_order(&status.version));
            Ok((connection.watch(&create).await?, trusted, now))
        };
        match self.inner.client.attempt(OPERATION, self.inner.request_timeout, open).await {
            // Set back to a backup: revisions of before mean nothing, and those to come would be waited for.
            Ok((_, _, now)) if now < self.spot.revision => Err(End::Lost),
            Ok((watch, trusted, _)) => Ok((watch, trusted)),
            Err(Fault { error, cure, .. }) if is_final(&error, cure) => Err(End::Fatal(error)),
            Err(fault) => Err(End::Broken(fault.error)),
        }
    }

    fn error(&self, message: &str) -> Error {
        Error::new(ErrorKind::Unavailable, OPERATION, message).with_context("store", self.inner.client.name())
    }

    fn broken(&self, error: Status) -> End {
        End::Broken(self.error("the watch broke off").with_source(error))
    }

    /// Takes one message.
    async fn take(&mut self, message: WatchResponse, trusted: bool) -> Result<(), End> {
        if message.canceled || message.compact_revision > 0 {
            return Err(self.cancelled(&message));
        }
        let at = message.header.map_or(0, |header| positive(header.revision));
        if message.events.is_empty() {
            // Asked for, it is of the whole stream (-1), and not every member keeps it behind the events that come before it.
            if !message.created
                && (message.watch_id >= 0 || trusted)
                && self.pending.is_empty()
                && at > self.spot.revision
            {
                self.spot.revision = at;
            }
            return Ok(());
        }
        for event in message.events {
            if !self.is_wanted(&event) {
                // Of a generation that is not live. Its revision counts once all of it was seen.
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
        match (self.generation_of(event), &self.spot.generation) {
            (Some(generation), Some(live)) => generation == &**live,
            // Nothing is live yet: the pointer may come with it.
            (Some(_), None) => true,
            (None, _) => event.kv.as_ref().is_some_and(|kv| kv.key == self.inner.keys.pointer()),
        }
    }

    /// Of the resource that it speaks of, if it speaks of one.
    fn generation_of<'a>(&self, event: &'a Event) -> Option<&'a str> {
        self.inner.keys.parse(&event.kv.as_ref()?.key).map(|(generation, _)| generation)
    }

    fn cancelled(&self, message: &WatchResponse) -> End {
        if message.compact_revision > 0 {
            return End::Lost;
        }
        let error = self.error("the member ended the watch").with_context("reason", &message.cancel_reason);
        if message.cancel_reason.contains("permission denied") {
            let denied = Error::new(ErrorKind::PermissionDenied, OPERATION, "this user may not watch these keys")
                .with_context("store", self.inner.client.name());
            return End::Fatal(denied);
        }
        End::Broken(error)
    }

    /// Tells the events of one revision.
    async fn flush(&mut self) -> Result<(), End> {
        let events = std::mem::take(&mut self.pending);
        let Some(at) = events.first().map(revision) else { return Ok(()) };
        if at <= self.spot.revision {
            // Told before the link was made anew.
            return Ok(());
        }
        if self.outlet.is_full() {
            return Err(End::Full);
        }
        let pointer = self.inner.keys.pointer();
        for event in &events {
            let Some(kv) = event.kv.as_ref().filter(|kv| kv.key == pointer) else { continue };
            let named: Option<Arc<str>> =
                if is_delete(event) { None } else { std::str::from_utf8(&kv.value).ok().map(Arc::from) };
            // The first write of all names a generation and puts something into it. A restore only names it: what is in it
            // came before.
            let begun = |name: &str| events.iter().any(|event| self.generation_of(event) == Some(name));
            if let Some(named) = &named
                && self.spot.generation.as_ref().map_or(!begun(named), |live| live != named)
            {
                return Err(End::Flip(Spot { generation: Some(Arc::clone(named)), revision: at }));
            }
            if !is_delete(event) {
                self.spot.generation = named;
            }
        }
        for event in &events {
            self.tell(event).await?;
        }
        // A store from which somebody removed everything begins anew.
        if events.iter().any(|event| is_delete(event) && event.kv.as_ref().is_some_and(|kv| kv.key == pointer)) {
            self.spot.generation = None;
        }
        self.spot.revision = at;
        Ok(())
    }

    async fn tell(&mut self, event: &Event) -> Result<(), End> {
        let Some(kv) = &event.kv else { return Ok(()) };
        let Some((generation, name)) = self.inner.keys.parse(&kv.key) else { return Ok(()) };
        if self.spot.generation.as_deref() != Some(generation) {
            return Ok(());
        }
        let reference: ResourceRef = match name.parse() {
            Ok(reference) => reference,
            Err(_) => return Err(End::Fatal(self.inner.corrupt(&kv.key, "its key names no resource"))),
        };
        if !self.selector.names(&reference) {
            return Ok(());
        }
        let at = Revision(positive(kv.mod_revision));
        let before = self.before(event, &reference)?;
        let told = if is_delete(event) {
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
        let Some(told) = told else { return Ok(()) };
        self.told = at.0;
        self.outlet.put(Ok(told)).await?;
        Ok(())
    }

    /// Whether the resource was selected before this.
    fn before(&self, event: &Event, reference: &ResourceRef) -> Result<bool, End> {
        let made = event.kv.as_ref().is_some_and(|kv| !is_delete(event) && kv.version == 1);
        if made {
            return Ok(false);
        }
        if self.selector.labels.is_empty() {
            return Ok(true);
        }
        // Compacted before it was sent: whether it matched cannot be known, and a guess would be a lie.
        let before = event.prev_kv.as_ref().ok_or(End::Lost)?;
        Ok(self.selector.matches(&self.decoded(reference.clone(), before)?))
    }

    fn decoded(&self, reference: ResourceRef, kv: &KeyValue) -> Result<Resource, End> {
        let (document, _) =
            value::decode(kv.value.clone()).map_err(|why| End::Fatal(self.inner.corrupt(&kv.key, why)))?;
        Ok(Resource::new(reference, document, Revision(positive(kv.mod_revision))))
    }
}

fn is_delete(event: &Event) -> bool {
    event.kind() == EventType::Delete
}

fn revision(event: &Event) -> u64 {
    event.kv.as_ref().map_or(0, |kv| positive(kv.mod_revision))
}

/// Whether another attempt gives the same.
fn is_final(error: &Error, cure: Cure) -> bool {
    let refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::Corrupt);
    let unknown = error.kind() == ErrorKind::Unauthenticated && cure == Cure::None;
    refused || unknown
}

/// Whether this version keeps the progress that it is asked for behind the events that come before it: 3.4.31, 3.5.13 and 3.6.
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
