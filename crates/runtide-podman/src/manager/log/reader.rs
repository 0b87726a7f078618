//! [`Reader`]: requests the log, drops the lines that the options leave out, goes on behind the last line after an outage, and finds the
//! end of the run that is followed.

use std::time::{Duration, SystemTime};

use bytes::Buf;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtide_core::{Error, ErrorKind, InstanceId, Result, manager::LogLine};
use runtide_engine::{
    Outages, as_io,
    output::{Decoder, Malformed, Origin, Piece, timestamp},
};

use super::plan::{OPERATION, Plan};
use crate::{client::EventLogger, ends::Ends, manager::container::Call};

/// Pause before a follow is opened again that Podman ended though the run goes on: it does so at once while it is paused.
const AGAIN: Duration = Duration::from_millis(250);

/// Time after `until` for which lines from before it may still arrive.
const LATE: Duration = Duration::from_secs(1);

/// The lines of one container.
#[derive(Debug)]
pub(super) struct Reader {
    client: crate::client::Client,
    id: InstanceId,
    plan: Plan,
    response: Option<Response>,
    /// Reports the end of the run that is followed; `None`: nothing is followed, or nothing reports it.
    ends: Option<Ends>,
    /// Begin of the run that is followed.
    follows: Option<SystemTime>,
    /// Set once the run is over.
    rest: Option<Rest>,
    /// The connection broke: the log is to be requested again.
    is_broken: bool,
    outages: Outages,
    /// Lines before the tail that are still to be skipped.
    before_tail: u64,
    position: Position,
    /// Frames of the present response that were emitted by the one before.
    seen: u64,
    /// The frame at hand is one of those.
    is_skipped: bool,
    /// Bytes of the frame at hand that were emitted before the connection broke.
    skip: usize,
    at: Option<SystemTime>,
}

/// Second of the last frame, the number of frames in it, and the bytes of the last one. Podman's times are no more exact.
#[derive(Debug, Default, Clone, Copy)]
struct Position {
    second: Option<SystemTime>,
    frames: u64,
    bytes: usize,
}

/// The part of the log after the run's end was seen.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// `None`: to the log's end.
    until: Option<SystemTime>,
}

/// One answer to a request for the log.
#[derive(Debug)]
struct Response {
    body: Incoming,
    decoder: Decoder,
    is_followed: bool,
    /// The body is over; what the decoder holds comes out before the end.
    is_over: bool,
}

/// One step of a follow.
enum Step {
    Piece(Piece),
    /// Podman ended the response.
    Closed,
    /// The run ended before this moment.
    Ended(SystemTime),
    /// The ends cannot be read any more.
    Deaf,
}

impl Reader {
    pub(super) async fn open(client: crate::client::Client, id: InstanceId, plan: Plan) -> Result<Self> {
        let (follows, outages) = (plan.follows, Outages::new(client.config().max_silence));
        let mut reader = Self {
            client,
            id,
            plan,
            response: None,
            ends: None,
            follows,
            rest: None,
            is_broken: false,
            outages,
            before_tail: 0,
            position: Position::default(),
            seen: 0,
            is_skipped: false,
            skip: 0,
            at: None,
        };
        if let Some(begin) = follows {
            reader.subscribe(begin).await?;
        }
        if let Some(tail) = reader.plan.tail {
            reader.before_tail = reader.count().await?.saturating_sub(tail);
        }
        reader.request(reader.follows.is_some(), reader.plan.since, reader.plan.until).await?;
        Ok(reader)
    }

