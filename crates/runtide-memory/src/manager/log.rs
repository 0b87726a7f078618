//! Read an instance's output.

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    InstanceId, Result,
    manager::{LogManager, LogOptions, LogStream},
};

use super::Link;
use crate::{client::Client, fault::Call, runtime::LogReader};

#[async_trait]
impl LogManager for Client {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let open = |runtime: &_| LogReader::open(runtime, id, options);
        let (link, reader) = Link::open(self, Call::Logs, open).await?;
        Ok(lines(link, reader))
    }
}

/// Piece by piece, on request: a reader that stops holds nothing in memory. An error is the last item.
pub(super) fn lines(link: Link, reader: LogReader) -> LogStream {
    LogStream::new(stream::unfold(Some((link, reader)), |reading| async {
        let (link, mut reader) = reading?;
        match link.carry(reader.next()).await.transpose()? {
            Ok(Ok(piece)) => Some((Ok(piece), Some((link, reader)))),
            Ok(Err(error)) | Err(error) => Some((Err(error), None)),
        }
    }))
}
