//! Wait for the end of a run. An exit status is returned only if Podman reported it of that very run.
//!
//! Podman's own wait answers 0 also where it failed, and holds back the head of its answer until the end (trap P6). So the messages of
//! the container's ends are subscribed to first, from the run's start on, and then the container is inspected: the first `died` after
//! the start is that of this run, also if the container is gone by then.

use std::time::Duration;

use runtide_core::{Error, ErrorKind, ExitStatus, Result};
use runtide_engine::Absence;

use super::container::{Call, Container};
use crate::{
    client::EventLogger,
    ends::{self, End, Ends},
};

/// Interval of the inspections where no event is reported.
const POLL: Duration = Duration::from_millis(250);

/// Time for which journald may hold a message that Podman gave it. Podman writes to a file before an inspection shows the end.
pub(super) const JOURNALED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn wait(call: Call<'_>) -> Result<Option<ExitStatus>> {
    let first = call.inspect().await?;
    if first.state.incarnation().is_none() {
        let message = "the container never ran";
        return Err(call.error(ErrorKind::Conflict, message).with_context("state", &first.state.status));
    }
    end_of_run(call.of(&first), &first).await
}

/// The end of the run that this inspection shows; `Cancelled` once the backend is closed.
pub(super) async fn end_of_run(call: Call<'_>, first: &Container) -> Result<Option<ExitStatus>> {
    tokio::select! {
        biased;
        ended = end_with_retries(call, first) => ended,
        () = call.client.closed() => {
            let closed = call.client.check_open(call.operation);
            Err(closed.err().unwrap_or_else(|| call.error(ErrorKind::Cancelled, "the backend was closed")))
        }
    }
}

async fn end_with_retries(call: Call<'_>, first: &Container) -> Result<Option<ExitStatus>> {
    if !first.state.is_alive()
        && let Some(exit) = first.state.exit()
    {
        return Ok(Some(exit));
    }
    let mut absence = Absence::default();
    loop {
        let error = match end_of(call, first, &mut absence).await {
            Ok(exit) => return Ok(exit),
            Err(Lost::Link) => None,
            Err(Lost::Service(error)) => Some(error),
            Err(Lost::Final(error)) => return Err(error),
        };
        tracing::debug!(backend = %call.client.id(), instance = call.id, ?error, "the wait broke off: opening it again");
        absence.pause(error).await?;
    }
}

/// The reason why a wait returned without an end.
enum Lost {
    /// The service answers and the run goes on; only this wait's response ended.
    Link,
    /// The service does not answer; another attempt may succeed.
    Service(Error),
    /// Another attempt cannot succeed.
    Final(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => Self::Service(error),
            _ => Self::Final(error),
        }
    }
}

/// The state of one run, by an inspection.
enum Seen {
    /// The run goes on.
    Alive,
    /// The run is over; `None`: the next one has begun, or is about to.
    Over(Option<ExitStatus>),
    /// The container does not exist any more.
    Gone(Error),
}

async fn end_of(call: Call<'_>, first: &Container, absence: &mut Absence) -> Result<Option<ExitStatus>, Lost> {
    let logger = call.client.logger().await.map_err(|error| Lost::from(call.located(error)))?;
    let mut ends = match first.began().filter(|_| logger != EventLogger::None) {
        Some(begin) => Some(
            Ends::open(call.client, call.operation, &first.id, begin)
                .await
                .map_err(|error| Lost::from(call.located(error)))?,
        ),
        None => None,
    };
    let interval = if ends.is_some() { call.client.config().max_silence } else { POLL };
    loop {
        match observe(call, first, absence).await? {
            Seen::Alive => {}
            Seen::Over(Some(exit)) => return Ok(Some(exit)),
            seen @ (Seen::Over(None) | Seen::Gone(_)) => {
                let reported = match &mut ends {
                    Some(ends) => reported(call, first, &logger, ends).await?,
                    None => None,
                };
                return match (reported, seen) {
                    (Some(end), _) => Ok(end.exit),
                    (None, Seen::Gone(gone)) => Err(Lost::Final(gone)),
                    (None, _) => Ok(None),
                };
            }
        }
        let Some(ends) = &mut ends else {
            tokio::time::sleep(interval).await;
            continue;
        };
        let end = match tokio::time::timeout(interval, ends.next()).await {
            Ok(Ok(Some(end))) => end,
            Ok(Ok(None)) => return Err(Lost::Link),
            Ok(Err(error)) => return Err(call.located(error).into()),
            // A half-open connection stays silent: inspect on another one.
            Err(_) => continue,
        };
        // An inspection also knows if it ran out of memory.
        return match observe(call, first, absence).await {
            Ok(Seen::Over(Some(exit))) if end.exit.is_none_or(|reported| reported.end == exit.end) => Ok(Some(exit)),
            Ok(_) | Err(Lost::Service(_) | Lost::Link) => Ok(end.exit),
            Err(lost) => Err(lost),
        };
    }
}

/// The message of an end that an inspection has shown. An inspection may be the first to notice the end, and writes the message before
/// it answers: a log that lacks it then will not have it.
async fn reported(
    call: Call<'_>,
    first: &Container,
    logger: &EventLogger,
    subscription: &mut Ends,
) -> Result<Option<End>, Lost> {
    let Some(begin) = first.began() else { return Ok(None) };
    let ends = ends::logged(call.client, call.operation, &first.id, begin).await;
    match ends.map(|ends| ends.into_iter().next()) {
        Ok(Some(end)) => return Ok(Some(end)),
        Ok(None) if logger.is_journal() => {
            if let Ok(next) = tokio::time::timeout(JOURNALED_WITHIN, subscription.next()).await
                && let Some(end) = next.map_err(|error| Lost::from(call.located(error)))?
            {
                return Ok(Some(end));
            }
        }
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Timeout && is_answering(call).await => {
            tracing::warn!(%error, instance = call.id, "the log of events could not be read to its end in time");
        }
        Err(error) => return Err(call.located(error).into()),
    }
    tracing::info!(backend = %call.client.id(), instance = call.id, "the log has no end of this run: its exit is unknown");
    Ok(None)
}

/// The service answers: what did not come in time was slow by itself.
async fn is_answering(call: Call<'_>) -> bool {
    call.client.logger().await.is_ok()
}

async fn observe(call: Call<'_>, first: &Container, absence: &mut Absence) -> Result<Seen, Lost> {
    let seen = match call.inspect().await {
        Ok(Container { state, .. }) if state.incarnation() == first.state.incarnation() => {
            if state.is_alive() {
                Seen::Alive
            } else {
                Seen::Over(state.exit())
            }
        }
        Ok(_) => Seen::Over(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Seen::Gone(error),
        Err(error) => return Err(error.into()),
    };
    absence.is_over();
    Ok(seen)
}
