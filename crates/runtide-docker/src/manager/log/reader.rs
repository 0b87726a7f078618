//! [`Reader`]: requests the log, drops the entries that the options leave out, goes on behind the last entry after an outage, and
//! verifies the log's end.

use std::time::{Duration, SystemTime};

use runtide_core::{Error, ErrorKind, InstanceId, Result, manager::LogLine};
use runtide_engine::{
    Outages,
    output::{Origin, Piece, timestamp},
};

use super::{
    plan::{OPERATION, Plan, Tail},
    position::{Position, Search},
    response::{End, LogResponse, Next},
    run::FollowedRun,
};
use crate::{
    client::Client,
    manager::container::{Call, Container},
};

/// Entries of the log's end that are read again. Docker leaves out fewer, except in a flood of output.
const END_ENTRIES: u64 = 512;

/// Time for which a container may still be listed as running after its output ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Time by which an entry may be older than one before it: those of two outputs are not in order.
const DISORDER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    id: InstanceId,
    plan: Plan,
    /// `None`: the entries before the tail are not counted yet.
    response: Option<LogResponse>,
    /// Time of the present entry.
    at: Option<SystemTime>,
    /// Entries before the tail that are still to be skipped.
    skip: u64,
    /// The present entry is skipped, with all of its pieces.
    skipping: bool,
    /// Position of the last entry that was read. Kept only while following, for the second read of the end.
    position: Position,
    /// Time of that entry.
    position_at: Option<SystemTime>,
    /// Set after an outage, until the position is found: the entries up to it were read before.
    resumes: Option<Search>,
    /// The connection broke: the log is to be requested again.
    is_broken: bool,
    outages: Outages,
    /// Set once the run is over: finds the position in the second read.
    search: Option<Search>,
    /// Set while following: separates the followed run from the next one.
    run: Option<FollowedRun>,
}

impl Reader {
    pub(super) async fn open(client: Client, id: InstanceId, plan: Plan) -> Result<Self> {
        let outages = Outages::new(client.config().max_silence);
        let mut reader = Self {
            client,
            id,
            plan,
            response: None,
            at: None,
            skip: 0,
            skipping: false,
            position: Position::default(),
            position_at: None,
            resumes: None,
            is_broken: false,
            outages,
            search: None,
            run: None,
        };
        if let Some(incarnation) = &reader.plan.follows {
            reader.run = FollowedRun::open(reader.call(), &reader.plan.container, incarnation).await;
        }
        if reader.plan.follows.is_some() && reader.plan.tail == Tail::ByDaemon(0) {
            reader.seek_to_end().await?;
        }
        let tail = match reader.plan.tail {
            Tail::All => None,
            Tail::ByDaemon(tail) => Some(tail),
            Tail::ByReader(_) => return Ok(reader),
        };
        reader.response =
            Some(LogResponse::new(reader.call(), &reader.plan, reader.plan.follows.is_some(), tail).await?);
        Ok(reader)
    }

