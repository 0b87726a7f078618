//! Reads one output, once or for as long as it grows.
//!
//! A follow of the server ends with each run, at a rotation on older nodes with silence, and with each connection (trap K17). So after
//! each end the pod is looked at: the output of a run that goes on is asked for again, that of one that ended is read to its end, and
//! then the next run is waited for.

use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use runtide_core::{
    Error, ErrorKind, Result,
    manager::{LogLine, LogSource, LogStream},
};
use tokio::time::Instant;

use super::{
    Wanted, is_not_started,
    pieces::{Pieces, Read},
    place::Place,
};
use crate::{
    list::with_query,
    manager::subject::{OUTAGE, Seen, Subject, is_outage},
    status,
};

/// Part of an output that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All that is there, which is the end.
    All,
    /// All that is there, and more as it comes.
    Follow,
    /// The rest of a run that ended.
    Rest,
}

/// The next step of a follow that has no open request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Look,
    AwaitRun,
    End,
}

pub(super) struct Reading {
    subject: Subject,
    wanted: Wanted,
    container: String,
    place: Place,
    open: Option<(Part, Pieces)>,
    step: Step,
    /// The run that is read; `None`: none has begun.
    run: Option<u32>,
    /// The failure for which the last request ended early, and since when there are such.
    broke: Option<(Error, Instant)>,
    /// Time up to which a follow goes on.
    ends_at: Option<Instant>,
    /// Time of the request for the last lines, by the clock of this machine.
    tail_asked: Option<Timestamp>,
    /// `true` if a line has come since the last look.
    is_fruitful: bool,
}

