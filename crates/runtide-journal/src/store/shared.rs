//! What the store shares with the log: it decides in the log's order, and shows what the log says is durable.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use runtide_core::store::{
    Document, LocalStore, Planned, PlannedChange, Precondition, Resource, ResourceRef, Revision, StoreImage,
};
use runtide_core::{
    Error, ErrorKind, Result, Retry,
    backend::lock,
    wal::{CommitHook, Commits, Forming, RecordKind, Seq, Wal},
};
use tokio::sync::Semaphore;

use super::{format, replay::stamped};
use crate::JournalOptions;

/// Room for writes that are under way, in KiB; each takes one at least.
pub(super) const ROOM: u32 = 64 << 10;

/// Bytes of a checkpoint that go into a commit, so that its writers hardly notice, and find room in the next one.
const STEP: usize = 256 << 10;

/// Bytes of a restore that go into a commit.
const BATCH: usize = 1 << 20;

/// Bytes of a record that are not its body, about.
const OVERHEAD: usize = 128;

/// The store, and what stands between it and the log. The log's group commit is the only queue: a write is decided and pushed
/// under its lock, and shown by its leader.
pub(super) struct Shared<S> {
    pub(super) store: S,
    options: JournalOptions,
    pub(super) room: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Pushed and not yet shown, in the order of the log.
    decided: VecDeque<Decided>,
    /// Where reading begins, as the next record says.
    checkpoint: Seq,
    /// Records since the last whole checkpoint.
    since: u64,
    /// The last revision that was given away.
    last: Revision,
    /// The last record that the store shows.
    shown: Seq,
    writing: Option<Checkpoint>,
    /// The end of a checkpoint that is not durable yet, and where its reading begins.
    ending: Option<(Seq, Seq)>,
    /// Restores that were begun: an image that was taken before the last one is no checkpoint.
    restores: u64,
    restoring: bool,
}

/// A write that waits for the log.
struct Decided {
    seq: Seq,
    planned: Planned,
    /// Its room.
    kib: u32,
}

/// A checkpoint that is being written.
struct Checkpoint {
    /// The first record that is not in the image.
    begin: Seq,
    image: StoreImage,
    /// Resources that are in the log; none if not even the beginning is.
    done: Option<usize>,
}

/// What a write will do, and at which revision; and whether the log has it.
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

    /// Decides a write, and pushes it if it changes anything. Under the log's lock, so that the order of the revisions is that of
    /// the records.
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

    /// Whether a checkpoint is to be begun, and after how many restores.
    fn is_due(&self) -> Option<u64> {
        let rows = usize::try_from(self.store.count()).unwrap_or(usize::MAX);
        let state = self.state();
        let busy = state.writing.is_some() || state.ending.is_some() || state.restoring;
        (!busy && self.options.is_due(state.since, rows)).then_some(state.restores)
    }

    /// Replaces everything; blocks. The caller has all the room, so that no write is under way, nor begins.
    pub(super) fn restore(&self, wal: &Wal, resources: Vec<Arc<Resource>>) -> Result<Revision> {
        let (revision, checkpoint) = {
            let mut state = self.state();
            // Nothing stands between the parts of a restore.
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

    /// A checkpoint is whole: what is before it may go.
    fn drop_old(
        &self,
        begin: Seq,
        sync: impl FnOnce() -> Result<()>,
        retain: impl FnOnce(runtide_core::wal::Retention) -> Result<()>,
    ) {
        tracing::debug!(at = %begin, "a checkpoint of the store");
        let Some(policy) = self.options.retention.clone() else { return };
        let keep = policy.keep_from.map_or(begin, |keep| keep.min(begin));
        // What is acknowledged may not be synced, as the log's durability says: the checkpoint must be, before what it stands for
        // goes.
        if let Err(error) = sync().and_then(|()| retain(policy.with_keep_from(keep))) {
            // If it is a failure of the log, the next write is told.
            tracing::warn!(%error, "nothing was dropped from the store's log");
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
            // Only this thread shows anything just now, unless it is a restore.
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
        // What is pushed from now on is in the log only with the end before it.
        self.checkpoint = begin;
    }
}

/// Writes a restore to the log; the record with which it begins.
fn write_restore(wal: &Wal, checkpoint: Seq, image: &StoreImage) -> Result<Seq> {
    let (revision, count) = (image.revision, image.resources.len() as u64);
    let append = |payloads: &mut Vec<Vec<u8>>| {
        let records: Vec<(RecordKind, &[u8])> = payloads.iter().map(|one| (format::KIND, one.as_slice())).collect();
        let appended = wal.append_reserved_blocking(&records);
        payloads.clear();
        appended.map_err(|error| told(&error, true))
    };
    let payload = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    // Alone, since its number is part of the end: parts of a checkpoint may be before it that are not in the log yet.
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

/// The log's failure, as the store says it. `begun`: the write may be there after the next opening.
pub(super) fn told(error: &Error, begun: bool) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return Error::new(ErrorKind::Cancelled, super::APPLY, "the store was closed");
    }
    let told = Error::new(error.kind(), super::APPLY, error.message()).with_retry(Retry::Never);
    let told = error.context().iter().fold(told, |told, (key, value)| told.with_context(key, value));
    if begun { told.with_context("outcome", "unknown") } else { told }
}
