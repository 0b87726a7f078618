//! Going on behind corruption: finds the records that are missing, and the position where reading goes on.

use bytes::Bytes;

use super::{READ, WalReader};
use crate::{
    error::{Error, ErrorKind, Result},
    wal::{
        corruption::Corruption,
        format::CommitHeader,
        scan::{end_of_bytes, find_commit, find_frame},
    },
};

impl WalReader {
    /// The commit or frame that should be here is not: finds the position where the log goes on. `None` with an empty block: it
    /// does not, this is the end or an unfinished tail. `None` with a block: it is here after all.
    pub(super) fn lost(&mut self) -> Result<Option<Corruption>> {
        if let Some((end, last)) = self.run {
            // The frame here was refused, so the search begins one byte behind its start.
            return self.resume(self.at.saturating_add(1), end, last).map(Some);
        }
        let later_segment = self.later_segment()?;
        if later_segment == Some(self.next) && self.next_segment()? {
            // The next segment was named since it was last searched for: this segment ended here.
            self.fill(self.at, 1)?;
            return Ok(None);
        }
        if self.appeared()? {
            return Ok(None);
        }
        let footer = self.segment.footer().map_err(|error| self.failed(error))?;
        let limit = match &footer {
            Some((start, _)) => *start,
            None => self.segment.size(READ)?,
        };
        let (at, next, log, epoch) = (self.at, self.next, self.log, self.epoch);
        let was_there = self.bound.is_some()
            || later_segment.is_some()
            || footer
                .as_ref()
                .is_some_and(|(_, footer)| footer.end > at && footer.last >= next && footer.synced >= footer.last);
        let accept = |header: &CommitHeader| {
            header.first >= next && header.epoch >= epoch && (was_there || header.synced >= next)
        };
        let later = find_commit(&mut self.window()?, at, limit, &log, accept).map_err(|error| self.failed(error))?;
        // The commit may have been written in the meantime.
        if self.appeared()? {
            return Ok(None);
        }
        let (end, last) = match (later, later_segment, &self.bound, footer) {
            (Some((end, header)), ..) => (end, header.first - 1),
            (None, Some(first), ..) => (limit, first - 1),
            (None, None, _, Some((_, footer))) if was_there => (footer.end.max(at), footer.last),
            (None, None, Some(bound), _) => {
                self.done = true;
                (limit, bound.acked())
            }
            (None, None, None, _) => {
                self.block = Bytes::new();
                return Ok(None);
            }
        };
        if end <= self.at && last < self.next {
            // Everything that was skipped is reported already, and nothing follows that continues this.
            self.block = Bytes::new();
            return Ok(None);
        }
        self.resume(self.at, end, last).map(Some)
    }

    /// Bytes behind the end that are no commit: a torn tail, or a commit that is just being written.
    pub(in crate::wal) fn unfinished(&self) -> Result<Option<Corruption>> {
        let footer = self.segment.footer().map_err(|error| self.failed(error))?;
        let limit = footer.map_or(u64::MAX, |(start, _)| start);
        let end = end_of_bytes(&mut self.window()?, self.at, limit).map_err(|error| self.failed(error))?;
        Ok((end > self.at).then(|| Corruption::new(&self.segment.path, self.at, end, None)))
    }

    /// The first record of the next segment, if there is one.
    fn later_segment(&mut self) -> Result<Option<u64>> {
        if let Some((first, ..)) = self.ahead.front() {
            return Ok(Some(*first));
        }
        let layout = self.layout()?;
        let later = layout.segments.iter().map(|(first, _)| *first).find(|first| *first > self.segment.header.first);
        if let (Some(later), Some(begin)) = (later, layout.begin)
            && later == begin
            && later > self.next
        {
            return Err(Error::new(ErrorKind::Expired, READ, "retention has overtaken the reader")
                .with_context("seq", self.next)
                .with_context("first", later));
        }
        Ok(later)
    }

    /// Reads again, and returns true if the commit is there now: it may have been written while it was being read.
    fn appeared(&mut self) -> Result<bool> {
        self.block = Bytes::new();
        let Some(header) = self.following()? else { return Ok(false) };
        let whole = self.at + header.size() <= self.segment.size(READ)? && self.is_whole(&header)?;
        Ok(whole && !self.block.is_empty())
    }

    /// Goes on behind corruption: at the next sound frame from `from` to `end`, or at `end`, where record `last` ends.
    fn resume(&mut self, from: u64, end: u64, last: u64) -> Result<Corruption> {
        let found = if last < self.next {
            None
        } else {
            find_frame(&mut self.window()?, from, end, self.next..=last).map_err(|error| self.failed(error))?
        };
        let (behind, missing) = found.map_or((end, last), |(at, frame)| (at, frame.seq.saturating_sub(1)));
        let corruption = Corruption::new(&self.segment.path, self.at, behind, Some((self.next, missing)));
        (self.at, self.checked, self.hash) = (behind, 0, None);
        self.next = self.next.max(missing.saturating_add(1));
        self.run = found.map(|_| (end, last));
        Ok(corruption)
    }
}
