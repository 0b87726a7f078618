//! A source that emits the signals it is fed, and an inspector that lists the rows it is given.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    BackendId, Detail, Error, ErrorKind, Gap, Instance, InstanceId, Listing, Result,
    event::ResumeToken,
    watch::{Driver, DriverOptions, Flow, Inspection, Inspector, Opened, Signal, Source},
};
use tokio::sync::mpsc;

/// The feeding end of a [`Scripted`] source.
#[derive(Clone, Debug)]
pub struct Feed {
    signals: mpsc::UnboundedSender<Vec<Signal>>,
    scheduled: Arc<Scheduled>,
}

impl Feed {
    /// Emits signals, which the source hands over in one batch.
    pub fn emit(&self, signals: Vec<Signal>) {
        self.signals.send(signals).expect("the source is there");
    }

    /// Sets the rows of the next listing, which takes them.
    pub fn will_list(&self, rows: Vec<Arc<Instance>>) {
        self.scheduled.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(rows);
    }
}

/// Rows of the next listings.
#[derive(Debug, Default)]
struct Scheduled(Mutex<VecDeque<Vec<Arc<Instance>>>>);

/// The scripted source.
#[derive(Debug)]
pub struct Scripted {
    signals: mpsc::UnboundedReceiver<Vec<Signal>>,
    scheduled: Arc<Scheduled>,
}

impl Scripted {
    /// A driver on such a source, for one run, and the source's feed.
    pub fn driver(backend: &BackendId, options: DriverOptions) -> (Driver, Feed) {
        let (signals, receiver) = mpsc::unbounded_channel();
        let scheduled = Arc::<Scheduled>::default();
        let source = Mutex::new(Some(Self { signals: receiver, scheduled: Arc::clone(&scheduled) }));
        let make = move || source.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one run");
        (Driver::new(backend.clone(), options, make), Feed { signals, scheduled })
    }
}

#[async_trait]
impl Source for Scripted {
    async fn open(&mut self, _resume: Option<&ResumeToken>) -> Result<Opened> {
        Ok(Opened::Fresh(Gap::Initial))
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        match self.signals.recv().await {
            Some(mut signals) => {
                out.append(&mut signals);
                Ok(Flow::Open)
            }
            None => Ok(Flow::Closed),
        }
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        Arc::clone(&self.scheduled) as Arc<dyn Inspector>
    }

    fn max_silence(&self) -> Option<Duration> {
        None
    }

    fn reports_edges(&self) -> bool {
        true
    }
}

#[async_trait]
impl Inspector for Scheduled {
    async fn list(&self, _detail: Detail) -> Result<Listing> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        rows.map(Listing::complete).ok_or_else(|| Error::new(ErrorKind::Unexpected, "bench.snapshot", "no look is due"))
    }

    async fn inspect(&self, _ids: &[InstanceId], _detail: Detail) -> Result<Vec<Inspection>> {
        Ok(Vec::new())
    }
}
