//! The life of one instance, read from the log.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    fold::Entry,
    format::{self, Journal},
};
use crate::{
    BackendId, Error, ErrorKind, InstanceId, Result, RuntimeEvent, RuntimeEventKind,
    wal::{Seq, WalReader},
};

/// Records read in one go.
const STRETCH: usize = 4_096;

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
struct Reading {
    reader: WalReader,
    head: Seq,
    sieve: Sieve,
    out: VecDeque<Arc<RuntimeEvent>>,
    over: bool,
}

impl Reading {
    fn stretch(mut self) -> (Self, Option<Error>) {
        for _ in 0..STRETCH {
            match self.reader.next() {
                Some(Ok(record)) if record.seq <= self.head => match format::decode(Journal::Events, &record) {
                    Ok(Some(Entry::Event(event))) => self.sieve.take(event, &mut self.out),
                    Ok(Some(Entry::Watch { backend, .. })) => self.sieve.abandon(&backend),
                    Ok(_) => {}
                    Err(error) => return (self, Some(error)),
                },
                Some(Err(error)) => return (self, Some(error)),
                Some(Ok(_)) | None => {
                    self.over = true;
                    break;
                }
            }
        }
        (self, None)
    }
}

pub(super) struct History {
    handle: Handle,
    reading: Option<Reading>,
    under_way: Option<JoinHandle<(Reading, Option<Error>)>>,
    ready: VecDeque<Arc<RuntimeEvent>>,
    failed: Option<Error>,
}

impl History {
    pub(super) fn new(reader: WalReader, head: Seq, handle: Handle, backend: BackendId, id: InstanceId) -> Self {
        let sieve = Sieve { backend, id, known: false, bracket: None, shown: false };
        let reading = Reading { reader, head, sieve, out: VecDeque::new(), over: false };
        Self { handle, reading: Some(reading), under_way: None, ready: VecDeque::new(), failed: None }
    }
}

impl Stream for History {
    type Item = Result<Arc<RuntimeEvent>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = self.failed.take() {
                (self.reading, self.under_way) = (None, None);
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(under_way) = &mut self.under_way {
                let done = ready!(Pin::new(under_way).poll(cx));
                self.under_way = None;
                if let Ok((mut reading, failed)) = done {
                    self.ready = std::mem::take(&mut reading.out);
                    self.failed = failed;
                    self.reading = Some(reading).filter(|reading| !reading.over);
                } else {
                    let over = "the tokio runtime is shutting down";
                    self.failed = Some(Error::new(ErrorKind::Cancelled, "journal.history", over));
                }
                continue;
            }
            let Some(reading) = self.reading.take() else { return Poll::Ready(None) };
            self.under_way = Some(self.handle.spawn_blocking(move || reading.stretch()));
        }
    }
}
