//! [`Ends`]: the ends of one container's runs, as the service's log of events has them.
//!
//! The exit code of `died` is the only one that is never written over (trap P1): an inspection has that of the last run, 0 as soon
//! as the next one is made ready, and nothing once the container is removed.

use std::{
    collections::VecDeque,
    future::poll_fn,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use runtide_core::{ExitStatus, Result};
use runtide_engine::{Feed, Framed, Request, Values};

use crate::{
    client::{Client, Podman},
    normalize::{Action, Event},
};

/// Time for which the head of a stream is awaited. Some versions send it with the first message.
pub(crate) const HEAD: Duration = Duration::from_millis(500);

/// One end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Time of the message, after the end itself.
    pub(crate) at: SystemTime,
    /// The exit in the message.
    pub(crate) exit: Option<ExitStatus>,
}

/// A response of `/events` with the `died` messages of one container.
#[derive(Debug)]
pub(crate) struct Ends {
    id: String,
    feed: Feed<Podman>,
    read: VecDeque<End>,
}

impl Ends {
    /// Subscribes to the ends after `begin`, by the service's clock, also those that are still to come.
    pub(crate) async fn open(client: &Client, operation: &'static str, id: &str, begin: SystemTime) -> Result<Self> {
        let feed = Feed::open_patiently(client, operation, request(id, begin), HEAD.min(client.deadline())).await?;
        Ok(Self { id: id.to_owned(), feed, read: VecDeque::new() })
    }

    /// The next end; `None`: the response ended.
    ///
    /// # Errors
    /// `Unavailable` for a response that broke off; by its status for a refusal that came late.
    ///
    /// # Cancel safety
    /// A dropped future loses no message.
    pub(crate) async fn next(&mut self) -> Result<Option<End>> {
        loop {
            if let Some(end) = self.read.pop_front() {
                return Ok(Some(end));
            }
            if !poll_fn(|cx| self.feed.poll_more(cx)).await? {
                return Ok(None);
            }
            let used = ends_in(self.feed.unread(), &self.id, &mut self.read);
            self.feed.consume(used);
        }
    }
}

/// Appends the ends of this container in these bytes, and returns the number of bytes that were read.
fn ends_in(bytes: &[u8], id: &str, ends: &mut VecDeque<End>) -> usize {
    let mut values = Values::<Event<'_>>::of(bytes);
    for framed in values.by_ref() {
        if let Framed::Value(event) = framed
            && event.action() == Action::Died
            && event.container() == Some(id)
            && let Some(at) = event.at()
        {
            ends.push_back(End { at, exit: event.exit_code().map(ExitStatus::code) });
        }
    }
    values.read()
}

/// The ends of this container's runs after `begin`, by the service's clock.
fn request(id: &str, begin: SystemTime) -> Request {
    let filters = serde_json::json!({ "type": ["container"], "event": ["died"], "container": [id] });
    let since = Timestamp::try_from(begin).unwrap_or_default();
    Request::get("/events").with_query("filters", filters).with_query("since", since)
}

/// The ends after `begin` that are in the log now, in their order.
///
/// # Errors
/// As for any call; `Timeout` also where the log is too long to be read.
pub(crate) async fn logged(client: &Client, operation: &'static str, id: &str, begin: SystemTime) -> Result<Vec<End>> {
    let answer = client.call(operation, request(id, begin).with_query("stream", false), client.deadline()).await?;
    let mut ends = VecDeque::new();
    ends_in(&answer, id, &mut ends);
    Ok(ends.into())
}
