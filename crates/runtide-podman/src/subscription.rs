//! A subscription to `/events`: opened in the past, and proven to continue where another one ended.
//!
//! * Podman reads its log of events, a file or the journal, which outlives the service. A stream that is opened with a `since`
//!   misses nothing after that time, whenever the service gets to read it; so the head of the response need not be awaited (trap P2).
//! * A second response with `stream=false` ends at the log's end. It is requested after the stream was opened, so that its last message
//!   separates what happened before from what is new, exactly and without waiting for a silence.

use std::time::Duration;

use http_body_util::BodyExt;
use jiff::Timestamp;
use runtide_core::{ErrorKind, Result, event::ResumeToken};
use runtide_engine::{Feed, Framed, Request, Values, as_io};

use crate::{
    client::{Client, Podman},
    normalize::Event,
};

pub(crate) const OPERATION: &str = "podman.events";

/// Time for which the head of a stream is awaited, so that a refusal is seen at once. Some versions send it with the first message.
const HEAD: Duration = Duration::from_millis(500);

/// Bytes of a message, at most.
const LONGEST: usize = 8 * 1024 * 1024;

/// A message is stamped before it is written, by any of several processes, so that two neighbours may be in the wrong order.
pub(crate) const DISORDER: Duration = Duration::from_secs(5);

/// A stream and its position in the log.
pub(crate) struct Subscription {
    pub(crate) feed: Feed<Podman>,
    /// Messages up to and with this one are no news; `None`: every message is.
    pub(crate) skip: Option<ResumeToken>,
    /// The last message that was in the log when the stream had been opened.
    pub(crate) newest: Option<ResumeToken>,
    /// The looked-up message is in the log: nothing after it is missing.
    pub(crate) continues: bool,
    /// Messages from before this time are no news. Zero, unless the end of the log is unknown.
    pub(crate) from: Duration,
}

/// The connection on which the log is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// One of those that are there: a daemon that comes back is dialled no more often than necessary.
    Pooled,
    /// Another one: those that are there may be as deaf as the stream is taken to be. The stream is not given up in the meantime.
    New,
}

impl Connection {
    /// Time for the log.
    fn limit(self, client: &Client) -> Duration {
        match self {
            Self::Pooled => client.deadline(),
            Self::New => client.patience(),
        }
    }
}

/// Subscribes to everything that happens from now on. `since` is older than the request, by the service's clock, and `now` is its time;
/// `None`: the service does not tell its time.
///
/// A journal of years takes minutes to read, and a beginning needs no history: where its end does not come at once, the stream begins
/// at `now`. It is in whole seconds, so that up to a second of history counts as news, and no news as history. What a listing shows
/// must never be skipped afterwards, so the end is not looked for any longer: a later one has news before it.
///
/// # Errors
/// `Timeout`: the log cannot be read in time, and `now` is not known.
pub(crate) async fn open_fresh(client: &Client, since: Duration, now: Option<Duration>) -> Result<Subscription> {
    let feed = open(client, since).await?;
    let read = history(client, Connection::Pooled, since, |_| {});
    let read = match now {
        Some(_) => tokio::time::timeout(HEAD, read).await.unwrap_or(Ok(None))?,
        None => read.await?,
    };
    let (newest, from) = match (read, now) {
        (Some(History { newest }), _) => (newest, Duration::ZERO),
        (None, Some(now)) => (None, now),
        (None, None) => {
            let why = "the log of events could not be read to its end in time, and the service does not tell its time";
            return Err(client.site(OPERATION).error(ErrorKind::Timeout, why));
        }
    };
    Ok(Subscription { feed, skip: newest.clone(), newest, continues: false, from })
}

/// Subscribes to everything that happened since this time.
pub(crate) async fn open_since(client: &Client, since: Duration) -> Result<Subscription> {
    let feed = open(client, since).await?;
    Ok(Subscription { feed, skip: None, newest: None, continues: true, from: Duration::ZERO })
}

