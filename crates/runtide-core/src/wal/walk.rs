//! Walks through one segment commit by commit, and checks that each continues the one before it.

use std::io;

use super::{
    chain::Chain,
    format::{COMMIT_HEADER, CommitHeader, Hash, LogId},
    scan::{Whole, check_commit},
    segment::{DATA, Segment},
    window::{STEP, Window},
};

/// A position between two commits of a segment.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) window: Window<'a>,
    log: LogId,
    /// Offset of the next commit.
    pub(super) at: u64,
    /// Number of the next commit's first record.
    pub(super) next: u64,
    /// Hash of the previous commit.
    pub(super) hash: Hash,
    /// Epoch of the previous commit.
    pub(super) epoch: u64,
    /// The last record that the commits so far state to be durable.
    pub(super) synced: u64,
    /// Offset beyond which no commit reaches.
    pub(super) limit: u64,
}

impl<'a> Walk<'a> {
    /// Begins at the segment's first commit.
    pub(super) fn new(segment: &'a Segment, limit: u64) -> Self {
        let header = &segment.header;
        Self {
            window: Window::new(&*segment.file, limit, STEP),
            log: header.log,
            at: DATA,
            next: header.first,
            hash: header.prev,
            epoch: header.epoch,
            synced: header.synced,
            limit,
        }
    }

    /// The header of the commit here, even if it does not continue the previous one.
    pub(super) fn header(&mut self) -> io::Result<Option<CommitHeader>> {
        let (log, at) = (self.log, self.at);
        let header = self.window.get(at, COMMIT_HEADER)?.and_then(|bytes| CommitHeader::decode(bytes, &log, at));
        Ok(header.filter(|header| at + header.size() <= self.limit))
    }

    /// Returns true if this commit continues the previous one.
    pub(super) fn follows(&self, header: &CommitHeader) -> bool {
        header.first == self.next && header.prev == self.hash && header.epoch >= self.epoch
    }

    /// Moves past the next commit, if it continues the previous one and is whole; with a chain, its hash is checked as well.
    pub(super) fn step(&mut self, chain: Option<&Chain>) -> io::Result<Option<CommitHeader>> {
        let Some(header) = self.header()?.filter(|header| self.follows(header)) else { return Ok(None) };
        if check_commit(&mut self.window, self.at, &header, chain)? != Whole::Yes {
            return Ok(None);
        }
        self.pass(&header);
        Ok(Some(header))
    }

    /// Moves past this commit.
    pub(super) fn pass(&mut self, header: &CommitHeader) {
        self.at += header.size();
        self.next = header.last().saturating_add(1);
        self.hash = header.hash;
        self.epoch = header.epoch;
        self.synced = self.synced.max(header.synced);
    }
}
