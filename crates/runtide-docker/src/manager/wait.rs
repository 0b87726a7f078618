//! Wait for the end of a run. An exit status is returned only if the daemon reported it of that very run.
//!
//! The daemon's answer to a wait is a number alone: 0 also for a container that never ran, -1 when the daemon itself is going
//! down, with a restart policy the next run may have begun when the number arrives, and a start that failed since has written
//! its own number over the exit. So the wait is opened first, then the container is inspected, and the inspection decides, as
//! long as it is still of the same incarnation and no start failed; else the daemon's history of events does.

use std::pin::Pin;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use runtide_core::{Error, ErrorKind, ExitStatus, Result};
use runtide_engine::{Absence, Request};
use serde::Deserialize;

use super::container::{Call, Container, exit_of};

/// Bytes of an answer, at most; longer than any that a daemon sends.
const ANSWER: usize = 64 * 1024;

pub(super) async fn wait(call: Call<'_>) -> Result<Option<ExitStatus>> {
    let first = call.inspect().await?;
    let Some(incarnation) = first.state.incarnation().map(str::to_owned) else {
        let message = "the container never ran";
        return Err(call.error(ErrorKind::Conflict, message).with_context("state", &first.state.status));
    };
    let call = call.of(&first);
    if !first.state.is_alive() {
        return Ok(call.exit_of(&first, &incarnation).await);
    }
    over(call, &incarnation, None).await
}

/// Waits for the end of this run. `opened` is a wait that was opened for it already.
pub(super) async fn over(call: Call<'_>, incarnation: &str, mut opened: Option<Opened>) -> Result<Option<ExitStatus>> {
    let mut absence = Absence::default();
    loop {
        let error = match end_of(call, incarnation, opened.take(), &mut absence).await {
            Ok(exit) => return Ok(exit),
            Err(Lost::Link) => None,
            Err(Lost::Daemon(error)) => Some(error),
            Err(Lost::Final(error)) => return Err(error),
        };
        tracing::debug!(backend = %call.client.id(), instance = call.id, ?error, "the wait broke off: opening it again");
        absence.pause(error).await?;
    }
}

/// The reason why a wait returned without an end.
enum Lost {
    /// The daemon answers and the run goes on; only this wait's connection broke.
    Link,
    /// The daemon does not answer; another attempt may succeed.
    Daemon(Error),
    /// Another attempt cannot succeed.
    Final(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => Self::Daemon(error),
            _ => Self::Final(error),
        }
    }
}

/// The state of one run, by an inspection.
enum Seen {
    /// The run goes on.
    Alive,
    /// The run is over; `None` also if the next one has begun and the history has lost the end.
    Over(Option<ExitStatus>),
    /// The container does not exist any more.
    Gone(Error),
}

async fn end_of(
    call: Call<'_>,
    incarnation: &str,
    opened: Option<Opened>,
    absence: &mut Absence,
) -> Result<Option<ExitStatus>, Lost> {
    let answer = match opened {
        Some(opened) => Some(opened),
        None => match call.bounded(open(call, "not-running")).await.map_err(Lost::from) {
            Ok(opened) => Some(opened),
            Err(Lost::Daemon(_)) => None,
            Err(lost) => return Err(lost),
        },
    };
    // The wait is open: if the inspection finds the run alive, the daemon answers its end.
    let mut answer = match (observe(call, incarnation, absence).await?, answer) {
        (Seen::Alive, Some(answer)) => answer,
        (Seen::Alive, None) => return Err(Lost::Link),
        (Seen::Over(exit), _) => return Ok(exit),
        (Seen::Gone(gone), None) => return Err(Lost::Final(gone)),
        (Seen::Gone(gone), Some(mut answer)) => {
            let exit = tokio::time::timeout(call.client.deadline(), answer.exit()).await.ok().flatten();
            return exit.map(Some).ok_or(Lost::Final(gone));
        }
    };
    let answered = loop {
        tokio::select! {
            exit = answer.exit() => break exit,
            // A half-open connection stays silent: inspect on another one.
            () = tokio::time::sleep(call.client.config().max_silence) => match observe(call, incarnation, absence).await? {
                Seen::Alive => {}
                Seen::Over(exit) => return Ok(exit),
                Seen::Gone(gone) => return Err(Lost::Final(gone)),
            },
        }
    };
    match (observe(call, incarnation, absence).await, answered) {
        (Ok(Seen::Over(Some(exit))), _) | (Ok(Seen::Gone(_)) | Err(Lost::Daemon(_)), Some(exit)) => Ok(Some(exit)),
        (Ok(Seen::Over(None)), answered) => Ok(answered),
        (Ok(Seen::Gone(gone)), None) => Err(Lost::Final(gone)),
        (Ok(Seen::Alive), _) => Err(Lost::Link),
        (Err(lost), _) => Err(lost),
    }
}

