//! [`EventSubscription`]: one `/events` response, opened, read, and proven to continue where another one ended.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use runtide_core::{Result, RuntimeKind, event::ResumeToken};
use runtide_engine::{Feed, Request};
use tokio::time::Instant;

use crate::{
    client::{Client, Docker},
    frame::{Framed, Frames},
    reported_state,
};

pub(crate) const OPERATION: &str = "docker.events";

/// `{"type":["container","network"]}`: an address changes with a network's event alone (trap D10).
const FILTER: &str = "filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";

/// The daemon stamps an event before it queues it, so that two neighbours in its history may be in the wrong order.
const DISORDER: Duration = Duration::from_millis(100);

/// The daemon sends its history at once and in one go. An event is not in the history if a later one was reported, if no
/// event follows for `UNPROVEN`, if none arrives at all for `NOTHING`, or after `LONGEST`.
const UNPROVEN: Duration = Duration::from_millis(250);
const NOTHING: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

/// Time for the history to arrive before the daemon is asked outright: a daemon that was restarted has none, and waiting for it
/// would be most of the time that it takes to be back.
const PROMPT: Duration = Duration::from_millis(20);

/// A subscription to the daemon's events.
pub(crate) struct EventSubscription(Feed<Docker>);

/// The result of looking up the first response's last position in a second one.
pub(crate) enum Proof {
    /// The position is in the history: the unread events happened since.
    Continues,
    /// The position is not in the history any more.
    Expired,
    /// The daemon has no history at all.
    Empty,
}

impl EventSubscription {
    /// Subscribes, from a point in the history on.
    ///
    /// The daemon sends the response's head *before* it subscribes. So a head alone proves nothing, and every caller names a
    /// `since` that is older than its own listing: events in between are then replayed.
    pub(crate) async fn open(client: &Client, since: Option<&str>) -> Result<Self> {
        let since = since.map_or_else(String::new, |since| format!("since={since}&"));
        Feed::open(client, OPERATION, Request::get(format!("/events?{since}{FILTER}"))).await.map(Self)
    }

    /// Continues after `token`, if the history proves that it can: replay is inclusive, so the token's event must come back
    /// (trap D3: a history that is too short is cut silently). The events before it were emitted already; the reported state
    /// learns from them what the messages after it leave open.
    pub(crate) async fn open_after(
        client: &Client,
        reported_state: &reported_state::Shared,
        token: &ResumeToken,
        since: &str,
    ) -> Result<(Self, Proof)> {
        let mut subscription = Self::open(client, Some(since)).await?;
        let latest = Instant::now() + LONGEST;
        let too_late = nanoseconds_of(token).map(|at| at + DISORDER.as_nanos());
        let (mut scanned, mut text) = (0, String::new());
        let (mut asking, mut asked) = (true, pin!(forgets(client, token)));
        loop {
            let mut frames = Frames::of(subscription.unread().get(scanned..).unwrap_or_default());
            let before = scanned;
            while let Some(framed) = frames.next() {
                scanned = before + frames.read();
                let Framed::Event(event) = framed else { continue };
                if event.token(&mut text).as_ref() == Some(token) {
                    subscription.consume(scanned);
                    return Ok((subscription, Proof::Continues));
                }
                if event.nanoseconds().zip(too_late).is_some_and(|(at, too_late)| u128::from(at) > too_late) {
                    return Ok((subscription, Proof::Expired));
                }
                reported_state.lock().learn(&event);
            }
            let timeout = if scanned == 0 { NOTHING } else { UNPROVEN };
            let more = poll_fn(|cx| {
                let more = subscription.poll_more(cx);
                if more.is_pending()
                    && asking
                    && let Poll::Ready(forgotten) = asked.as_mut().poll(cx)
                {
                    asking = false;
                    if forgotten {
                        return Poll::Ready(Ok(false));
                    }
                }
                more
            });
            match tokio::time::timeout_at(latest.min(Instant::now() + timeout), more).await {
                Ok(Ok(true)) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(false)) | Err(_) => break,
            }
        }
        let proof = if scanned == 0 { Proof::Empty } else { Proof::Expired };
        Ok((subscription, proof))
    }

    /// Waits until the daemon's history has arrived, of which nothing is consumed: it is written in one go, and followed by silence
    /// or by what is live.
    ///
    /// A listing can be answered before all of it has come (Docker 26 does that more often than not): what it says of an instance
    /// that the listing lacks would then seem to have happened after the listing.
    ///
    /// A message of a time after `live` is live, so that the history is there: a busy daemon is never silent.
    pub(crate) async fn await_history(&mut self, live: Option<u64>) -> Result<()> {
        let latest = Instant::now() + LONGEST;
        let mut timeout = NOTHING;
        let mut scanned = 0;
        loop {
            let mut frames = Frames::of(self.unread().get(scanned..).unwrap_or_default());
            let before = scanned;
            while let Some(framed) = frames.next() {
                scanned = before + frames.read();
                if let Framed::Event(event) = framed
                    && event.nanoseconds().zip(live).is_some_and(|(at, live)| at > live)
                {
                    return Ok(());
                }
            }
            let more = poll_fn(|cx| self.poll_more(cx));
            match tokio::time::timeout_at(latest.min(Instant::now() + timeout), more).await {
                Ok(Ok(true)) => timeout = UNPROVEN,
                Ok(Err(error)) => return Err(error),
                Ok(Ok(false)) | Err(_) => return Ok(()),
            }
        }
    }

    /// Bytes that arrived and were not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        self.0.unread()
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.0.consume(length);
    }

    /// `true`: more bytes are unread; `false`: the daemon ended the response.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        self.0.poll_more(cx)
    }
}

