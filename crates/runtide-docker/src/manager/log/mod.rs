//! A container's output, byte for byte, as the daemon's log driver stored it.
//!
//! * One entry of the log is one [`LogLine`](runtide_core::manager::LogLine): a line, or 16 KiB of a longer one. The
//!   subscriber's own poll takes it off the socket, so that a slow subscriber holds the daemon back, and no more than the
//!   entry at hand is buffered here.
//! * Frames depend on the container's terminal setting, as the daemon reports it; they are not guessed from the bytes. With a
//!   terminal there are none, and entries are found by their times: see [`runtide_engine::output`].
//! * Docker's `since` is inclusive, and so is its `until`; ours is exclusive, so the query asks for one nanosecond less.
//! * Docker counts a tail before it drops other streams and later times. Where that would make a difference the log is
//!   read twice: to count, and to skip.
//! * Docker 20.10 stops following when the container ends, even if it has not yet read the last lines (moby#37391). So
//!   at the end of a run the log's end is read again, and the lines that were missed are emitted: see [`position`].
//! * Following goes to the end of the present run, also if the next one begins at once, and a `since` that is the start of a
//!   run reads it from its first line: see [`run`]. A stopped container has nothing to follow. Docker checks `until` only
//!   when there is output, so the time is checked here too, by the daemon's clock.

mod plan;
mod position;
mod reader;
mod response;
mod run;

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

/// The [`LogManager`] of one daemon.
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
    async fn logs(&self, id: &InstanceId, mut options: LogOptions) -> Result<LogStream> {
        let call = Call::on(&self.client, OPERATION, id)?;
        let container = call.inspect().await?;
        options.since = run::since(call, &container, options.since).await;
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
