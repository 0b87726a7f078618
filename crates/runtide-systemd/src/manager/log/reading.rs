//! One opened log: the parts of the journal that are read, one after another, each by its own child.
//!
//! * The existing entries: one part, to its end.
//! * Following: existing and new entries, until the run is over. Then journald catches up, and the entries that the
//!   follower did not print yet are read to the end, so that no time has to be guessed for the last line.
//!
//! A part that continues another, or the entry of a cursor, begins at that entry, not after it. If the entry is not the
//! first one read, the journal has dropped it, and perhaps entries after it as well: `Expired`.

use std::{fmt, future::Future, pin::Pin, time::SystemTime};

use bytes::Bytes;
use runtide_core::{
    ErrorKind, Result,
    manager::{LogLine, LogSource},
};

use super::{
    Plan,
    export::Entry,
    journal::{From, Journal, Journalctl, Order},
};
use crate::{
    client::Client,
    journal::{JournaldCursor, JournaldLine},
};

pub(super) struct Reading {
    journal: Journal,
    plan: Plan,
    child: Journalctl,
    part: Part,
    /// Cursor of the last entry that was read, even if it was filtered.
    last: Option<String>,
    /// True if the child's first entry must be that one.
    resumes: bool,
    /// Ends when there is nothing to follow any more, and journald has written all of it.
    over: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The existing entries; a followed log continues with `Coming`.
    There,
    Coming,
    /// The remaining entries of a followed run.
    Rest,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("part", &self.part).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Reading {
    pub(super) async fn open(client: Client, journal: Journal, plan: Plan) -> Result<Self> {
        // A follow of everything reads what journald writes later, too. While a unit floods it, journald never catches up.
        if plan.follows.is_none() || plan.tail.is_some() {
            journal.flush().await?;
        }
        let (mut part, mut last) = (Part::There, None);
        let first;
        let from = match (&plan.follows, plan.tail, plan.until) {
            _ if plan.after.is_some() => {
                last = plan.after.as_ref().map(ToString::to_string);
                // A `--since` before the entry would hide it: times are compared here.
                From { cursor: plan.after.as_ref().map(JournaldCursor::as_str), ..From::default() }
            }
            (None, None, until) => From { since: plan.since, until, ..From::default() },
            // With `--since`, `--lines` counts from there on, and with `--until` later entries count too.
            (None, Some(tail), None) => From { last: Some(tail), ..From::default() },
            (None, Some(tail), until) => {
                first = journal.within(beginning(&journal, tail, until)).await?;
                let nothing = first.is_none().then_some(0);
                From { cursor: first.as_deref(), until, last: nothing, ..From::default() }
            }
            (Some(_), None, _) => {
                part = Part::Coming;
                From { since: plan.since, order: Order::Follow, ..From::default() }
            }
            // journalctl would count a tail when it begins to read: what is printed until then would be missed.
            (Some(_), Some(0), _) => {
                last = journal.within(journal.last()).await?.map(|entry| entry.cursor);
                part = Part::Coming;
                From { cursor: last.as_deref(), order: Order::Follow, ..From::default() }
            }
            (Some(_), Some(tail), _) => {
                first = journal.within(beginning(&journal, tail, None)).await?;
                if first.is_none() {
                    part = Part::Coming;
                }
                let order = if part == Part::Coming { Order::Follow } else { Order::Forward };
                From { cursor: first.as_deref(), order, ..From::default() }
            }
        };
        let child = journal.read(&from)?;
        let over = over(client, journal.clone(), plan.clone());
        let resumes = last.is_some();
        let continues = plan.after.is_some();
        let mut reading = Self { journal: journal.clone(), plan, child, part, last, resumes, over };
        if continues {
            journal.within(reading.resume()).await?;
        }
        Ok(reading)
    }

    /// Skips the entry of a cursor, or fails because it is not there.
    async fn resume(&mut self) -> Result<()> {
        let entry = self.child.entry().await.map_err(|error| {
            let is_refused = error.kind() == ErrorKind::Unavailable && error.message().contains("seek to cursor");
            if is_refused { self.journal.error(ErrorKind::InvalidInput, "journald has no such cursors") } else { error }
        })?;
        if entry.is_none_or(|entry| self.last.as_deref() != Some(entry.cursor.as_str())) {
            let message = "the journal of this unit does not have the entry of the cursor, or no longer";
            return Err(self.journal.error(ErrorKind::Expired, message));
        }
        self.resumes = false;
        Ok(())
    }

    /// Returns the next line; `None`: that was the last.
    ///
    /// # Cancel safety
    /// No line is lost.
    pub(super) async fn line(&mut self) -> Result<Option<JournaldLine>> {
        loop {
            let entry = if self.part == Part::Coming {
                tokio::select! {
                    over = &mut self.over => {
                        over?;
                        self.go_on(Part::Rest)?;
                        continue;
                    }
                    entry = self.child.entry() => entry,
                }
            } else {
                self.child.entry().await
            };
            match entry {
                Ok(Some(entry)) => {
                    let is_first = std::mem::take(&mut self.resumes);
                    let is_known = self.last.as_deref() == Some(entry.cursor.as_str());
                    if is_first && !is_known {
                        return Err(self.expired());
                    }
                    self.last = Some(entry.cursor.clone());
                    if is_first {
                        continue;
                    }
                    if self.plan.wants(&entry) {
                        return self.taken(entry).map(Some);
                    }
                }
                Ok(None) if self.resumes => return Err(self.expired()),
                Ok(None) => match self.part {
                    Part::There if self.plan.follows.is_some() => self.go_on(Part::Coming)?,
                    Part::There | Part::Rest => return Ok(None),
                    Part::Coming => {
                        return Err(self.journal.error(ErrorKind::Unavailable, "journalctl stopped following"));
                    }
                },
                Err(error) => return Err(error),
            }
        }
    }

    fn taken(&self, entry: Entry) -> Result<JournaldLine> {
        let cursor = JournaldCursor::new(entry.cursor)
            .map_err(|error| self.journal.error(ErrorKind::Protocol, "an entry has no cursor").with_source(error))?;
        let at = if self.plan.timestamps { crate::normalize::time(entry.at) } else { None };
        Ok(JournaldLine { line: LogLine::new(LogSource::Console, at, Bytes::from(entry.bytes)), cursor })
    }

    fn go_on(&mut self, part: Part) -> Result<()> {
        self.part = part;
        self.resumes = self.last.is_some();
        let order = if part == Part::Coming { Order::Follow } else { Order::Forward };
        let since = if self.resumes { None } else { self.plan.since };
        let from = From { cursor: self.last.as_deref(), since, order, ..From::default() };
        // The previous child is killed here, and reaped by the runtime.
        self.child = self.journal.read(&from)?;
        Ok(())
    }

    /// Ends the child, as another process could.
    #[cfg(test)]
    pub(super) fn kill(&mut self) {
        self.child.kill();
    }

    /// Changes the last cursor, as if the journal had dropped its entry.
    #[cfg(test)]
    pub(super) fn lose_last(&mut self) {
        self.last = self.last.take().map(|last| last.replace(";x=", ";x=f"));
    }

    fn expired(&self) -> runtide_core::Error {
        self.journal.error(ErrorKind::Expired, "the journal dropped entries before they were read")
    }
}

/// Returns the cursor of the first of the last `tail` entries up to a time.
async fn beginning(journal: &Journal, tail: u32, until: Option<u64>) -> Result<Option<String>> {
    let mut child = journal.read(&From { last: Some(tail), until, order: Order::Backward, ..From::default() })?;
    let mut first = None;
    while let Some(entry) = child.entry().await? {
        first = Some(entry.cursor);
    }
    Ok(first)
}

/// Ends when there is nothing to follow any more, and journald has all of it: the run ended, or the time came.
fn over(client: Client, journal: Journal, plan: Plan) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    Box::pin(async move {
        let Some(run) = &plan.follows else { return std::future::pending().await };
        let time = async {
            match plan.deadline {
                Some(until) => tokio::time::sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = run.ended(&client, super::OPERATION, &plan.unit) => ended?,
            () = time => {}
        }
        journal.flush().await
    })
}

impl Plan {
    fn wants(&self, entry: &Entry) -> bool {
        if self.since.is_some_and(|since| entry.at < since) || self.until.is_some_and(|until| entry.at > until) {
            return false;
        }
        if self.invocation.as_ref().is_some_and(|run| entry.invocation.as_deref() != Some(run.as_str())) {
            return false;
        }
        // Of the runs that began since, none is followed.
        self.follows.as_ref().is_none_or(|run| {
            let is_its_own = match (&entry.invocation, &run.incarnation) {
                (Some(entry), Some(run)) => entry == run.as_str(),
                _ => true,
            };
            let is_before = run.began.is_none_or(|began| crate::normalize::time(entry.at).is_none_or(|at| at < began));
            is_its_own || is_before
        })
    }
}
