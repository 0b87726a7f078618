//! [`Ends`]: the ends of one container's runs, as the daemon's event history has them.
//!
//! An inspection has the end of the last run alone, and a failed start writes over its exit code. The messages are never written
//! over, as long as the history goes back to them.

use std::{collections::VecDeque, time::SystemTime};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtide_core::{ExitStatus, Result};
use runtide_engine::Request;
use tokio::time::{Duration, Instant};

use crate::{
    client::Client,
    frame::{Framed, Frames},
    normalize::{Action, Attributes},
    subscription::{nanoseconds, stamp},
};

/// Time for which the daemon's history is awaited: it is sent at once, and Docker ends the response behind it.
const HISTORY_COMES_WITHIN: Duration = Duration::from_secs(2);

/// Longer than the daemon takes to report an end: first it waits up to 2 s for the output, and deletes the task.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an unfinished message, at most.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// One end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Time of the message. All output of the run was logged before it, and none of the next run.
    pub(crate) at: SystemTime,
    /// The exit in the message; wrong for a container with a label of the same name (trap D16).
    pub(crate) exit: Option<ExitStatus>,
}

/// A response of `/events` with the `die` messages of one container.
#[derive(Debug)]
pub(crate) struct Ends {
    id: String,
    body: Incoming,
    buffer: Vec<u8>,
    read: VecDeque<End>,
}

impl Ends {
    /// Subscribes to the ends from `begin` to `until`, both by the daemon's clock: our clock may be ahead of it, so that the
    /// response does not end, or behind, so that the latest end is left out. Without `until` also to those that are still to come.
    pub(crate) async fn open(
        client: &Client,
        operation: &'static str,
        id: &str,
        begin: SystemTime,
        until: Option<SystemTime>,
    ) -> Result<Self> {
        let time = |at| nanoseconds(at).map_or_else(|| "1".to_owned(), |nanos| stamp(Duration::from_nanos(nanos)));
        let until = until.map_or_else(String::new, |until| format!("&until={}", time(until)));
        let path = format!(
            "/events?since={}{until}&filters=%7B%22container%22%3A%5B%22{id}%22%5D%2C%22event%22%3A%5B%22die%22%2C%22died%22%5D%7D",
            time(begin),
        );
        let response = client.open(operation, Request::get(path)).await?;
        Ok(Self { id: id.to_owned(), body: response.into_body(), buffer: Vec::new(), read: VecDeque::new() })
    }

    /// The next end; `None`: the response ended or broke off.
    ///
    /// # Cancel safety
    /// A dropped future loses no message.
    pub(crate) async fn next(&mut self) -> Option<End> {
        loop {
            if let Some(end) = self.read.pop_front() {
                return Some(end);
            }
            let chunk = self.body.frame().await?.ok()?;
            let Ok(bytes) = chunk.into_data() else { continue };
            if self.buffer.len().saturating_add(bytes.len()) > MAX_MESSAGE {
                return None;
            }
            self.buffer.extend_from_slice(&bytes);
            let mut frames = Frames::of(&self.buffer);
            for framed in frames.by_ref() {
                if let Framed::Event(event) = framed
                    && event.is_container()
                    && event.action() == Action::Die
                    && event.container() == Some(&self.id)
                    && let Some(at) = event.at()
                {
                    let code = event.attributes().and_then(Attributes::exit_code);
                    self.read.push_back(End { at, exit: code.map(ExitStatus::code) });
                }
            }
            let used = frames.read();
            self.buffer.drain(..used);
        }
    }
}

/// Time by which the daemon has reported the end of a run that finished at this one; both by its clock.
pub(crate) fn reported_by(finished: SystemTime) -> Option<SystemTime> {
    finished.checked_add(REPORTED_WITHIN)
}

/// The end of the run that began at `begin` and was reported by `until`, if the history still has it. A history that cannot be had
/// says nothing, so every failure is `None`.
pub(crate) async fn of_run(
    client: &Client,
    operation: &'static str,
    id: &str,
    begin: SystemTime,
    until: Option<SystemTime>,
) -> Option<End> {
    let asked = async {
        let mut ends = Ends::open(client, operation, id, begin, until).await.ok()?;
        loop {
            let end = ends.next().await?;
            if end.at >= begin {
                return Some(end);
            }
        }
    };
    tokio::time::timeout_at(Instant::now() + HISTORY_COMES_WITHIN, asked).await.ok().flatten()
}
