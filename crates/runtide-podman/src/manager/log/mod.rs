//! A container's output, byte for byte, as the container's log driver stored it.
//!
//! * libpod frames the output of every container, also that of a terminal (trap P8). One frame is one line, or a part of a long one.
//! * Podman's `since` and `until` are exclusive and exact, but the times that it writes in front of lines are cut to the second.
//! * Podman's own tail mixes up the parts of long lines, so that lines are counted here: the log is read twice.
//! * Podman's follow waits for an end that it may have missed, ends at once while the container is paused, and goes on into the next
//!   run. So the end of the run is subscribed to here; then the log is read once more up to that moment, from the second of the last
//!   line on, without the lines that were emitted.

mod plan;
mod reader;

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    InstanceId, Result,
    manager::{LogManager, LogOptions, LogStream},
};

use self::{
    plan::{OPERATION, Plan},
    reader::Reader,
};
use super::container::Call;
use crate::client::Client;

/// The [`LogManager`] of one service.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    client: Client,
}

impl Logs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl LogManager for Logs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let call = Call::on(&self.client, OPERATION, id)?;
        let container = call.inspect().await?;
        let Some(plan) = Plan::new(call, &container, &options)? else {
            return Ok(LogStream::new(stream::empty()));
        };
        let found = InstanceId::from(container.id_or(call.id));
        let reader = Reader::open(self.client.clone(), found, plan).await?;
        Ok(LogStream::new(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.line().await {
                Ok(Some(line)) => Some((Ok(line), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}
