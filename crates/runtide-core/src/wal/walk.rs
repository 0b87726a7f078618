//! Commit after commit through one segment, each tied to the one before it.

use std::io;

use super::{
    chain::Chain,
    format::{COMMIT_HEADER, CommitHeader, Hash, LogId},
    scan::{Whole, check_commit},
    segment::{DATA, Segment},
    window::Window,
};

/// How much recovery and verification read at once, in bytes: a whole commit, unless it is one large batch.
pub(super) const STEP: usize = super::queue::GROUP_BYTES;

/// A place between two commits of a segment.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) window: Window<'a>,
    log: LogId,
    /// Where the next commit should be.
    pub(super) at: u64,
    /// The number that its first record should have.
    pub(super) next: u64,
    /// The hash of the commit before it.
    pub(super) hash: Hash,
    /// The epoch of the commit before it.
    pub(super) epoch: u64,
    /// What the last commit said to be durable.
    pub(super) synced: u64,
    /// No commit reaches beyond.
    pub(super) limit: u64,
}

impl<'a> Walk<'a> {
    /// Begins at a segment's beginning.
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

    /// The header of whatever commit is here, tied to the one before or not.
    pub(super) fn header(&mut self) -> io::Result<Option<CommitHeader>> {
        let (log, at) = (self.log, self.at);
        let header = self.window.get(at, COMMIT_HEADER)?.and_then(|bytes| CommitHeader::decode(bytes, &log, at));
        Ok(header.filter(|header| at + header.size() <= self.limit))
    }

    /// Whether this is the commit that should be here.
    pub(super) fn follows(&self, header: &CommitHeader) -> bool {
        header.first == self.next && header.prev == self.hash && header.epoch >= self.epoch
    }

    /// One commit further, if it is the right one and whole; with a chain, its hash is checked as well.
    pub(super) fn step(&mut self, chain: Option<&Chain>) -> io::Result<Option<CommitHeader>> {
        let Some(header) = self.header()?.filter(|header| self.follows(header)) else { return Ok(None) };
        if check_commit(&mut self.window, self.at, &header, chain)? != Whole::Yes {
            return Ok(None);
        }
        self.pass(&header);
        Ok(Some(header))
    }

    /// Goes behind this commit.
    pub(super) fn pass(&mut self, header: &CommitHeader) {
        self.at += header.size();
        self.next = header.last().saturating_add(1);
        self.hash = header.hash;
        self.epoch = header.epoch;
        self.synced = self.synced.max(header.synced);
    }
}
