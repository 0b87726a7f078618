//! [`LogResponse`]: the body of one log request, as pieces and an end.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use runtide_core::{Error, ErrorKind, Result};
use runtide_engine::{
    Request, as_io, http_date,
    output::{Decoder, Malformed, Origin, Piece},
};
use tokio::time::Instant;

use super::plan::{OPERATION, Plan, unreadable};
use crate::manager::container::Call;

/// Added to `until`: the daemon's clock is known to a second, and its log may lag a little.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// The response to one log request. It buffers no more than one unfinished piece.
#[derive(Debug)]
pub(super) struct LogResponse {
    body: Incoming,
    decoder: Decoder,
    follow: bool,
    /// The moment after which no entry before `until` can arrive; `None`: the response is not followed, or has no `until`.
    ends_at: Option<Instant>,
    /// The body is over; what the decoder holds comes out before the end.
    over: bool,
    /// The error with which the body broke off.
    broken: Option<Error>,
}

impl LogResponse {
    pub(super) async fn new(call: Call<'_>, plan: &Plan, follow: bool, tail: Option<u64>) -> Result<Self> {
        Self::since(call, plan, follow, tail, plan.since).await
    }

    /// As [`new`](Self::new), from another time on than the plan's.
    pub(super) async fn since(
        call: Call<'_>,
        plan: &Plan,
        follow: bool,
        tail: Option<u64>,
        since: Option<SystemTime>,
    ) -> Result<Self> {
        let request = Request::get(plan.path(call.id, follow, tail, since));
        let response = call.client.open(OPERATION, request).await.map_err(|error| {
            match error.kind() {
                // Docker's versions differ in the status that they send for an unreadable driver.
                ErrorKind::Unsupported | ErrorKind::Unexpected if !is_always_readable(&plan.driver) => {
                    unreadable(call, error.message()).with_context("log_driver", &plan.driver)
                }
                _ => call.located(error),
            }
        })?;
        let ends_at = plan.until.filter(|_| follow).and_then(|until| ends_at(&response, until));
        Ok(Self { body: response.into_body(), decoder: plan.decoder(), follow, ends_at, over: false, broken: None })
    }

    /// The next piece, or the end. A body that broke off is an error, never an end.
    pub(super) async fn next(&mut self, call: Call<'_>) -> Result<Next> {
        loop {
            match self.decoder.next() {
                Ok(Some(piece)) if piece.origin == Origin::Daemon => {
                    let text = String::from_utf8_lossy(&piece.bytes);
                    return Err(call
                        .error(ErrorKind::Unexpected, format!("the daemon stopped reading the log: {}", text.trim())));
                }
                Ok(Some(piece)) => return Ok(Next::Piece(piece)),
                Ok(None) => {}
                // A body that broke off has the better reason.
                Err(malformed) => return Err(self.broken.take().unwrap_or_else(|| broken_frame(call, &malformed))),
            }
            if self.over {
                return match self.broken.take() {
                    Some(error) => Err(error),
                    None if self.is_about_until() => Ok(Next::End(End::PastUntil)),
                    None => Ok(Next::End(End::Whole)),
                };
            }
            match self.chunk(call).await {
                Ok(Chunk::Data(bytes)) => {
                    self.decoder.push(bytes);
                    continue;
                }
                Ok(Chunk::PastUntil) => return Ok(Next::End(End::PastUntil)),
                Ok(Chunk::End) => {}
                // A follow goes on from its last entry, and reads the one at hand again.
                Err(error) if self.follow => return Err(error),
                Err(error) => self.broken = Some(error),
            }
            self.over = true;
            self.decoder.end();
        }
    }

    /// The daemon itself ends a followed response at the first entry after `until`.
    fn is_about_until(&self) -> bool {
        self.ends_at.is_some_and(|end| Instant::now() + 2 * CLOCK_MARGIN >= end)
    }

    async fn chunk(&mut self, call: Call<'_>) -> Result<Chunk> {
        tokio::select! {
            chunk = self.received(call) => chunk,
            () = call.client.closed() => Err(call.located(call.client.site(OPERATION).closed())),
        }
    }

    async fn received(&mut self, call: Call<'_>) -> Result<Chunk> {
        let max_silence = call.client.config().max_silence;
        loop {
            let frame = match (self.follow, self.ends_at) {
                // A silent connection may be dead: the log is then requested again.
                (true, None) => match tokio::time::timeout(max_silence, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(call.error(ErrorKind::Unavailable, "the output was silent for long")),
                },
                (true, Some(end)) => match tokio::time::timeout_at(end, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(Chunk::PastUntil),
                },
                // Stored entries may arrive slowly, but silence for the whole deadline is a stall.
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

/// One step of a response.
pub(super) enum Next {
    Piece(Piece),
    End(End),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The daemon sent every entry.
    Whole,
    /// Every later entry is past `until`.
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

/// Drivers whose output every version of the daemon reads back.
fn is_always_readable(driver: &str) -> bool {
    matches!(driver, "json-file" | "local" | "journald")
}

/// The moment of `until` by the daemon's clock, which is in the response's `Date` header.
fn ends_at(response: &Response<Incoming>, until: SystemTime) -> Option<Instant> {
    let now = http_date(response.headers()).unwrap_or_else(SystemTime::now);
    let left = until.duration_since(now).unwrap_or_default();
    Instant::now().checked_add(left.saturating_add(CLOCK_MARGIN))
}
