//! A reader of output: opens what is to be read, leaves out what was not asked for, and makes sure of the end.

use std::time::{Duration, SystemTime};

use runtide_core::{ErrorKind, InstanceId, Result, manager::LogLine};

use super::{
    answer::{Answer, End, Next},
    container::{Call, Container},
    frames::{Origin, Piece},
    log::{OPERATION, Plan, Tail},
    mark::{Mark, Search},
    stamps,
};
use crate::client::Client;

/// Entries of the log's end that are read again; what Docker leaves out is fewer, but for a flood.
const END: u64 = 512;

/// How long a container may still be found running after its output ended.
const ENDING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Reading {
    client: Client,
    id: InstanceId,
    plan: Plan,
    /// `None`: the tail is still to be counted.
    answer: Option<Answer>,
    /// The time of the entry at hand.
    at: Option<SystemTime>,
    /// Entries still to be left out, as they come before the tail.
    skip: u64,
    skipping: bool,
    /// How far it was read, where the end is made sure of.
    mark: Mark,
    /// The life is over, and what was missed of it is looked for.
    search: Option<Search>,
}

impl Reading {
    pub(super) async fn open(client: Client, id: InstanceId, plan: Plan) -> Result<Self> {
        let mut reading = Self {
            client,
            id,
            plan,
            answer: None,
            at: None,
            skip: 0,
            skipping: false,
            mark: Mark::default(),
            search: None,
        };
        if reading.plan.follows.is_some() && reading.plan.tail == Tail::Daemon(0) {
            reading.mark_the_end().await?;
        }
        let tail = match reading.plan.tail {
            Tail::All => None,
            Tail::Daemon(tail) => Some(tail),
            Tail::Ours(_) => return Ok(reading),
        };
        reading.answer = Some(Answer::new(reading.call(), &reading.plan, reading.plan.follows.is_some(), tail).await?);
        Ok(reading)
    }

    fn call(&self) -> Call<'_> {
        // The id was checked before the reading was made.
        Call { client: &self.client, operation: OPERATION, id: self.id.as_str() }
    }

    /// Where nothing of what is there was asked for, that is where it was read to.
    async fn mark_the_end(&mut self) -> Result<()> {
        let mut answer = Answer::new(self.call(), &self.plan, false, Some(1)).await?;
        while let Next::Piece(piece) = answer.next(self.call()).await? {
            if let Some(line) = self.entry(piece) {
                self.mark.note(line.source, line.at, &line.bytes);
            }
        }
        Ok(())
    }

    /// How many entries of what is there come before the last `tail` ones.
    async fn count(&self) -> Result<u64> {
        let Tail::Ours(tail) = self.plan.tail else { return Ok(0) };
        let mut answer = Answer::new(self.call(), &self.plan, false, None).await?;
        let mut entries: u64 = 0;
        while let Next::Piece(piece) = answer.next(self.call()).await? {
            entries = entries.saturating_add(u64::from(piece.starts));
        }
        Ok(entries.saturating_sub(tail))
    }

    pub(super) async fn line(&mut self) -> Result<Option<LogLine>> {
        loop {
            let call = Call { client: &self.client, operation: OPERATION, id: self.id.as_str() };
            let Some(answer) = &mut self.answer else {
                let skip = self.count().await?;
                self.answer = Some(Answer::new(self.call(), &self.plan, self.plan.follows.is_some(), None).await?);
                self.skip = skip;
                continue;
            };
            match answer.next(call).await? {
                Next::Piece(piece) => {
                    if let Some(line) = self.take(piece) {
                        return Ok(Some(line));
                    }
                }
                Next::End(End::PastUntil) => return Ok(None),
                Next::End(End::Whole) => {
                    if !self.look_for_the_rest().await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The piece as a line, if it is one that was asked for.
    fn take(&mut self, piece: Piece) -> Option<LogLine> {
        if piece.starts && self.search.is_none() {
            self.skipping = self.skip > 0;
            self.skip = self.skip.saturating_sub(1);
        }
        let mut line = self.entry(piece)?;
        if let Some(search) = &mut self.search {
            if !search.is_past(line.source, line.at, &line.bytes) {
                return None;
            }
        } else if self.plan.follows.is_some() {
            self.mark.note(line.source, line.at, &line.bytes);
        }
        if self.skipping && self.search.is_none() {
            return None;
        }
        line.at = line.at.filter(|_| self.plan.shows_time);
        Some(line)
    }

    /// The piece without its time.
    fn entry(&mut self, piece: Piece) -> Option<LogLine> {
        let Origin::Output(source) = piece.origin else { return None };
        let mut bytes = piece.bytes;
        if self.plan.stamped && (piece.starts || self.plan.hides_entries()) {
            let at = stamps::split(&mut bytes);
            if at.is_some() || piece.starts {
                self.at = at;
            }
        }
        (!bytes.is_empty()).then(|| LogLine::new(source, self.at, bytes))
    }

    /// After an end that the daemon calls a good one: whether there is more to read.
    async fn look_for_the_rest(&mut self) -> Result<bool> {
        let Some(life) = self.plan.follows.clone() else { return Ok(false) };
        let everything = match &self.search {
            None if !self.is_over(&life).await? => return Ok(false),
            // Nothing was read: then there was nothing when it was opened, and all that is there now is new.
            None => self.mark.is_start(),
            Some(search) if search.is_found() => return Ok(false),
            Some(search) if search.is_everything() => {
                let message = "the log was rotated while it was read: lines between are missing";
                return Err(self.call().error(ErrorKind::Unexpected, message));
            }
            Some(_) => true,
        };
        let tail = (!everything).then_some(END);
        self.search = Some(Search::new(self.mark.clone(), everything));
        self.answer = Some(Answer::new(self.call(), &self.plan, false, tail).await?);
        Ok(true)
    }

    /// Whether there is a log to make sure of. A daemon that goes down can end the output just as neatly as a life does.
    async fn is_over(&self, life: &str) -> Result<bool> {
        let call = self.call();
        let over = async {
            loop {
                match call.look_if_there().await? {
                    None => return Ok(false),
                    Some(Container { state, .. }) if !state.is_alive() || state.life() != Some(life) => {
                        return Ok(true);
                    }
                    Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(ENDING, over).await.unwrap_or_else(|_| {
            Err(call.error(ErrorKind::Unavailable, "the daemon ended the output, and the container still runs"))
        })
    }
}
