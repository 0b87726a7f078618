//! Output, byte for byte, as the daemon's log driver kept it.
//!
//! * One entry of the log is one [`LogLine`]: a line, or 16 KiB of a longer one. What asks for it is what takes it off the
//!   socket, so that a reader who stops holds the daemon back, and nothing is kept here but the entry at hand.
//! * Whether there are frames is the container's terminal setting, as the daemon tells it; it is not guessed from the bytes.
//! * Docker's `since` is inclusive, and so is its `until`; ours is exclusive, so it is asked for one nanosecond less.
//! * Docker counts a tail before it drops other streams and later times. Where that would make a difference the log is
//!   read twice: to count, and to skip.
//! * While following, Docker looks at `until` only when there is output. So the time is kept here too, by the daemon's clock.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming, header};
use runtide_core::{Error, ErrorKind, InstanceId, LogLine, LogManager, LogOptions, LogSource, LogStream, Result};
use tokio::time::Instant;

use super::{
    container::{Call, Container},
    frames::{Decoder, Malformed, Origin, Piece},
    stamps,
};
use crate::{client::Client, transport::as_io};

const OPERATION: &str = "docker.logs";

/// The daemon's clock is known to a second, and its log may lag a little.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// Containers' output.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    client: Client,
}

impl Logs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl LogManager for Logs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let call = Call::on(&self.client, OPERATION, id)?;
        let container = call.look().await?;
        let Some(plan) = Plan::new(call, &container, &options)? else {
            return Ok(LogStream::new(stream::empty()));
        };
        let mut reading = Reading::new(self.client.clone(), id.clone(), plan);
        if !reading.plan.counts {
            reading.open(0).await?;
        }
        Ok(LogStream::new(stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.line().await {
                Ok(Some(line)) => Some((Ok(line), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

/// What is asked of the daemon, and what is done here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    query: String,
    tail: Option<u64>,
    /// The tail is counted here: see the module.
    counts: bool,
    follow: bool,
    tty: bool,
    stamped: bool,
    until: Option<SystemTime>,
    /// The life that is followed; `None`: it does not run, so there is nothing to follow.
    life: Option<String>,
    driver: String,
}

impl Plan {
    /// `None`: there can be no output of that sort.
    fn new(call: Call<'_>, container: &Container, options: &LogOptions) -> Result<Option<Self>> {
        if container.host_config.log_config.driver == "none" {
            return Err(unreadable(call, "its log driver is 'none', which keeps nothing"));
        }
        let tty = container.config.tty;
        let wants = |source| options.sources.is_empty() || options.sources.contains(&source);
        if tty && !wants(LogSource::Console) {
            return Err(unreadable(
                call,
                "it has a terminal, so its outputs cannot be told apart: ask for the console",
            ));
        }
        let (stdout, stderr) = if tty { (true, true) } else { (wants(LogSource::Stdout), wants(LogSource::Stderr)) };
        let until = match options.until {
            None => None,
            Some(until) => match until.checked_sub(Duration::from_nanos(1)).and_then(stamps::query) {
                Some(last) => Some((until, last)),
                None => return Ok(None),
            },
        };
        if !stdout && !stderr {
            return Ok(None);
        }
        let mut query = format!("stdout={stdout}&stderr={stderr}&timestamps={}", options.timestamps);
        if let Some(since) = options.since.and_then(stamps::query) {
            query.push_str("&since=");
            query.push_str(&since);
        }
        if let Some((_, last)) = &until {
            query.push_str("&until=");
            query.push_str(last);
        }
        Ok(Some(Self {
            query,
            tail: options.tail,
            counts: options.tail.is_some_and(|tail| tail > 0) && (until.is_some() || stdout != stderr),
            follow: options.follow,
            tty,
            stamped: options.timestamps,
            until: until.map(|(until, _)| until),
            life: container.state.life().filter(|_| container.state.is_alive()).map(str::to_owned),
            driver: container.host_config.log_config.driver.clone(),
        }))
    }

    fn path(&self, id: &str, follow: bool, tail: Option<u64>) -> String {
        // Docker reads a tail that it cannot count to as all.
        let tail =
            tail.filter(|tail| i64::try_from(*tail).is_ok()).map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        format!("/containers/{id}/logs?{}&follow={follow}&tail={tail}", self.query)
    }

    fn decoder(&self) -> Decoder {
        if self.tty { Decoder::console(if self.stamped { stamps::STAMP } else { 0 }) } else { Decoder::framed() }
    }
}

fn unreadable(call: Call<'_>, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    call.error(ErrorKind::Unsupported, format!("its output cannot be read: {reason}"))
        .with_context("feature", "logs")
        .with_context("reason", reason)
}

/// A stream under way.
#[derive(Debug)]
struct Reading {
    client: Client,
    id: InstanceId,
    plan: Plan,
    open: Option<Open>,
    /// The time of the entry at hand.
    at: Option<SystemTime>,
    /// Entries still to be left out, as they come before the tail.
    skip: u64,
    skipping: bool,
}

impl Reading {
    fn new(client: Client, id: InstanceId, plan: Plan) -> Self {
        Self { client, id, plan, open: None, at: None, skip: 0, skipping: false }
    }

    fn call(&self) -> Call<'_> {
        // The id was checked before the reading was made.
        Call { client: &self.client, operation: OPERATION, id: self.id.as_str() }
    }

    async fn open(&mut self, skip: u64) -> Result<()> {
        let tail = self.plan.tail.filter(|_| !self.plan.counts);
        self.open = Some(Open::new(self.call(), &self.plan, self.plan.follow, tail).await?);
        self.skip = skip;
        Ok(())
    }

    /// How many entries of what is there come before the last `tail` ones.
    async fn count(&self) -> Result<u64> {
        let call = self.call();
        let mut open = Open::new(call, &self.plan, false, None).await?;
        let mut entries: u64 = 0;
        while let Some(piece) = open.piece(call, &self.plan).await? {
            entries = entries.saturating_add(u64::from(piece.starts));
        }
        Ok(entries.saturating_sub(self.plan.tail.unwrap_or_default()))
    }

    async fn line(&mut self) -> Result<Option<LogLine>> {
        if self.open.is_none() {
            let skip = self.count().await?;
            self.open(skip).await?;
        }
        let call = Call { client: &self.client, operation: OPERATION, id: self.id.as_str() };
        let Some(open) = &mut self.open else { return Ok(None) };
        while let Some(piece) = open.piece(call, &self.plan).await? {
            let Origin::Output(source) = piece.origin else { continue };
            if piece.starts {
                self.skipping = self.skip > 0;
                self.skip = self.skip.saturating_sub(1);
            }
            let mut bytes = piece.bytes;
            // A terminal's long line comes in entries, each with its time, of which only the first is seen to start.
            if self.plan.stamped && (piece.starts || self.plan.tty) {
                let at = stamps::split(&mut bytes);
                if at.is_some() || piece.starts {
                    self.at = at;
                }
            }
            if !self.skipping && !bytes.is_empty() {
                return Ok(Some(LogLine::new(source, self.at, bytes)));
            }
        }
        Ok(None)
    }
}

/// One answer of the daemon's.
#[derive(Debug)]
struct Open {
    body: Incoming,
    decoder: Decoder,
    follow: bool,
    /// When nothing before `until` can come any more.
    ends_at: Option<Instant>,
    /// The stream is over: what remains to be said of it.
    end: Option<Result<()>>,
}

impl Open {
    async fn new(call: Call<'_>, plan: &Plan, follow: bool, tail: Option<u64>) -> Result<Self> {
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

    /// The next piece; after the last one, an error unless the end was a good one.
    async fn piece(&mut self, call: Call<'_>, plan: &Plan) -> Result<Option<Piece>> {
        loop {
            if let Some(end) = self.end.take() {
                return end.map(|()| None);
            }
            match self.decoder.next() {
                Ok(Some(piece)) if piece.origin == Origin::Daemon => {
                    let text = String::from_utf8_lossy(&piece.bytes);
                    return Err(
                        call.error(ErrorKind::Unexpected, format!("the daemon cannot read on: {}", text.trim()))
                    );
                }
                Ok(Some(piece)) => return Ok(Some(piece)),
                Ok(None) => {}
                Err(malformed) => return Err(broken_frame(call, &malformed)),
            }
            let end = match self.chunk(call).await {
                Ok(Chunk::Data(bytes)) => {
                    self.decoder.push(bytes);
                    continue;
                }
                Ok(Chunk::PastUntil) => return Ok(None),
                Ok(Chunk::End) => Ok(()),
                Err(error) => Err(error),
            };
            let decoder = std::mem::replace(&mut self.decoder, Decoder::framed());
            let (held, whole) = decoder.finish();
            self.end = Some(match (end, whole) {
                (Err(error), _) => Err(error),
                (Ok(()), Err(malformed)) => Err(broken_frame(call, &malformed)),
                (Ok(()), Ok(())) => self.good_end(call, plan).await,
            });
            if held.is_some() {
                return Ok(held);
            }
        }
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

    /// A stream that is followed ends with the life that it is of. A daemon that goes down can end it just as neatly.
    async fn good_end(&self, call: Call<'_>, plan: &Plan) -> Result<()> {
        let Some(life) = plan.life.as_deref().filter(|_| self.follow) else { return Ok(()) };
        if self.ends_at.is_some_and(|end| Instant::now() + 2 * CLOCK_MARGIN >= end) {
            return Ok(());
        }
        match call.look_if_there().await? {
            Some(Container { state, .. }) if state.is_alive() && state.life() == Some(life) => {
                Err(call.error(ErrorKind::Unavailable, "the daemon ended the output, and the container still runs"))
            }
            _ => Ok(()),
        }
    }
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