    fn call(&self) -> Call<'_> {
        // `Call::on` checked the id before this reader was made.
        Call { client: &self.client, operation: OPERATION, id: self.id.as_str() }
    }

    /// Sets the position to the log's present end, for a tail of 0: no entry up to here was asked for.
    async fn seek_to_end(&mut self) -> Result<()> {
        let mut response = LogResponse::new(self.call(), &self.plan, false, Some(1)).await?;
        while let Next::Piece(piece) = response.next(self.call()).await? {
            if let Some(line) = self.entry(piece) {
                self.advance(&line);
            }
        }
        Ok(())
    }

    fn advance(&mut self, line: &LogLine) {
        self.position.advance(line.source, line.at, &line.bytes);
        self.position_at = line.at.or(self.position_at);
    }

    /// The number of entries before the last `tail` ones.
    async fn count(&self) -> Result<u64> {
        let Tail::ByReader(tail) = self.plan.tail else { return Ok(0) };
        let mut response = LogResponse::new(self.call(), &self.plan, false, None).await?;
        let mut entries: u64 = 0;
        while let Next::Piece(piece) = response.next(self.call()).await? {
            entries = entries.saturating_add(u64::from(piece.starts));
        }
        Ok(entries.saturating_sub(tail))
    }

    /// The next line. A follow outlasts a connection that broke, and an absence of the daemon for as long as [`Outages`] allows.
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
                    self.is_broken = true;
                    self.outages.outlast(error, in_answer).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Requests the log again, from the last entry on.
    async fn resume(&mut self) -> Result<()> {
        let Some(incarnation) = self.plan.follows.clone() else { return Ok(()) };
        let Some(container) = self.call().inspect_if_present().await? else {
            let message = "the output broke off, and the container is gone: lines may be missing";
            return Err(self.call().error(ErrorKind::NotFound, message));
        };
        self.run = FollowedRun::open(self.call(), &self.plan.container, &incarnation).await;
        (self.resumes, self.skipping) = (None, false);
        if self.search.take().is_some() || !container.is_in(&incarnation) {
            self.reread_end().await?;
        } else if self.position.is_start() {
            self.response = match self.plan.tail {
                Tail::ByReader(_) => None,
                // There was nothing when it was opened, so that all of it is new.
                Tail::All | Tail::ByDaemon(0) => Some(LogResponse::new(self.call(), &self.plan, true, None).await?),
                Tail::ByDaemon(tail) => Some(LogResponse::new(self.call(), &self.plan, true, Some(tail)).await?),
            };
        } else {
            let before = self.position_at.and_then(|at| at.checked_sub(DISORDER));
            let since = before.max(self.plan.since);
            self.response = Some(LogResponse::since(self.call(), &self.plan, true, None, since).await?);
            // Entries that are equal have one time, so that a row of them is not cut.
            self.resumes = Some(Search::new(self.position.clone(), true));
        }
        self.is_broken = false;
        self.outages.answered();
        Ok(())
    }

    async fn read_line(&mut self) -> Result<Option<LogLine>> {
        loop {
            let call = Call { client: &self.client, operation: OPERATION, id: self.id.as_str() };
            let Some(response) = &mut self.response else {
                let skip = self.count().await?;
                self.response =
                    Some(LogResponse::new(self.call(), &self.plan, self.plan.follows.is_some(), None).await?);
                self.skip = skip;
                continue;
            };
            match response.next(call).await? {
                Next::Piece(piece) => {
                    let line = self.take(piece);
                    if self.resumes.is_some() && self.is_beyond() {
                        return Err(self.rotated());
                    }
                    if let (Some(run), Some(at)) = (&mut self.run, self.at)
                        && run.is_over_before(at).await
                    {
                        // The next run may have filled the whole end that was read again: the missed lines are before it.
                        let is_missing = self.search.as_ref().is_some_and(|search| !search.is_found());
                        if is_missing && self.reread_end().await? {
                            continue;
                        }
                        return Ok(None);
                    }
                    if let Some(line) = line {
                        return Ok(Some(line));
                    }
                }
                Next::End(End::PastUntil) => return Ok(None),
                Next::End(End::Whole) => {
                    if !self.reread_end().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The piece as a line; `None` for one that the options leave out, or that was emitted before.
    fn take(&mut self, piece: Piece) -> Option<LogLine> {
        let is_known = self.resumes.is_some();
        if piece.starts && self.search.is_none() && !is_known {
            self.skipping = self.skip > 0;
            self.skip = self.skip.saturating_sub(1);
        }
        let mut line = self.entry(piece)?;
        if let Some(search) = &mut self.resumes {
            // The last one that was read before is found here, and all others follow it.
            search.is_past(line.source, line.at, &line.bytes);
            if search.is_found() {
                self.resumes = None;
            }
            return None;
        }
        if let Some(search) = &mut self.search
            && !search.is_past(line.source, line.at, &line.bytes)
        {
            return None;
        }
        if self.plan.follows.is_some() {
            self.advance(&line);
        }
        if self.skipping && self.search.is_none() {
            return None;
        }
        line.at = line.at.filter(|_| self.plan.shows_time);
        Some(line)
    }

    /// The piece as a line, its time split off; `None` if it is no output, or empty. An entry without bytes (the end of a long
    /// line, whose newline the driver dropped) has a time at least.
    fn entry(&mut self, piece: Piece) -> Option<LogLine> {
        let Origin::Output(source) = piece.origin else { return None };
        let mut bytes = piece.bytes;
        if self.plan.stamped && piece.starts {
            self.at = timestamp::split(&mut bytes);
        }
        let has_time = piece.starts && self.plan.shows_time && self.at.is_some();
        (has_time || !bytes.is_empty()).then(|| LogLine::new(source, self.at, bytes))
    }

    /// The entry at hand is behind the position in any order that entries can have, and the position was not found.
    fn is_beyond(&self) -> bool {
        let (Some(at), Some(position)) = (self.at, self.position_at) else { return false };
        at.duration_since(position).is_ok_and(|later| later > DISORDER)
    }

    fn rotated(&self) -> Error {
        self.call().error(ErrorKind::Unexpected, "the log was rotated while it was read: lines are missing")
    }

    /// Called when the daemon ended the output in an orderly way; `true` if the end is now read again.
    async fn reread_end(&mut self) -> Result<bool> {
        let Some(incarnation) = self.plan.follows.clone() else { return Ok(false) };
        if self.search.is_none() {
            let Some(container) = self.over(&incarnation).await? else { return Ok(false) };
            if let Some(run) = &mut self.run {
                run.find_end(&container, &incarnation).await;
            }
        }
        let everything = match &self.search {
            // No entry was read, so the log was empty when it was opened, and every entry in it is new.
            None => self.position.is_start(),
            Some(search) if search.is_found() => return Ok(false),
            Some(search) if search.is_everything() => {
                return Err(self.rotated());
            }
            Some(_) => true,
        };
        let tail = (!everything).then_some(END_ENTRIES);
        self.search = Some(Search::new(self.position.clone(), everything));
        self.response = Some(LogResponse::new(self.call(), &self.plan, false, tail).await?);
        Ok(true)
    }

    /// The container once the run is over, so that its log has an end to verify; `None` if it is removed by then. A daemon that
    /// goes down ends the output in the same orderly way as a run that ends.
    async fn over(&self, incarnation: &str) -> Result<Option<Container>> {
        let call = self.call();
        let over = async {
            loop {
                match call.inspect_if_present().await? {
                    Some(container) if container.is_in(incarnation) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    over => return Ok(over),
                }
            }
        };
        tokio::time::timeout(END_TIMEOUT, over).await.unwrap_or_else(|_| {
            Err(call.error(ErrorKind::Unavailable, "the daemon ended the output, and the container still runs"))
        })
    }
}