impl Reading {
    fn new(subject: Subject, wanted: Wanted, seen: &Seen) -> Self {
        let ends_at = wanted.until.map(|until| {
            let left = until.duration_since(Timestamp::now());
            Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO).min(Duration::from_secs(1 << 30))
        });
        Self {
            container: seen.container.clone(),
            place: Place::new(wanted.since),
            open: None,
            step: Step::End,
            run: seen.has_begun.then_some(seen.run),
            broke: None,
            ends_at,
            tail_asked: None,
            is_fruitful: true,
            subject,
            wanted,
        }
    }

    /// All that is there. A container that has not begun has written nothing.
    pub(super) async fn once(subject: Subject, wanted: Wanted, seen: &Seen) -> Result<Self> {
        let mut reading = Self::new(subject, wanted, seen);
        if seen.has_begun {
            match reading.request(Part::All, false).await {
                Err(error) if is_not_started(&error) => {}
                done => done?,
            }
        }
        Ok(reading)
    }

    /// All that the run before the present one wrote.
    pub(super) async fn of_previous(subject: Subject, wanted: Wanted, seen: &Seen) -> Result<Self> {
        let mut reading = Self::new(subject, wanted, seen);
        match reading.request(Part::All, true).await {
            Err(error) if is_not_started(&error) => {
                let absent = reading.subject.error(ErrorKind::NotFound, "there is no output of an earlier run");
                Err(absent.with_source(error))
            }
            done => done.map(|()| reading),
        }
    }

    pub(super) async fn following(subject: Subject, wanted: Wanted, seen: &Seen) -> Result<Self> {
        let mut reading = Self::new(subject, wanted, seen);
        reading.step = Step::Look;
        if reading.run.is_none() {
            reading.step = Step::AwaitRun;
        } else if seen.is_running {
            match reading.request(Part::Follow, false).await {
                Err(error) if is_not_started(&error) => {}
                done => done?,
            }
        }
        Ok(reading)
    }

    pub(super) fn into_stream(self) -> LogStream {
        LogStream::new(stream::unfold(Some(self), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// Asks for a part of the output, from the place on.
    async fn request(&mut self, part: Part, is_previous: bool) -> Result<()> {
        if !self.place.is_known()
            && let Some(asked) = self.tail_asked.take()
        {
            // Lines that came since the tail was asked for, and was empty, are not to be counted among those of another.
            self.place.begins_at(asked);
            self.wanted.tail = None;
        }
        let tail = self.wanted.tail.filter(|_| !self.place.is_known());
        let tail = tail.map(|tail| tail.min(i64::MAX.unsigned_abs()).to_string());
        let since = self.place.again().map(|since| since.to_string());
        let mut query = vec![("container", self.container.as_str()), ("timestamps", "true")];
        if part == Part::Follow {
            query.push(("follow", "true"));
        }
        if is_previous {
            query.push(("previous", "true"));
        }
        if let Some(since) = &since {
            query.push(("sinceTime", since));
        }
        if let Some(tail) = &tail {
            query.push(("tailLines", tail));
        }
        let path = with_query(format!("{}/log", self.subject.path()), &query);
        let asked = Timestamp::now();
        let (_, body) = self.subject.client.stream(self.subject.operation, &path).await?;
        if tail.is_some() {
            self.place.begins_with_tail();
            self.tail_asked = Some(asked);
        }
        self.open = Some((part, Pieces::new(body)));
        Ok(())
    }

    /// Longest silence of the open request: a request for what is there is answered within the deadline, and one that waits may be
    /// silent because its node is.
    fn patience(&self, part: Part) -> Duration {
        let config = self.subject.client.config();
        if part == Part::Follow { config.max_silence } else { config.deadline }
    }

    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            let Some((part, mut pieces)) = self.open.take() else {
                if self.advance().await? {
                    continue;
                }
                return Ok(None);
            };
            let patience = self.patience(part);
            let until = self.ends_at.filter(|_| part == Part::Follow);
            let read = async {
                tokio::select! {
                    read = tokio::time::timeout(patience, pieces.next()) => Ok(Some(read)),
                    () = at(until) => Ok(None),
                }
            };
            let read = self.subject.client.until_closed(self.subject.operation, read).await?;
            let site = self.subject.site();
            match read {
                // The time is over: what is there by now is the end.
                None => self.finish().await?,
                Some(Ok(Ok(Read::Piece(piece)))) => {
                    self.open = Some((part, pieces));
                    self.broke = None;
                    self.is_fruitful = true;
                    let is_early = self.wanted.until.is_none_or(|until| piece.at < until);
                    if self.place.takes(piece.at) && is_early {
                        let at = self.wanted.timestamps.then(|| piece.at.into());
                        return Ok(Some(LogLine::new(LogSource::Console, at, piece.bytes)));
                    }
                }
                Some(Ok(Ok(Read::End))) => match part {
                    Part::All => self.step = Step::End,
                    Part::Follow => {
                        self.step = Step::Look;
                        // The node says that the run has ended before the server does.
                        if !std::mem::take(&mut self.is_fruitful) {
                            self.subject.pause().await?;
                        }
                    }
                    Part::Rest => self.step = Step::AwaitRun,
                },
                Some(Ok(Ok(Read::Foreign(text)))) => {
                    let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
                    let error = self.subject.error(ErrorKind::NotFound, format!("the node has no output: {text}"));
                    self.failed(part, error).await?;
                }
                Some(Ok(Err(error))) => {
                    let error = status::of_transport(site, error);
                    self.failed(part, error).await?;
                }
                Some(Err(_)) if part == Part::Follow => self.step = Step::Look,
                Some(Err(_)) => {
                    let error = site.timeout(patience);
                    self.failed(part, error).await?;
                }
            }
        }
    }

    /// A request of a follow that failed is made again, for two minutes.
    async fn failed(&mut self, part: Part, error: Error) -> Result<()> {
        let since = self.broke.take().map_or_else(Instant::now, |(_, since)| since);
        if part == Part::All || since.elapsed() > OUTAGE {
            return Err(error);
        }
        self.broke = Some((error, since));
        self.step = Step::Look;
        self.subject.pause().await
    }

    /// Reads what is there, as the last part.
    async fn finish(&mut self) -> Result<()> {
        self.step = Step::End;
        self.ends_at = None;
        match self.request(Part::All, false).await {
            Err(error) if is_not_started(&error) || error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Takes the next step without an open request; `false`: the output is over.
    async fn advance(&mut self) -> Result<bool> {
        match self.step {
            Step::End => return Ok(false),
            Step::AwaitRun => self.await_run().await?,
            Step::Look => match self.subject.look().await {
                Ok(Some(seen)) => self.go_on(&seen).await?,
                Ok(None) => match self.broke.take() {
                    // The request ended in good order: that was the end of the last run.
                    None => self.step = Step::End,
                    Some((error, _)) => return Err(self.subject.is_gone().with_source(error)),
                },
                Err(error) if is_outage(&error) => self.failed(Part::Follow, error).await?,
                Err(error) => return Err(error),
            },
        }
        Ok(true)
    }

    async fn go_on(&mut self, seen: &Seen) -> Result<()> {
        let run = self.run.unwrap_or(seen.run);
        let asked = match seen.run.checked_sub(run) {
            Some(0) if seen.is_running => self.request(Part::Follow, false).await,
            Some(0) => self.request(Part::Rest, false).await,
            Some(1) => self.request(Part::Rest, true).await,
            _ => return Err(self.dropped()),
        };
        match asked {
            Ok(()) => Ok(()),
            Err(error) if is_outage(&error) || is_not_started(&error) => self.failed(Part::Follow, error).await,
            Err(error) => Err(error),
        }
    }

    fn dropped(&self) -> Error {
        self.subject
            .error(ErrorKind::Unexpected, "it was started several times since: output that was not read is gone")
    }

    /// Waits until another run begins, or there can be none.
    async fn await_run(&mut self) -> Result<()> {
        let read = self.run;
        let next = self.subject.until(|seen| match seen {
            None => Some(None),
            Some(seen) if seen.has_begun && read.is_none_or(|read| seen.run > read) => Some(Some(seen.run)),
            Some(seen) => seen.is_over().then_some(None),
        });
        let next = tokio::select! {
            next = next => next?,
            () = at(self.ends_at) => None,
        };
        match (next, read) {
            (None, _) => self.step = Step::End,
            (Some(run), Some(read)) if run > read.saturating_add(1) => return Err(self.dropped()),
            (Some(run), _) => {
                self.run = Some(run);
                self.place.next_run();
                self.wanted.tail = self.wanted.tail.filter(|_| read.is_none());
                self.tail_asked = None;
                self.step = Step::Look;
            }
        }
        Ok(())
    }
}

/// Waits until then; indefinitely without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
