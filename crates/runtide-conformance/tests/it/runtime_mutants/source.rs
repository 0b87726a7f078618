//! A source that is broken in one way, around the sound one.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    Detail, Gap, Listing, Result,
    event::ResumeToken,
    watch::{Flow, Inspector, Opened, Signal, SignalBody, Source},
};
use runtide_memory::{MemoryRuntime, MemorySource};
use tokio::time::Instant;

use super::table::Mutant;

/// Pause before a stream that was closed is replaced.
const PAUSE: Duration = Duration::from_secs(20);

pub(crate) struct Lying {
    how: Mutant,
    inner: MemorySource,
    runtime: MemoryRuntime,
    /// Time of the last batch.
    heard: Instant,
    /// The next batch is this one.
    pending: Option<SignalBody>,
    /// Number of edges so far.
    edges: u64,
}

impl Lying {
    pub(crate) fn new(how: Mutant, inner: MemorySource, runtime: MemoryRuntime) -> Self {
        Self { how, inner, runtime, heard: Instant::now(), pending: None, edges: 0 }
    }

    /// The token of the present boot with the number of `token`.
    fn of_this_boot(&self, token: &ResumeToken) -> ResumeToken {
        let newest = self.runtime.history().last().map(|fact| fact.token.clone());
        match newest.as_ref().and_then(|newest| newest.as_str().rsplit_once('.')) {
            Some((boot, _)) => ResumeToken::from(format!("{boot}.{token}")),
            None => token.clone(),
        }
    }

    async fn listed(&self) -> Result<Listing> {
        self.inner.inspector().list(Detail::Summary).await
    }

    /// Opens a fresh stream, and lists what is there.
    async fn replace(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        self.inner.open(None).await?;
        self.heard = Instant::now();
        out.push(Signal::new(SignalBody::Full(self.listed().await?)));
        Ok(Flow::Open)
    }
}

#[async_trait]
impl Source for Lying {
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        (self.pending, self.heard) = (None, Instant::now());
        let offered = match self.how {
            Mutant::CountsFromOne => resume.map(|token| self.of_this_boot(token)),
            _ => resume.cloned(),
        };
        let opened = self.inner.open(offered.as_ref()).await?;
        let lies = match (self.how, opened) {
            (Mutant::ResumesWithoutProof, Opened::Fresh(_)) => resume.is_some(),
            (Mutant::ResumesOverARestart, Opened::Fresh(gap)) => gap == Gap::RuntimeRestarted,
            _ => false,
        };
        self.pending = lies.then_some(SignalBody::CaughtUp);
        Ok(if lies { Opened::Resumed } else { opened })
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        if let Some(body) = self.pending.take() {
            out.push(Signal::new(body));
            return Ok(Flow::Open);
        }
        match self.how {
            Mutant::ReplacesASilentStream => {
                // A sound stream is never silent for three of its beats.
                let silence = self.max_silence().unwrap_or(PAUSE).mul_f64(0.8);
                match tokio::time::timeout_at(self.heard + silence, self.inner.next_batch(out)).await {
                    Ok(read) => {
                        self.heard = Instant::now();
                        read
                    }
                    Err(_) => self.replace(out).await,
                }
            }
            Mutant::ReplacesAClosedStream => {
                if self.inner.next_batch(out).await? == Flow::Open {
                    return Ok(Flow::Open);
                }
                // This future may be dropped on the way.
                tokio::time::sleep_until(self.heard + PAUSE).await;
                self.replace(out).await
            }
            Mutant::PollsNextToABadItem => {
                let mut reports = Vec::new();
                let flow = self.inner.next_batch(&mut reports).await?;
                if self.runtime.faults(|faults| faults.bad_items.is_empty()) {
                    out.append(&mut reports);
                } else {
                    out.push(Signal::new(SignalBody::Full(self.listed().await?)));
                }
                Ok(flow)
            }
            Mutant::CountsFromOne => {
                let flow = self.inner.next_batch(out).await?;
                for token in out.iter_mut().filter_map(|signal| signal.token.as_mut()) {
                    if let Some((_, number)) = token.as_str().rsplit_once('.') {
                        *token = ResumeToken::from(number);
                    }
                }
                Ok(flow)
            }
            Mutant::LosesOneEventInAHundred => {
                let flow = self.inner.next_batch(out).await?;
                out.retain(|signal| {
                    self.edges += u64::from(matches!(signal.body, SignalBody::Edge { .. }));
                    self.edges % 100 != 99 || !matches!(signal.body, SignalBody::Edge { .. })
                });
                Ok(flow)
            }
            _ => self.inner.next_batch(out).await,
        }
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        self.inner.inspector()
    }

    fn max_silence(&self) -> Option<Duration> {
        self.inner.max_silence()
    }

    fn reports_edges(&self) -> bool {
        self.inner.reports_edges()
    }
}
