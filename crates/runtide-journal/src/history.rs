//! The history of one instance, read from the log.

use std::{collections::VecDeque, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    blocking::{BlockingStep, STRETCH},
    fold::Entry,
    format::{self, Journal},
    writer::closed,
};
use runtide_core::{
    BackendId, InstanceId, Result, RuntimeEvent, RuntimeEventKind,
    wal::{Seq, WalReader},
};

/// Selects the events of one instance. Pure.
pub(super) struct Selection {
    backend: BackendId,
    id: InstanceId,
    /// The instance was present before the resync.
    known: bool,
    /// Begin of an open resync that has not listed the instance.
    resync: Option<Arc<RuntimeEvent>>,
    /// The open resync listed the instance.
    listed: bool,
}

impl Selection {
    pub(super) fn new(backend: BackendId, id: InstanceId) -> Self {
        Self { backend, id, known: false, resync: None, listed: false }
    }

    fn take(&mut self, event: Arc<RuntimeEvent>, out: &mut VecDeque<Arc<RuntimeEvent>>) {
        if event.backend != self.backend {
            return;
        }
        match &event.kind {
            RuntimeEventKind::ResyncBegin { .. } => {
                self.resync = Some(event);
                self.listed = false;
            }
            RuntimeEventKind::ResyncEnd(_) => {
                let begin = self.resync.take();
                // Present before and not listed: the instance is gone, and this resync reported it.
                let gone = self.known && !self.listed && begin.is_some();
                if gone {
                    out.extend(begin);
                }
                if gone || self.listed {
                    out.push_back(event);
                }
                self.known = self.listed;
                self.listed = false;
            }
            kind => {
                if kind.instance().is_none_or(|instance| instance.id != self.id) {
                    return;
                }
                if matches!(kind, RuntimeEventKind::Present(_)) {
                    out.extend(self.resync.take());
                    self.listed = true;
                } else {
                    self.known = !matches!(kind, RuntimeEventKind::Removed(_));
                }
                out.push_back(event);
            }
        }
    }

    /// Discards a resync that was never closed.
    fn abandon(&mut self, backend: &BackendId) {
        if *backend == self.backend {
            self.resync = None;
            self.listed = false;
        }
    }
}

/// Reads one stretch of the log per step, on a blocking thread.
pub(super) struct HistoryReader {
    reader: WalReader,
    /// The log's last record when the history was requested.
    head: Seq,
    selection: Selection,
    /// Cancelled once the journal is closed.
    closed: CancellationToken,
}

impl HistoryReader {
    pub(super) fn new(reader: WalReader, head: Seq, selection: Selection, closed: CancellationToken) -> Self {
        Self { reader, head, selection, closed }
    }
}

impl BlockingStep for HistoryReader {
    type Item = Arc<RuntimeEvent>;

    fn stretch(&mut self, out: &mut VecDeque<Self::Item>) -> Result<bool> {
        if self.closed.is_cancelled() {
            return Err(closed("journal.history"));
        }
        for _ in 0..STRETCH {
            match self.reader.next().transpose()? {
                Some(record) if record.seq <= self.head => match format::decode(Journal::Events, &record)? {
                    Some(Entry::Event(event)) => self.selection.take(event, out),
                    Some(Entry::Watch { backend, .. }) => self.selection.abandon(&backend),
                    _ => {}
                },
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