async fn observe(call: Call<'_>, incarnation: &str, absence: &mut Absence) -> Result<Seen, Lost> {
    let seen = match call.inspect().await {
        Ok(Container { state, .. }) if state.incarnation() == Some(incarnation) && state.is_alive() => Seen::Alive,
        Ok(container) => Seen::Over(call.exit_of(&container, incarnation).await),
        Err(error) if error.kind() == ErrorKind::NotFound => Seen::Gone(error),
        Err(error) => return Err(error.into()),
    };
    absence.is_over();
    Ok(seen)
}

/// Opens a wait. The daemon registers it before it sends the head of its answer; the body follows at the end of the run. It
/// has its own connection, since it may last for weeks.
pub(super) async fn open(call: Call<'_>, condition: &str) -> Result<Opened> {
    let request = Request::post(format!("/containers/{}/wait", call.id)).with_query("condition", condition);
    let answer = Box::pin(call.client.open_apart(call.operation, request)).await;
    answer.map(|answer| Opened::new(answer.into_body())).map_err(|error| call.located(error))
}

/// A wait that the daemon has registered.
pub(super) struct Opened {
    /// `None`: it came.
    answer: Option<Pin<Box<dyn Future<Output = Option<ExitStatus>> + Send>>>,
}

impl Opened {
    fn new(body: Incoming) -> Self {
        let answer = async move {
            let body = Limited::new(body, ANSWER).collect().await.ok()?.to_bytes();
            exit_in(&body)
        };
        Self { answer: Some(Box::pin(answer)) }
    }

    /// The exit status in the answer. `None`: the answer broke off or has no status (the caller inspects then), or it came already.
    ///
    /// # Cancel safety
    /// Sound: another call goes on.
    pub(super) async fn exit(&mut self) -> Option<ExitStatus> {
        let exit = self.answer.as_mut()?.await;
        self.answer = None;
        exit
    }

    /// The exit status, if the answer with it is there already.
    pub(super) fn exit_by_now(&mut self) -> Option<ExitStatus> {
        self.exit().now_or_never().flatten()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    status_code: i64,
}

fn exit_in(body: &[u8]) -> Option<ExitStatus> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    // -1 means "unknown" in Docker and in Podman.
    exit_of(answer.status_code).filter(|_| answer.status_code >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_status_gives_no_exit() {
        assert_eq!(exit_in(br#"{"Error":null,"StatusCode":3}"#), Some(ExitStatus::code(3)));
        assert_eq!(exit_in(br#"{"StatusCode":137,"Error":{"Message":"x"}}"#), Some(ExitStatus::code(137)));
        for body in
            [&b""[..], b"{}", br#"{"StatusCode":-1,"Error":{"Message":"context canceled"}}"#, br#"{"StatusCode":"#]
        {
            assert_eq!(exit_in(body), None);
        }
        assert_eq!(exit_in(br#"{"StatusCode":99999999999}"#), None);
    }
}
