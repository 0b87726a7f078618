//! A source that tells what it is fed, and a inspector that shows the rows it is given.

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

/// The feeding end.
#[derive(Clone, Debug)]
pub struct Feed {
    signals: mpsc::UnboundedSender<Vec<Signal>>,
    looks: Arc<Looks>,
}

impl Feed {
    /// Signals that the source hands over in one batch.
    pub fn tell(&self, signals: Vec<Signal>) {
        self.signals.send(signals).expect("the source is there");
    }

    /// What the next look shows. It is given away: nothing of it stays here.
    pub fn will_show(&self, rows: Vec<Arc<Instance>>) {
        self.looks.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(rows);
    }
}

#[derive(Debug, Default)]
struct Looks(Mutex<VecDeque<Vec<Arc<Instance>>>>);

/// The source.
#[derive(Debug)]
pub struct Scripted {
    signals: mpsc::UnboundedReceiver<Vec<Signal>>,
    looks: Arc<Looks>,
}

impl Scripted {
    /// A driver on such a source, for one run, and its feed.
    pub fn driver(backend: &BackendId, options: DriverOptions) -> (Driver, Feed) {
        let (signals, told) = mpsc::unbounded_channel();
        let looks = Arc::<Looks>::default();
        let source = Mutex::new(Some(Self { signals: told, looks: Arc::clone(&looks) }));
        let make = move || source.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one run");
        (Driver::new(backend.clone(), options, make), Feed { signals, looks })
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
        Arc::clone(&self.looks) as Arc<dyn Inspector>
    }

    fn max_silence(&self) -> Option<Duration> {
        None
    }

    fn reports_edges(&self) -> bool {
        true
    }
}

#[async_trait]
impl Inspector for Looks {
    async fn list(&self, _detail: Detail) -> Result<Listing> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        rows.map(Listing::complete).ok_or_else(|| Error::new(ErrorKind::Unexpected, "bench.snapshot", "no look is due"))
    }

    async fn inspect(&self, _ids: &[InstanceId], _detail: Detail) -> Result<Vec<Inspection>> {
        Ok(Vec::new())
    }
}
