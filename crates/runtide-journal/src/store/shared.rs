//! The state that the store shares with the log: writes are decided in the log's order, and published once they are durable.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use runtide_core::store::{
    Document, LocalStore, Planned, PlannedChange, Precondition, Resource, ResourceRef, Revision, StoreImage,
};
use runtide_core::{
    Error, ErrorKind, Failure, Result, Retry,
    backend::lock,
    wal::{CommitHook, Commits, Forming, RecordKind, Seq, Wal},
};
use tokio::sync::Semaphore;

use super::{format, replay::stamped};
use crate::JournalOptions;

/// Memory for the writes under way, in KiB; each write takes at least one.
pub(super) const ROOM: u32 = 64 << 10;

/// Bytes of a checkpoint in one commit: few enough not to delay the writers of that commit, nor to fill the next group.
const STEP: usize = 256 << 10;

/// Bytes of a restore in one commit.
const BATCH: usize = 1 << 20;

/// Bytes of a record in addition to its body, about.
const OVERHEAD: usize = 128;

/// The inner store, and the state between it and the log. The log's group commit is the only queue: a write is decided and
/// pushed under its lock, and published by its leader.
pub(super) struct Shared<S> {
    pub(super) store: S,
    options: JournalOptions,
    pub(super) room: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Writes that are pushed and not yet published, in the order of the log.
    decided: VecDeque<Decided>,
    /// Replay position, as the next record carries it.
    checkpoint: Seq,
    /// Number of records since the last whole checkpoint.
    since: u64,
    /// Last revision that was assigned to a write.
    last: Revision,
    /// Number of the last record that the store has published.
    shown: Seq,
    /// The checkpoint that is being written.
    writing: Option<Checkpoint>,
    /// Number of a checkpoint's end that is not durable yet, and the replay position of that checkpoint.
    ending: Option<(Seq, Seq)>,
    /// Number of restores that were begun: an image that was taken before the last of them must not become a checkpoint.
    restores: u64,
    /// True while a restore is being written: no checkpoint is begun.
    restoring: bool,
}

/// A write that waits for the log.
struct Decided {
    seq: Seq,
    planned: Planned,
    /// Its share of the room, in KiB.
    kib: u32,
}

/// A checkpoint that is being written.
struct Checkpoint {
    /// Number of the first record that is not in the image.
    begin: Seq,
    image: StoreImage,
    /// Number of resources that were pushed to the log; `None` before the checkpoint's begin was.
    done: Option<usize>,
}

/// The effect of a write with its revision, and true if a record was pushed to the log.
pub(super) type Outcome = (Result<(PlannedChange, Revision)>, bool);

impl<S: LocalStore> Shared<S> {
    pub(super) fn new(
        store: S,
        options: JournalOptions,
        head: Seq,
        (checkpoint, since): (Seq, u64),
        last: Revision,
    ) -> Self {
        let state = State {
            decided: VecDeque::new(),
            checkpoint,
            since,
            last,
            shown: head,
            writing: None,
            ending: None,
            restores: 0,
            restoring: false,
        };
        let room = Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX));
        Self { store, options, room, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Decides a write, and pushes it if it changes anything. Runs under the log's lock, so that revisions and records have the
    /// same order.
    pub(super) fn decide(
        &self,
        forming: &mut Forming<'_>,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
        kib: u32,
    ) -> Outcome {
        let planned = match self.store.prepare(reference, document, precondition) {
            Ok(planned) if planned.change != PlannedChange::Nothing => planned,
            other => return (other.map(|planned| (planned.change, planned.revision)), false),
        };
        let decided = (planned.change, planned.revision);
        let mut state = self.state();
        let checkpoint = state.checkpoint;
        let seq = forming.push(format::KIND, |bytes| format::written(bytes, checkpoint, &planned));
        state.last = state.last.max(planned.revision);
        state.since += 1;
        state.decided.push_back(Decided { seq, planned, kib });
        (Ok(decided), true)
    }

    /// Returns the number of restores so far if a checkpoint is due.
    fn is_due(&self) -> Option<u64> {
        let rows = usize::try_from(self.store.count()).unwrap_or(usize::MAX);
        let state = self.state();
        let busy = state.writing.is_some() || state.ending.is_some() || state.restoring;
        (!busy && self.options.is_due(state.since, rows)).then_some(state.restores)
    }

    /// Replaces everything; blocks. The caller holds all of the room, so that no write is under way, and none can begin.
    pub(super) fn restore(&self, wal: &Wal, resources: Vec<Arc<Resource>>) -> Result<Revision> {
        let (revision, checkpoint) = {
            let mut state = self.state();
            // No record may come between the parts of a restore: abandon the checkpoint that is being written.
            (state.writing, state.restoring) = (None, true);
            state.restores += 1;
            state.last = Revision(state.last.0.saturating_add(1));
            (state.last, state.checkpoint)
        };
        let image = StoreImage::new(revision, stamped(resources, revision));
        let written = write_restore(wal, checkpoint, &image);
        let begin = match written {
            Ok(begin) => begin,
            Err(error) => {
                self.state().restoring = false;
                return Err(error);
            }
        };
        self.store.load(image);
        let mut state = self.state();
        (state.checkpoint, state.since, state.ending, state.restoring) = (begin, 0, None, false);
        drop(state);
        self.drop_old(begin, || wal.sync_blocking(), |policy| wal.retain(policy).map(drop));
        Ok(revision)
    }

    /// Applies the retention once a checkpoint is whole: the records before it may be dropped.
    fn drop_old(
        &self,
        begin: Seq,
        sync: impl FnOnce() -> Result<()>,
        retain: impl FnOnce(runtide_core::wal::Retention) -> Result<()>,
    ) {
        tracing::debug!(at = %begin, "wrote a checkpoint of the store");
        let Some(policy) = self.options.retention.clone() else { return };
        let keep = policy.keep_from.map_or(begin, |keep| keep.min(begin));
        // Depending on the log's durability, acknowledged records may not be synced yet. The checkpoint must be, before the
        // records that it replaces are dropped.
        if let Err(error) = sync().and_then(|()| retain(policy.with_keep_from(keep))) {
            // A failure of the log is reported to the next write.
            tracing::warn!(error = format_args!("{error:#}"), "nothing was dropped from the store's log");
        }
    }
}