/// Asks the daemon, after [`PROMPT`], for its history up to the token, which is a response that ends. `true`: the token's event is
/// not in it, and so is not in that of a subscription either. `false` if it is, or the daemon is not known to end the response
/// (trap D13).
async fn forgets(client: &Client, token: &ResumeToken) -> bool {
    tokio::time::sleep(PROMPT).await;
    let is_docker = client.last_server().is_some_and(|server| server.kind == RuntimeKind::Docker);
    let Some(at) = time_of(token).filter(|_| is_docker) else { return false };
    let since = stamp(at.saturating_sub(DISORDER));
    let path = format!("/events?since={since}&until={}&{FILTER}", stamp(at));
    let Ok(history) = client.call(OPERATION, Request::get(path), client.deadline()).await else { return false };
    !Frames::of(&history)
        .any(|framed| matches!(framed, Framed::Event(event) if event.token(&mut String::new()).as_ref() == Some(token)))
}

/// The `since` for a token: its time less [`DISORDER`], as `sec.nnnnnnnnn`. `None`: the token is another source's.
pub(crate) fn since(token: &ResumeToken) -> Option<String> {
    Some(stamp(time_of(token)?.saturating_sub(DISORDER)))
}

fn nanoseconds_of(token: &ResumeToken) -> Option<u128> {
    time_of(token).map(|at| at.as_nanos())
}

fn time_of(token: &ResumeToken) -> Option<Duration> {
    let (time, _) = token.as_str().split_once(' ')?;
    let (seconds, nanos) = time.split_once('.')?;
    if nanos.len() != 9 || !nanos.bytes().chain(seconds.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
}

/// Seconds and nanoseconds since the epoch, in the daemon's form (trap D6: never a float).
pub(crate) fn stamp(at: Duration) -> String {
    format!("{}.{:09}", at.as_secs(), at.subsec_nanos())
}

/// Nanoseconds since the epoch; `None` before it, or after the year 2554.
pub(crate) fn nanoseconds(at: SystemTime) -> Option<u64> {
    at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_derived_from_a_token_of_this_source_only() {
        let since = |token: &str| since(&ResumeToken::from(token));
        assert_eq!(since("1795196509.137893753 start 6a00dae10311").as_deref(), Some("1795196509.037893753"));
        assert_eq!(since("1795196509.000000001 die x").as_deref(), Some("1795196508.900000001"));
        for foreign in [
            "",
            "42",
            "s=1;i=2",
            "1795196509 start x",
            "1795196509.1 start x",
            "+1.000000000 a b",
            "99999999999999999999.000000000 a b",
        ] {
            assert_eq!(since(foreign), None, "{foreign}");
        }
    }
}
