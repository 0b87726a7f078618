//! Wait for the end of a life, and say how it ended only where the daemon said so of that very life.
//!
//! The daemon's answer to a wait is a number alone: 0 also for what never ran, -1 when it is itself going down, and with a
//! restart policy the next life may have begun when the number arrives. So the wait is opened first, then the container is
//! looked at, and what counts is the description, as long as it is still of the same life.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, body::Incoming, client::conn::http1};
use runtide_core::{Error, ErrorKind, ExitStatus, Result};
use serde::Deserialize;
use tokio::time::Instant;

use super::container::{Call, Container, exit_of};
use crate::transport::as_io;

/// How long a daemon may be away before waiting for it to come back is given up. A restart of it takes seconds; without
/// live-restore it first stops what survived, 10 seconds each.
const TIMEOUT: Duration = Duration::from_secs(120);
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Longer than any answer to a wait.
const ANSWER: usize = 64 * 1024;

pub(super) async fn wait(call: Call<'_>) -> Result<Option<ExitStatus>> {
    let first = call.look().await?;
    let Some(life) = first.state.life().map(str::to_owned) else {
        let message = "it never ran";
        return Err(call.error(ErrorKind::Conflict, message).with_context("state", &first.state.status));
    };
    if !first.state.is_alive() {
        return Ok(first.state.exit());
    }
    let mut away_since = None;
    let mut pause = RETRY_AFTER.0;
    loop {
        let error = match end_of(call, &life).await {
            Ok(exit) => return Ok(exit),
            Err(Lost::Place) => {
                away_since = None;
                pause = RETRY_AFTER.0;
                None
            }
            Err(Lost::Daemon(error)) => Some(error),
            Err(Lost::For(error)) => return Err(error),
        };
        let since = *away_since.get_or_insert_with(Instant::now);
        if let Some(error) = error.filter(|_| since.elapsed() >= TIMEOUT) {
            return Err(error);
        }
        tracing::debug!(backend = %call.client.id(), instance = call.id, "the wait broke off; it is opened again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AFTER.1);
    }
}

/// Why a wait came back without an end.
enum Lost {
    /// The daemon answers, the life goes on, only this wait broke.
    Place,
    /// The daemon does not answer; it may again.
    Daemon(Error),
    /// No use in trying again.
    For(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => Self::Daemon(error),
            _ => Self::For(error),
        }
    }
}

/// What a look says of a life.
enum Seen {
    /// It goes on.
    Alive,
    /// It is over, or another one has begun: then its end is not in the description any more.
    Over(Option<ExitStatus>),
    /// The container is gone.
    Gone(Error),
}

async fn end_of(call: Call<'_>, life: &str) -> Result<Option<ExitStatus>, Lost> {
    let answer = match call.bounded(open(call)).await.map_err(Lost::from) {
        Ok(answer) => Some(answer),
        Err(Lost::Daemon(_)) => None,
        Err(lost) => return Err(lost),
    };
    // Open: from here on an end of the life that the look finds alive is answered.
    let answer = match (see(call, life).await?, answer) {
        (Seen::Alive, Some(answer)) => answer,
        (Seen::Alive, None) => return Err(Lost::Place),
        (Seen::Over(exit), _) => return Ok(exit),
        (Seen::Gone(gone), None) => return Err(Lost::For(gone)),
        (Seen::Gone(gone), Some(answer)) => {
            let told = tokio::time::timeout(call.client.deadline(), told(answer)).await.ok().flatten();
            return told.map(Some).ok_or(Lost::For(gone));
        }
    };
    let told = told(answer);
    tokio::pin!(told);
    let told = loop {
        tokio::select! {
            told = &mut told => break told,
            // A link that is dead at the other end never says anything: ask on another one.
            () = tokio::time::sleep(call.client.config().max_silence) => match see(call, life).await? {
                Seen::Alive => {}
                Seen::Over(exit) => return Ok(exit),
                Seen::Gone(gone) => return Err(Lost::For(gone)),
            },
        }
    };
    match (see(call, life).await, told) {
        (Ok(Seen::Over(Some(exit))), _) => Ok(Some(exit)),
        (Ok(Seen::Over(None)), told) => Ok(told),
        (Ok(Seen::Gone(_)) | Err(Lost::Daemon(_)), Some(told)) => Ok(Some(told)),
        (Ok(Seen::Gone(gone)), None) => Err(Lost::For(gone)),
        (Ok(Seen::Alive), _) => Err(Lost::Place),
        (Err(lost), _) => Err(lost),
    }
}

async fn see(call: Call<'_>, life: &str) -> Result<Seen, Lost> {
    match call.look().await {
        Ok(Container { state, .. }) if state.life() != Some(life) => Ok(Seen::Over(None)),
        Ok(Container { state, .. }) if state.is_alive() => Ok(Seen::Alive),
        Ok(Container { state, .. }) => Ok(Seen::Over(state.exit())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Seen::Gone(error)),
        Err(error) => Err(error.into()),
    }
}

/// A wait that the daemon has taken note of: it sends the head of its answer at once, and the body at the end. On a
/// connection of its own, since it may last for weeks.
async fn open(call: Call<'_>) -> Result<Incoming> {
    let place = call.client.place(call.operation);
    let opened = async {
        let path = call.client.versioned(&format!("/containers/{}/wait?condition=not-running", call.id)).await?;
        let mut request = call.client.request(place, &path, Empty::<Bytes>::new())?;
        *request.method_mut() = Method::POST;
        let link = call.client.connector().connect().await.map_err(|error| call.client.broken(place, error))?;
        let broken = |error| call.client.broken(place, as_io(error));
        let (mut sender, connection) = http1::handshake(link).await.map_err(broken)?;
        // Ends with the answer, or with its being dropped.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        call.client.succeeded(place, response).await
    };
    Ok(opened.await?.into_body())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    status_code: i64,
}

/// What the daemon answered in the end, if it was an answer. Never fails: what breaks is looked into by the caller.
async fn told(answer: Incoming) -> Option<ExitStatus> {
    let body = Limited::new(answer, ANSWER).collect().await.ok()?.to_bytes();
    exit_in(&body)
}

fn exit_in(body: &[u8]) -> Option<ExitStatus> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    // -1 stands for "nobody knows" with Docker and Podman alike.
    exit_of(answer.status_code).filter(|_| answer.status_code >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_gives_no_exit() {
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
