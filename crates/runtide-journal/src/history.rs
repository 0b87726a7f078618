//! The life of one instance, read from the log.

use std::{collections::VecDeque, sync::Arc};

use super::{
    blocking::{BlockingStep, STRETCH},
    fold::Entry,
    format::{self, Journal},
};
use runtide_core::{
    BackendId, InstanceId, Result, RuntimeEvent, RuntimeEventKind,
    wal::{Seq, WalReader},
};

/// Which events belong to one life. Pure.
struct Sieve {
    backend: BackendId,
    id: InstanceId,
    /// It was there before the bracket.
    known: bool,
    /// The begin of a bracket that has not shown it.
    bracket: Option<Arc<RuntimeEvent>>,
    /// The bracket shows it.
    shown: bool,
}

impl Sieve {
    fn take(&mut self, event: Arc<RuntimeEvent>, out: &mut VecDeque<Arc<RuntimeEvent>>) {
        if event.backend != self.backend {
            return;
        }
        match &event.kind {
            RuntimeEventKind::ResyncBegin { .. } => {
                self.bracket = Some(event);
                self.shown = false;
            }
            RuntimeEventKind::ResyncEnd => {
                let begin = self.bracket.take();
                // Not shown, though it was there: it is gone, and the bracket says so.
                let gone = self.known && !self.shown && begin.is_some();
                if gone {
                    out.extend(begin);
                }
                if gone || self.shown {
                    out.push_back(event);
                }
                self.known = self.shown;
                self.shown = false;
            }
            kind => {
                if kind.instance().is_none_or(|instance| instance.id != self.id) {
                    return;
                }
                if matches!(kind, RuntimeEventKind::Present(_)) {
                    out.extend(self.bracket.take());
                    self.shown = true;
                } else {
                    self.known = !matches!(kind, RuntimeEventKind::Removed(_));
                }
                out.push_back(event);
            }
        }
    }

    /// A bracket that was never closed shows nothing.
    fn abandon(&mut self, backend: &BackendId) {
        if *backend == self.backend {
            self.bracket = None;
            self.shown = false;
        }
    }
}

/// What is carried to the thread that may block, and back.
pub(super) struct Reading {
    reader: WalReader,
    head: Seq,
    sieve: Sieve,
}

impl Reading {
    pub(super) fn new(reader: WalReader, head: Seq, backend: BackendId, id: InstanceId) -> Self {
        Self { reader, head, sieve: Sieve { backend, id, known: false, bracket: None, shown: false } }
    }
}

impl BlockingStep for Reading {
    type Item = Arc<RuntimeEvent>;

    fn stretch(&mut self, out: &mut VecDeque<Self::Item>) -> Result<bool> {
        for _ in 0..STRETCH {
            match self.reader.next().transpose()? {
                Some(record) if record.seq <= self.head => match format::decode(Journal::Events, &record)? {
                    Some(Entry::Event(event)) => self.sieve.take(event, out),
                    Some(Entry::Watch { backend, .. }) => self.sieve.abandon(&backend),
                    _ => {}
                },
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
