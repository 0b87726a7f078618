//! Reports of the runtime ([`Source`]), and its listings and inspections ([`Inspector`]). No reconnecting, no diffing, no
//! queue: those are the driver's.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    Detail, Error, ErrorKind, InstanceId, Listing, Result,
    event::ResumeToken,
    watch::{Flow, Inspection, Inspector, Opened, Signal, Source},
};

use crate::{client::Client, config::Dialect, normalize, runtime::Connection};

/// The reports of a runtime in memory, as [`MemoryBackend::with_source`](crate::MemoryBackend::with_source) wraps them.
#[derive(Debug)]
pub struct MemorySource {
    client: Client,
    stream: Option<Connection>,
}

impl MemorySource {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, stream: None }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        self.stream = None;
        // Subscribed when it returns. `Resumed` only with proof: the token itself is still in the runtime's history.
        let (stream, opened) = self.client.events(resume).await?;
        self.stream = Some(stream);
        Ok(opened)
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        let Some(stream) = &self.stream else {
            return Err(Error::new(ErrorKind::Conflict, "memory.events", "the source is not open"));
        };
        // Cancel-safe: a message taken from the wire is in `out` or still in the source when this is dropped.
        let Some(messages) = stream.read().await? else { return Ok(Flow::Closed) };
        for message in &messages {
            normalize::signals(&self.client.config, message, out);
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
        self.client.config.dialect != Dialect::Hints
    }
}

#[async_trait]
impl Inspector for Client {
    async fn list(&self, detail: Detail) -> Result<Listing> {
        Ok(normalize::snapshot(&self.config, &self.list().await?, detail))
    }

    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>> {
        let items = Client::inspect(self, ids).await?;
        let answers = ids.iter().zip(items).map(|(id, item)| match item.map(|item| self.instance(&item, detail)) {
            Some(Ok(instance)) => Inspection::Present(instance),
            Some(Err(cause)) => Inspection::Unknown { id: id.clone(), cause },
            None => Inspection::Absent(id.clone()),
        });
        Ok(answers.collect())
    }
}

#[cfg(test)]
mod tests;
