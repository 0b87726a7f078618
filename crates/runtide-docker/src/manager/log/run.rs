//! The bounds of one run in a log that holds the output of all runs.
//!
//! The daemon writes no mark between two runs, and the next one may begin while the end of the last one is still read. Its `die`
//! message separates them: the log is closed before the message, and opened again after it. `StartedAt` does not: the daemon takes
//! it when the program already runs, and may have logged its first lines by then.

use std::time::{Duration, SystemTime};

use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    task::JoinSet,
};

use super::plan::OPERATION;
use crate::{
    client::Client,
    ends::{self, Ends},
    manager::container::{Call, Container},
    normalize::time,
};

/// Time for which the messages are awaited. The daemon sends them at once.
const MESSAGES_COME_WITHIN: Duration = Duration::from_secs(2);

/// Shorter than the daemon takes from one run to the next: it makes a new process in between.
const BETWEEN_RUNS: Duration = Duration::from_millis(10);

/// Longest time by which the first lines of a run are taken to be older than its `StartedAt`, if no message says when the run
/// before it ended.
const BEFORE_START: Duration = Duration::from_millis(100);

/// The run that is followed, and its end as soon as the daemon reports it.
#[derive(Debug)]
pub(super) struct FollowedRun {
    client: Client,
    container: String,
    begin: SystemTime,
    /// Its end, as soon as the task has read the message; `None`: no message can come.
    message: Option<oneshot::Receiver<SystemTime>>,
    /// Reads the messages, also while no entry is read. It ends with the follow.
    _reading: JoinSet<()>,
    end: Option<SystemTime>,
    /// Time of the latest entry.
    latest: Option<SystemTime>,
}

impl FollowedRun {
    /// `None`: the incarnation is no time, so that the daemon is none of Docker's.
    pub(super) async fn open(call: Call<'_>, container: &str, incarnation: &str) -> Option<Self> {
        let begin = time(incarnation)?;
        let ends = Ends::open(call.client, OPERATION, container, begin, None);
        let ends = tokio::time::timeout(MESSAGES_COME_WITHIN, ends).await.ok().and_then(Result::ok);
        let (mut reading, mut message) = (JoinSet::new(), None);
        if let Some(mut ends) = ends {
            let (send, receive) = oneshot::channel();
            message = Some(receive);
            reading.spawn(async move {
                while let Some(end) = ends.next().await {
                    if end.at >= begin {
                        let _ = send.send(end.at);
                        return;
                    }
                }
            });
        }
        Some(Self {
            client: call.client.clone(),
            container: container.to_owned(),
            begin,
            message,
            _reading: reading,
            end: None,
            latest: None,
        })
    }

    /// True if the run was over before the entry of this time, which is the next run's then.
    pub(super) async fn is_over_before(&mut self, at: SystemTime) -> bool {
        if let Some(message) = &mut self.message {
            // The message left the daemon long before the next run's first entry; the task may still have to read it.
            if self.latest.is_none_or(|latest| at.duration_since(latest).is_ok_and(|gap| gap >= BETWEEN_RUNS)) {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
            self.latest = self.latest.max(Some(at));
            match message.try_recv() {
                Err(TryRecvError::Empty) => {}
                read => (self.end, self.message) = (read.ok(), None),
            }
        }
        self.end.is_some_and(|end| at > end)
    }

    /// Called when the run is known to be over: waits for its message. Without one the next run's start is the end, if it has
    /// begun.
    pub(super) async fn find_end(&mut self, container: &Container, incarnation: &str) {
        if self.end.is_some() {
            return;
        }
        if let Some(message) = self.message.take() {
            self.end = tokio::time::timeout(MESSAGES_COME_WITHIN, message).await.ok().and_then(Result::ok);
        }
        if self.end.is_none() {
            let until = container.state.end_reported_by(incarnation);
            let end = ends::of_run(&self.client, OPERATION, &self.container, self.begin, until).await;
            self.end = end.map(|end| end.at);
        }
        let next = container.state.incarnation().filter(|next| *next != incarnation).and_then(time);
        self.end = self.end.or(next);
    }
}

/// The `since` that reads a run from its first line, if the caller's `since` is its start; else the caller's own.
pub(super) async fn since(call: Call<'_>, container: &Container, since: Option<SystemTime>) -> Option<SystemTime> {
    let started = container.state.incarnation().and_then(time);
    let Some(started) = started.filter(|started| since == Some(*started)) else { return since };
    // Not every daemon ends its response: each message that was read by then counts.
    let mut before: Option<SystemTime> = None;
    let read = async {
        let (first, until) = (SystemTime::UNIX_EPOCH, Some(started));
        let Ok(mut ends) = Ends::open(call.client, OPERATION, &container.id, first, until).await else { return };
        while let Some(end) = ends.next().await
            && end.at < started
        {
            before = before.max(Some(end.at));
        }
    };
    let _ = tokio::time::timeout(MESSAGES_COME_WITHIN, read).await;
    let exact = before.and_then(|end| end.checked_add(Duration::from_nanos(1)));
    exact.or_else(|| first_line(container, started)).or(since)
}

/// The earliest time that the first line of the run may have, by the inspection alone: not before the end of the last run, or the
/// container's creation.
fn first_line(container: &Container, started: SystemTime) -> Option<SystemTime> {
    let earlier = |text: &str| time(text).filter(|at| *at < started);
    // All of the output is of this run.
    if container.state.is_first_run() {
        return earlier(&container.created);
    }
    let floor = earlier(container.state.finished_at()).or_else(|| earlier(&container.created))?;
    let half = started.duration_since(floor).unwrap_or_default() / 2;
    started.checked_sub(half.min(BEFORE_START))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_messages_a_run_begins_shortly_before_its_start_and_after_the_last_one() {
        let first = |is_running: bool, finished: &str| {
            let json = format!(
                r#"{{"Created":"2024-01-01T00:00:00Z","State":{{"Running":{is_running},"StartedAt":"2024-01-01T00:01:00Z","FinishedAt":"{finished}"}}}}"#
            );
            let container: Container = serde_json::from_str(&json).unwrap();
            let started = time("2024-01-01T00:01:00Z").unwrap();
            started.duration_since(first_line(&container, started).unwrap()).unwrap()
        };
        assert_eq!(first(true, "0001-01-01T00:00:00Z"), Duration::from_secs(60), "the first run: from the creation on");
        assert_eq!(first(false, "2024-01-01T00:02:00Z"), BEFORE_START, "it is over itself");
        assert_eq!(first(true, "2024-01-01T00:00:30Z"), BEFORE_START);
        assert_eq!(first(true, "2024-01-01T00:00:59.900Z"), Duration::from_millis(50), "half-way between the two");
    }
}