impl<S: LocalStore> CommitHook for Shared<S> {
    fn committed(&self, last: Seq) {
        let (mut planned, mut room) = (Vec::new(), 0);
        {
            let mut state = self.state();
            state.shown = last;
            let count = state.decided.partition_point(|one| one.seq <= last);
            planned.reserve_exact(count);
            planned.extend(state.decided.drain(..count).map(|one| {
                room += one.kib as usize;
                one.planned
            }));
        }
        if !planned.is_empty() {
            self.store.publish(planned);
            self.room.add_permits(room);
        }
    }

    fn settled(&self, commits: &Commits<'_>) {
        let ended = {
            let mut state = self.state();
            let shown = state.shown;
            state.ending.take_if(|(end, _)| *end <= shown)
        };
        if let Some((_, begin)) = ended {
            self.state().since = 0;
            self.drop_old(begin, || commits.sync(), |policy| commits.retain(&policy).map(drop));
        }
        if let Some(restores) = self.is_due() {
            // No other thread publishes now, except a restore, which the count detects.
            let image = self.store.image();
            let mut state = self.state();
            if state.restores == restores {
                state.writing = Some(Checkpoint { begin: state.shown.next(), image, done: None });
            }
        }
        if self.state().writing.is_some() {
            commits.hand_over(|forming| self.state().step(forming));
        }
    }

    fn failed(&self) {
        let mut state = self.state();
        state.writing = None;
        let decided = std::mem::take(&mut state.decided);
        drop(state);
        let room = decided.iter().map(|one| one.kib as usize).sum();
        decided.into_iter().rev().for_each(|one| self.store.forget(one.planned));
        self.room.add_permits(room);
    }
}

impl State {
    /// Pushes the next part of the checkpoint that is being written.
    fn step(&mut self, forming: &mut Forming<'_>) {
        let Some(writing) = &mut self.writing else { return };
        let checkpoint = self.checkpoint;
        let (revision, count) = (writing.image.revision, writing.image.resources.len());
        let mut done = writing.done.unwrap_or_else(|| {
            forming.push(format::KIND, |to| format::begin(to, checkpoint, revision, count as u64, false));
            self.since += 1;
            0
        });
        let mut bytes = 0;
        for resource in writing.image.resources.iter().skip(done) {
            bytes += resource.written().bytes.len() + OVERHEAD;
            forming.push(format::KIND, |to| format::part(to, checkpoint, resource));
            self.since += 1;
            done += 1;
            if bytes >= STEP {
                break;
            }
        }
        writing.done = Some(done);
        if done < count {
            return;
        }
        let begin = writing.begin;
        let end = forming.push(format::KIND, |to| format::end(to, begin, revision, count as u64));
        (self.writing, self.ending) = (None, Some((end, begin)));
        // Every later record is in the log only if this end is: from now on records carry the new replay position.
        self.checkpoint = begin;
    }
}

/// Writes a restore to the log; returns the number of its begin record.
fn write_restore(wal: &Wal, checkpoint: Seq, image: &StoreImage) -> Result<Seq> {
    let (revision, count) = (image.revision, image.resources.len() as u64);
    let append = |payloads: &mut Vec<Vec<u8>>| {
        let records: Vec<(RecordKind, &[u8])> = payloads.iter().map(|one| (format::KIND, one.as_slice())).collect();
        let appended = wal.append_reserved_blocking(&records);
        payloads.clear();
        appended.map_err(|error| store_error(&error, true))
    };
    let payload = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    // Appended by itself, since the end carries its number, which is not known before: parts of a checkpoint may still be in the
    // forming group.
    let first = append(&mut vec![payload(&|to| format::begin(to, checkpoint, revision, count, true))])?;
    let (begin, mut payloads, mut bytes) = (*first.start(), Vec::new(), 0);
    for resource in &image.resources {
        bytes += resource.written().bytes.len() + OVERHEAD;
        payloads.push(payload(&|to| format::part(to, checkpoint, resource)));
        if bytes >= BATCH {
            append(&mut payloads)?;
            bytes = 0;
        }
    }
    payloads.push(payload(&|to| format::end(to, begin, revision, count)));
    append(&mut payloads)?;
    Ok(begin)
}

/// The log's failure as an error of the store. `begun`: the write may be there after the next opening (`outcome=unknown`).
pub(super) fn store_error(error: &Error, begun: bool) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return Error::new(ErrorKind::Cancelled, super::APPLY, "the store was closed");
    }
    let mut failure = Failure::from(error);
    super::APPLY.clone_into(&mut failure.operation);
    let failed = Error::from(failure).with_retry(Retry::Never);
    if begun { failed.with_context("outcome", "unknown") } else { failed }
}
