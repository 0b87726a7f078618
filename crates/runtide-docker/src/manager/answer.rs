//! One answer of the daemon's to a request for output: pieces, and how they end.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, header};
use runtide_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::{
    container::Call,
    frames::{Decoder, Malformed, Origin, Piece},
    log::{OPERATION, Plan, unreadable},
};
use crate::transport::as_io;

/// The daemon's clock is known to a second, and its log may lag a little.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// One answer of the daemon's.
#[derive(Debug)]
pub(super) struct Answer {
    body: Incoming,
    decoder: Decoder,
    follow: bool,
    /// When nothing before `until` can come any more.
    ends_at: Option<Instant>,
    /// The stream is over: what remains to be said of it.
    end: Option<Result<End>>,
}

impl Answer {
    pub(super) async fn new(call: Call<'_>, plan: &Plan, follow: bool, tail: Option<u64>) -> Result<Self> {
        let response = call.client.stream(OPERATION, &plan.path(call.id, follow, tail)).await.map_err(|error| {
            match error.kind() {
                // Which of the two it is differs between versions.
                ErrorKind::Unsupported | ErrorKind::Unexpected if !is_always_readable(&plan.driver) => {
                    unreadable(call, error.message()).with_context("log_driver", &plan.driver)
                }
                _ => call.located(error),
            }
        })?;
        let ends_at = plan.until.filter(|_| follow).and_then(|until| ends_at(&response, until));
        Ok(Self { body: response.into_body(), decoder: plan.decoder(), follow, ends_at, end: None })
    }

    /// The next piece, or how it ended; an error unless the end was a good one.
    pub(super) async fn next(&mut self, call: Call<'_>) -> Result<Next> {
        loop {
            if let Some(end) = self.end.take() {
                return end.map(Next::End);
            }
            match self.decoder.next() {
                Ok(Some(piece)) if piece.origin == Origin::Daemon => {
                    let text = String::from_utf8_lossy(&piece.bytes);
                    return Err(
                        call.error(ErrorKind::Unexpected, format!("the daemon cannot read on: {}", text.trim()))
                    );
                }
                Ok(Some(piece)) => return Ok(Next::Piece(piece)),
                Ok(None) => {}
                Err(malformed) => return Err(broken_frame(call, &malformed)),
            }
            let end = match self.chunk(call).await {
                Ok(Chunk::Data(bytes)) => {
                    self.decoder.push(bytes);
                    continue;
                }
                Ok(Chunk::PastUntil) => return Ok(Next::End(End::PastUntil)),
                Ok(Chunk::End) => Ok(()),
                Err(error) => Err(error),
            };
            let decoder = std::mem::replace(&mut self.decoder, Decoder::framed());
            let (held, whole) = decoder.finish();
            self.end = Some(end.and_then(|()| match whole {
                Ok(()) if self.is_about_until() => Ok(End::PastUntil),
                Ok(()) => Ok(End::Whole),
                Err(malformed) => Err(broken_frame(call, &malformed)),
            }));
            if let Some(held) = held {
                return Ok(Next::Piece(held));
            }
        }
    }

    /// The daemon itself ends what is followed when it meets a later entry.
    fn is_about_until(&self) -> bool {
        self.ends_at.is_some_and(|end| Instant::now() + 2 * CLOCK_MARGIN >= end)
    }

    async fn chunk(&mut self, call: Call<'_>) -> Result<Chunk> {
        loop {
            let frame = match (self.follow, self.ends_at) {
                (true, None) => self.body.frame().await,
                (true, Some(end)) => match tokio::time::timeout_at(end, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(Chunk::PastUntil),
                },
                // What is there comes at the daemon's speed; that it does not come at all is a stall.
                (false, _) => match tokio::time::timeout(call.client.deadline(), self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(call.error(ErrorKind::Timeout, "the daemon stopped sending")),
                },
            };
            match frame {
                None => return Ok(Chunk::End),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Chunk::Data(bytes));
                    }
                }
                Some(Err(error)) => {
                    return Err(call
                        .error(ErrorKind::Unavailable, "the output broke off: this is not its end")
                        .with_source(as_io(error)));
                }
            }
        }
    }
}

/// What comes out of an answer.
pub(super) enum Next {
    Piece(Piece),
    End(End),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The daemon sent all that there is.
    Whole,
    /// What comes later was not asked for.
    PastUntil,
}

enum Chunk {
    Data(Bytes),
    End,
    PastUntil,
}

fn broken_frame(call: Call<'_>, malformed: &Malformed) -> Error {
    match malformed {
        Malformed::Truncated => call.error(ErrorKind::Unavailable, "the output broke off inside an entry"),
        Malformed::Head(head) => call
            .error(ErrorKind::Protocol, "the output is not framed as it should be")
            .with_context("head", head.escape_ascii()),
    }
}

/// Their output is read back by the daemon itself, in every version.
fn is_always_readable(driver: &str) -> bool {
    matches!(driver, "json-file" | "local" | "journald")
}

/// When it is `until` by the daemon's clock, which the head of its answer shows.
fn ends_at(response: &Response<Incoming>, until: SystemTime) -> Option<Instant> {
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| SystemTime::from(date.timestamp()));
    let left = until.duration_since(now.unwrap_or_else(SystemTime::now)).unwrap_or_default();
    Instant::now().checked_add(left.saturating_add(CLOCK_MARGIN))
}
