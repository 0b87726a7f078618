//! An instance's output: the bytes that it wrote, and those that are generated as they are read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::lock,
    manager::{LogLine, LogOptions, LogSource},
};

use super::{Emission, Look, MemoryRuntime, Phase, State};
use crate::fault::Call;

/// Bytes of a piece: a longer line travels in pieces of this size, as Docker's do.
const PIECE: usize = 16 << 10;

/// All that an instance wrote, in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// The number of the first of them; those before it were dropped.
    first: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    life: u64,
    source: LogSource,
    at: SystemTime,
    output: Output,
}

#[derive(Clone, Debug)]
enum Output {
    Written(Bytes),
    Emitted(Emission),
}

impl Entry {
    fn pieces(&self) -> u64 {
        match &self.output {
            Output::Written(_) => 1,
            Output::Emitted(emission) => emission.chunk_count(),
        }
    }

    fn wanted(&self, options: &LogOptions) -> bool {
        (options.sources.is_empty() || options.sources.contains(&self.source))
            && options.since.is_none_or(|since| self.at >= since)
            && options.until.is_none_or(|until| self.at < until)
    }
}

impl Log {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, entry: Entry, room: usize) {
        if let Output::Written(bytes) = &entry.output {
            self.bytes += bytes.len();
        }
        self.entries.push_back(entry);
        while self.bytes > room && self.entries.len() > 1 {
            if let Some(Entry { output: Output::Written(bytes), .. }) = self.entries.pop_front() {
                self.bytes -= bytes.len();
            }
            self.first += 1;
        }
    }

    /// Position of the first of the last `pieces` pieces.
    fn tail(&self, options: &LogOptions, mut pieces: u64) -> (u64, u64) {
        let mut number = self.end();
        for entry in self.entries.iter().rev() {
            if pieces == 0 {
                break;
            }
            number -= 1;
            if entry.wanted(options) {
                let has = entry.pieces();
                if has > pieces {
                    return (number, has - pieces);
                }
                pieces -= has;
            }
        }
        (number, 0)
    }
}

/// End of a reader's output.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// The output that was there when it was opened.
    Entry(u64),
    /// The end of all output.
    Output,
    /// The end of this run.
    Life(u64),
}

/// A reader of the output; it can finish reading output that is removed in the meantime.
#[derive(Debug)]
pub(crate) struct LogReader {
    runtime: MemoryRuntime,
    id: InstanceId,
    log: Arc<Mutex<Log>>,
    options: LogOptions,
    bound: Bound,
    /// The next entry, and the next piece of it.
    place: (u64, u64),
}

impl LogReader {
    /// A reader of the output that the options select.
    pub(crate) fn open(runtime: &MemoryRuntime, id: &InstanceId, options: LogOptions) -> Result<Self> {
        runtime.with(|state| {
            if options.follow {
                state.check_verb(Call::Logs, "logs_follow")?;
            }
            let log = state.log(id, Call::Logs)?;
            let (place, end) = {
                let log = lock(&log);
                (options.tail.map_or((log.first, 0), |tail| log.tail(&options, tail)), log.end())
            };
            let bound = if options.follow { Bound::Output } else { Bound::Entry(end) };
            Ok(Self { runtime: runtime.clone(), id: id.clone(), log, options, bound, place })
        })
    }

    /// A reader of the output that the present run (or the next one, if it does not run) writes from now on.
    pub(crate) fn attach(runtime: &MemoryRuntime, id: &InstanceId, next: bool) -> Result<Self> {
        runtime.with(|state| {
            let record = state.record(id, Call::Attach)?;
            let alive = record.phase.is_alive();
            if !alive && !next {
                return Err(super::conflict(id, Call::Attach, "it does not run"));
            }
            let life = record.life + u64::from(!alive);
            let log = state.log(id, Call::Attach)?;
            let place = (lock(&log).end(), 0);
            let options = LogOptions::default();
            Ok(Self { runtime: runtime.clone(), id: id.clone(), log, options, bound: Bound::Life(life), place })
        })
    }

    /// The run that it reads from; 0: from all.
    pub(crate) fn life(&self) -> u64 {
        if let Bound::Life(life) = self.bound { life } else { 0 }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<LogLine>> {
        let runtime = self.runtime.clone();
        let (entry, piece) = match runtime.inner.until(|state| self.look(state)).await? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        let bytes = match entry.output {
            Output::Written(bytes) => bytes,
            Output::Emitted(emission) => emission.chunk(piece).unwrap_or_default(),
        };
        Some(Ok(LogLine::new(entry.source, self.options.timestamps.then_some(entry.at), bytes)))
    }

    fn look(&mut self, state: &State) -> Look<Option<Result<(Entry, u64)>>> {
        let log = lock(&self.log);
        if self.place.0 < log.first {
            let lost = Error::new(ErrorKind::Expired, Call::Logs.operation(), "output was dropped before it was read");
            return Look::Ready(Some(Err(lost.with_context("instance", &self.id))));
        }
        loop {
            let (number, piece) = self.place;
            let there = usize::try_from(number - log.first).ok().and_then(|place| log.entries.get(place));
            let Some(entry) = there.filter(|_| !matches!(self.bound, Bound::Entry(end) if number >= end)) else {
                return if self.is_over(state) { Look::Ready(None) } else { Look::Later(None) };
            };
            let other_life = matches!(self.bound, Bound::Life(life) if life != entry.life);
            if !entry.wanted(&self.options) || other_life || piece >= entry.pieces() {
                self.place = (number + 1, 0);
                continue;
            }
            self.place = (number, piece + 1);
            return Look::Ready(Some(Ok((entry.clone(), piece))));
        }
    }

    /// `true` if no more output can come.
    fn is_over(&self, state: &State) -> bool {
        let Some(record) = state.records.get(&self.id) else { return true };
        match self.bound {
            Bound::Entry(_) => true,
            Bound::Output => matches!(record.phase, Phase::Exited | Phase::Failed),
            Bound::Life(life) => record.life > life || (record.life == life && !record.phase.is_alive()),
        }
    }
}

impl State {
    fn log(&mut self, id: &InstanceId, call: Call) -> Result<Arc<Mutex<Log>>> {
        self.record(id, call)?;
        Ok(Arc::clone(self.logs.entry(id.clone()).or_default()))
    }

    fn push_log(
        &mut self,
        id: &InstanceId,
        source: LogSource,
        outputs: impl IntoIterator<Item = Output>,
    ) -> Result<()> {
        let record = self.record(id, Call::Logs)?;
        let (life, at, room) = (record.life, self.wall(), self.options.log_bytes);
        let source = if record.design.tty { LogSource::Console } else { source };
        let log = self.log(id, Call::Logs)?;
        let mut log = lock(&log);
        for output in outputs {
            log.push(Entry { life, source, at, output }, room);
        }
        self.dirty = true;
        Ok(())
    }

    /// Line by line, as a runtime frames it.
    pub(super) fn write_log(&mut self, id: &InstanceId, source: LogSource, bytes: &Bytes) -> Result<()> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(PIECE));
        self.push_log(id, source, lines.map(|piece| Output::Written(bytes.slice_ref(piece))))
    }

    pub(super) fn emit_log(&mut self, id: &InstanceId, source: LogSource, emission: Emission) -> Result<()> {
        self.push_log(id, source, [Output::Emitted(emission)])
    }
}