    fn call(&self) -> Call<'_> {
        Call { client: &self.client, operation: OPERATION, id: self.id.as_str() }
    }

    /// Subscribes to the end of the run, if the service reports any.
    async fn subscribe(&mut self, begin: SystemTime) -> Result<()> {
        let located = |error: Error| error.with_context("instance", &self.id);
        if self.client.logger().await.map_err(located)? != EventLogger::None {
            self.ends = Some(Ends::open(&self.client, OPERATION, &self.plan.container, begin).await.map_err(located)?);
        }
        Ok(())
    }

    async fn request(&mut self, follow: bool, since: Option<SystemTime>, until: Option<SystemTime>) -> Result<()> {
        let answer = self.client.open(OPERATION, self.plan.request(follow, since, until)).await;
        let answer = answer.map_err(|error| self.call().located(error))?;
        self.response = Some(Response {
            body: answer.into_body(),
            decoder: Decoder::framed(),
            is_followed: follow,
            is_over: false,
        });
        Ok(())
    }

    /// Number of lines that exist.
    async fn count(&mut self) -> Result<u64> {
        self.request(false, self.plan.since, self.plan.until).await?;
        let (mut lines, mut is_open) = (0, false);
        while let Step::Piece(piece) = self.step().await? {
            is_open = piece.bytes.last() != Some(&b'\n');
            lines += u64::from(!is_open);
        }
        self.response = None;
        Ok(lines + u64::from(is_open))
    }

    /// The next line, or a part of a long one; `None`: the output is read. A follow outlasts a connection that broke, and an absence
    /// of the service for as long as [`Outages`] allows.
    pub(super) async fn line(&mut self) -> Result<Option<LogLine>> {
        loop {
            let resumed = if self.is_broken { self.resume().await } else { Ok(()) };
            let (read, in_answer) = match resumed {
                Ok(()) => (self.read_line().await, true),
                Err(error) => (Err(error), false),
            };
            match read {
                Ok(line) => {
                    self.outages.are_over();
                    return Ok(line);
                }
                Err(error) if self.plan.follows.is_some() => {
                    (self.response, self.ends, self.is_broken) = (None, None, true);
                    self.outages.outlast(error, in_answer).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Requests the log again, from the last frame on.
    async fn resume(&mut self) -> Result<()> {
        if let Some(Rest { until }) = self.rest {
            self.go_on(false, until).await?;
        } else if let Some(begin) = self.follows {
            // The ends that were missed come as well. Without a response the container is inspected next.
            self.subscribe(begin).await?;
        }
        Ok(())
    }

    /// Reads on to this time, now that the run is over.
    async fn read_rest(&mut self, until: Option<SystemTime>) -> Result<()> {
        (self.follows, self.ends, self.rest) = (None, None, Some(Rest { until }));
        self.go_on(false, until).await
    }

    async fn read_line(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.step().await? {
                Step::Piece(piece) => {
                    if let Some(line) = self.take(piece) {
                        return Ok(Some(line));
                    }
                }
                Step::Ended(at) => {
                    // The rest of the run, and nothing of the next one.
                    let until = self.plan.until.map_or(at, |until| until.min(at));
                    self.read_rest(Some(until)).await?;
                }
                Step::Deaf => {
                    self.ends = None;
                    tokio::time::sleep(AGAIN).await;
                    if let Some(begin) = self.follows {
                        self.subscribe(begin).await?;
                    }
                }
                Step::Closed => {
                    let Some(begin) = self.follows else { return Ok(None) };
                    if !self.is_broken && self.plan.until.is_some_and(|until| until <= SystemTime::now()) {
                        return Ok(None);
                    }
                    tokio::time::sleep(AGAIN).await;
                    let now = self.call().inspect_if_present().await?;
                    match now {
                        Some(now) if now.state.is_alive() && now.began() == Some(begin) => {
                            self.go_on(true, self.plan.until).await?;
                        }
                        // The end is reported soon; where nothing reports it, the log is read up to the next run.
                        Some(now) => {
                            if let Some(at) = self.reported().await {
                                let until = self.plan.until.map_or(at, |until| until.min(at));
                                self.read_rest(Some(until)).await?;
                            } else {
                                let next = now.began().filter(|next| *next > begin);
                                let until = [self.plan.until, next].into_iter().flatten().min();
                                self.read_rest(until).await?;
                            }
                        }
                        None if self.is_broken => {
                            let message = "the output broke off, and the container is gone: lines may be missing";
                            return Err(self.call().error(ErrorKind::NotFound, message));
                        }
                        // It is gone, and its log with it.
                        None => return Ok(None),
                    }
                }
            }
        }
    }

    /// The end of the run, which an inspection has shown.
    async fn reported(&mut self) -> Option<SystemTime> {
        let end = tokio::time::timeout(2 * AGAIN, self.ends.as_mut()?.next()).await.ok()?.ok()??;
        Some(end.at)
    }

    /// Requests the log from the second of the last frame on, whose frames were emitted.
    async fn go_on(&mut self, follow: bool, until: Option<SystemTime>) -> Result<()> {
        // Podman leaves out what is older than `since` itself: the frames that were counted begin there.
        let since = self.position.second.max(self.plan.since);
        (self.seen, self.skip) = (self.position.frames, 0);
        self.request(follow, since, until).await?;
        self.is_broken = false;
        self.outages.answered();
        Ok(())
    }

    async fn step(&mut self) -> Result<Step> {
        loop {
            let Some(response) = &mut self.response else { return Ok(Step::Closed) };
            match response.decoder.next() {
                Ok(Some(piece)) => return Ok(Step::Piece(piece)),
                Ok(None) if response.is_over => {
                    self.response = None;
                    continue;
                }
                Ok(None) => {}
                Err(malformed) => return Err(broken_frame(self.call(), &malformed)),
            }
            let (is_followed, deadline) = (response.is_followed, self.client.deadline());
            let max_silence = self.client.config().max_silence;
            let (client, until) = (self.client.clone(), self.plan.until.filter(|_| is_followed));
            let body = &mut response.body;
            // Stored lines may arrive slowly, but silence for the whole deadline is a stall. A silent connection of a follow may be dead:
            // the log is then requested again.
            let patience = if is_followed { max_silence } else { deadline };
            let frame = tokio::time::timeout(patience, body.frame());
            let frame = tokio::select! {
                biased;
                frame = frame => match frame {
                    Ok(frame) => frame,
                    Err(_) if is_followed => {
                        return Err(self.call().error(ErrorKind::Unavailable, "the output was silent for long"));
                    }
                    Err(_) => return Err(self.call().error(ErrorKind::Timeout, "the service stopped sending")),
                },
                end = next(&mut self.ends), if is_followed => match end {
                    Some(at) => return Ok(Step::Ended(at)),
                    None => return Ok(Step::Deaf),
                },
                // Podman leaves out what is later, and keeps the answer open to the end of the run.
                () = past(until) => {
                    self.response = None;
                    return Ok(Step::Closed);
                }
                () = client.closed() => {
                    client.check_open(OPERATION)?;
                    continue;
                }
            };
            match frame {
                None => {
                    response.decoder.end();
                    response.is_over = true;
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        response.decoder.push(bytes);
                    }
                }
                Some(Err(error)) => {
                    let error = as_io(error);
                    let call = self.call();
                    return Err(call
                        .error(ErrorKind::Unavailable, "the output broke off: this is not its end")
                        .with_source(error));
                }
            }
        }
    }

    /// The line of a piece, unless the options leave it out, or it was emitted before.
    fn take(&mut self, piece: Piece) -> Option<LogLine> {
        let Origin::Output(source) = piece.origin else { return None };
        let mut bytes = piece.bytes;
        if piece.starts {
            self.at = timestamp::split(&mut bytes);
            if self.at == self.position.second {
                // Of the last frame a part may be missing, if the connection broke inside it.
                let is_last = self.seen == 1;
                self.skip = if is_last { self.position.bytes } else { 0 };
                self.is_skipped = self.seen > 1 || is_last && self.skip == 0;
                if self.seen == 0 {
                    self.position =
                        Position { frames: self.position.frames.saturating_add(1), bytes: 0, ..self.position };
                }
                self.seen = self.seen.saturating_sub(1);
            } else {
                (self.is_skipped, self.skip, self.seen) = (false, 0, 0);
                self.position = Position { second: self.at, frames: 1, bytes: 0 };
            }
        }
        let skipped = bytes.len().min(self.skip);
        if skipped > 0 {
            self.skip -= skipped;
            bytes.advance(skipped);
        }
        if self.is_skipped || skipped > 0 && bytes.is_empty() {
            return None;
        }
        self.position.bytes = self.position.bytes.saturating_add(bytes.len());
        if self.before_tail > 0 {
            self.before_tail -= u64::from(bytes.last() == Some(&b'\n'));
            return None;
        }
        Some(LogLine::new(self.plan.source(source), self.at.filter(|_| self.plan.shows_time), bytes))
    }
}

/// Waits until this moment is past; without one, forever.
async fn past(until: Option<SystemTime>) {
    match until {
        Some(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(left.saturating_add(LATE)).await;
        }
        None => std::future::pending().await,
    }
}

/// The next end; never ready if nothing reports it.
async fn next(ends: &mut Option<Ends>) -> Option<SystemTime> {
    match ends {
        Some(ends) => {
            let end = ends.next().await.inspect_err(|error| tracing::debug!(%error, "the ends cannot be read"));
            end.ok().flatten().map(|end| end.at)
        }
        None => std::future::pending().await,
    }
}

fn broken_frame(call: Call<'_>, malformed: &Malformed) -> Error {
    match malformed {
        Malformed::Truncated => call.error(ErrorKind::Unavailable, "the output broke off inside a line"),
        Malformed::Head(head) => call
            .error(ErrorKind::Protocol, "the output is not framed as it should be")
            .with_context("head", head.escape_ascii()),
    }
}
