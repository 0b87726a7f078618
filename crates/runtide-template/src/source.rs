//! Reports of the runtime ([`Source`]), and its listings and inspections ([`Inspector`]). No reconnecting, no diffing, no
//! queue: those are the driver's.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    Detail, Failure, InstanceId, Listing, Result,
    event::ResumeToken,
    watch::{Flow, Inspection, Inspector, Opened, Signal, Source},
};

use crate::{
    client::{Client, EVENTS},
    normalize,
    transport::Connection,
};

/// Most messages of one batch.
const BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct TemplateSource {
    client: Client,
    stream: Option<Connection>,
}

impl TemplateSource {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, stream: None }
    }
}

#[async_trait]
impl Source for TemplateSource {
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        self.stream = None;
        self.client.identify().await?;
        let (stream, opened) = self.client.events(resume).await?;
        self.stream = Some(stream);
        Ok(opened)
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        // Cancel-safe: there is one await, and a line that it returned is in `out` before the next.
        let Some(stream) = &mut self.stream else { return Ok(Flow::Closed) };
        for _ in 0..BATCH {
            let line = stream.line().await.map_err(|error| self.client.broken(EVENTS, error))?;
            let Some(line) = line else { return Ok(Flow::Closed) };
            normalize::signals(&self.client.config, &line, out);
            if !stream.has_line() {
                break;
            }
        }
        Ok(Flow::Open)
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        Arc::new(self.client.clone())
    }

    fn max_silence(&self) -> Option<Duration> {
        self.client.config.max_silence
    }

    fn reports_edges(&self) -> bool {
        // FORK: `true` only if the stream reports every start, end and removal by itself.
        false
    }
}

#[async_trait]
impl Inspector for Client {
    async fn list(&self, _: Detail) -> Result<Listing> {
        // FORK: say `Complete` only if every page was read.
        Ok(normalize::listing(&self.config, &Self::list(self).await?))
    }

    async fn inspect(&self, ids: &[InstanceId], _: Detail) -> Result<Vec<Inspection>> {
        // FORK: many in one request, if the runtime can.
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            let answer = match Self::inspect(self, id).await {
                Ok(None) => Inspection::Absent(id.clone()),
                Ok(Some(item)) => match normalize::instance(&self.config, &item) {
                    Ok(instance) => Inspection::Present(instance),
                    Err(cause) => Inspection::Unknown { id: id.clone(), cause },
                },
                Err(error) => Inspection::Unknown { id: id.clone(), cause: Failure::from(&error) },
            };
            answers.push(answer);
        }
        Ok(answers)
    }
}