/// Continues after `token`, if the log proves that it can: the token's own message must still be in it. `None`: the log could not be
/// read to its end in time.
pub(crate) async fn open_after(
    client: &Client,
    connection: Connection,
    token: &ResumeToken,
    at: Duration,
) -> Result<Option<Subscription>> {
    let since = since(at);
    let feed = open(client, since).await?;
    let mut continues = false;
    let read = history(client, connection, since, |message| continues |= message == token).await?;
    Ok(read.map(|History { newest }| {
        let skip = if continues { Some(token.clone()) } else { newest.clone() };
        Subscription { feed, skip, newest, continues, from: Duration::ZERO }
    }))
}

/// The last message of now. `None`: there is none since this time, or the log could not be read in time.
pub(crate) async fn newest(client: &Client, at: Duration) -> Result<Option<ResumeToken>> {
    let read = history(client, Connection::Pooled, since(at), |_| {}).await?;
    Ok(read.and_then(|History { newest }| newest))
}

/// The log, as far as it is of interest.
struct History {
    /// The last message.
    newest: Option<ResumeToken>,
}

/// The time from which the log is read for a message of this time.
pub(crate) fn since(at: Duration) -> Duration {
    at.saturating_sub(DISORDER)
}

async fn open(client: &Client, since: Duration) -> Result<Feed<Podman>> {
    Feed::open_patiently(client, OPERATION, request(since), HEAD.min(client.patience())).await
}

/// Reads the log from this time to its end. `None`: the service answers, and the end did not come in time: Podman reads a journal from its first entry on, whatever the time that is asked for.
async fn history(
    client: &Client,
    connection: Connection,
    since: Duration,
    mut each: impl FnMut(&ResumeToken) + Send,
) -> Result<Option<History>> {
    let site = client.site(OPERATION);
    let read = async {
        let request = request(since).with_query("stream", false);
        let answer = match connection {
            Connection::Pooled => client.open(OPERATION, request).await?,
            Connection::New => client.open_apart(OPERATION, request).await?,
        };
        let (mut body, mut newest, mut unread) = (answer.into_body(), None, Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| client.broken(site, as_io(error)))?;
            let Ok(data) = frame.into_data() else { continue };
            unread.extend_from_slice(&data);
            let mut values = Values::<Event<'_>>::of(&unread);
            for framed in values.by_ref() {
                if let Framed::Value(event) = framed
                    && let Some(token) = event.token()
                {
                    each(&token);
                    newest = Some(token);
                }
            }
            let used = values.read();
            unread.drain(..used);
            if unread.len() > LONGEST {
                return Err(site.error(ErrorKind::Protocol, "a message is longer than 8 MiB"));
            }
        }
        Ok(History { newest })
    };
    match client.within(site, connection.limit(client), read).await {
        Ok(history) => Ok(Some(history)),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            tracing::warn!(backend = %client.id(), %error, "the log of events could not be read to its end in time");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Containers, networks (an address changes with a network's message alone), and Podman as a whole.
fn request(since: Duration) -> Request {
    Request::get("/events")
        .with_query("filters", r#"{"type":["container","network","system"]}"#)
        .with_query("since", stamp(since))
}

/// The time in the form of which Podman loses no nanosecond: a number would become a float.
fn stamp(at: Duration) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at.subsec_nanos()).unwrap_or(0);
    Timestamp::new(seconds, nanos).unwrap_or(Timestamp::MAX).to_string()
}

/// The time in a token; `None`: it is another source's.
pub(crate) fn time_of(token: &ResumeToken) -> Option<Duration> {
    let (time, _) = token.as_str().split_once(' ')?;
    let (seconds, nanos) = time.split_once('.')?;
    if nanos.len() != 9 || !nanos.bytes().chain(seconds.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_derived_from_a_token_of_this_source_only_and_keeps_every_nanosecond() {
        let stamped = |token: &str| time_of(&ResumeToken::from(token)).map(stamp);
        assert_eq!(
            stamped("1796052116.552073644 create acd5d78c938f").as_deref(),
            Some("2026-11-30T15:21:56.552073644Z")
        );
        assert_eq!(stamped("0.000000001 died x").as_deref(), Some("1970-01-01T00:00:00.000000001Z"));
        for foreign in ["", "42", "s=1;i=2", "1796052116 start x", "1796052116.1 start x", "+1.000000000 a b"] {
            assert_eq!(stamped(foreign), None, "{foreign}");
        }
    }
}
