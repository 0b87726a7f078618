//! [`Output`]: the output of a process, read from an upgraded connection to its true end.
//!
//! The connection has no end of its own: a daemon that is killed closes it as one does whose process ended. So at the end of the
//! bytes the process is inspected, and if it is not over, the output broke off. A connection that is silent for long may be
//! half-open: the process is inspected then too, on another connection.
//!
//! No more than a chunk is buffered. The subscriber's own poll reads the socket, so that a slow subscriber holds the process back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ExitStatus, Result,
    manager::{LogLine, LogStream},
};
use runtide_engine::{
    HijackedReader,
    output::{Decoder, Malformed, Origin},
};
use tokio::io::AsyncReadExt;

use crate::manager::container::Call;

/// Bytes read at once, at most.
const CHUNK: usize = 64 * 1024;

/// Time that the daemon has to record the end of a process whose output ended, and to end the output of one that ended.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Inspections in a row that may fail while the connection is silent.
const FAILURES: u32 = 2;

/// The state of a process, by an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Alive,
    /// `None`: how it ended was not seen.
    Over(Option<ExitStatus>),
    /// The daemon does not know it any more, though its container runs.
    Lost,
}

/// The process behind a connection.
#[async_trait]
pub(super) trait Subject: Send + Sync + 'static {
    fn call(&self) -> Call<'_>;

    /// Inspects the process.
    async fn observe(&self) -> Result<Seen>;

    /// The output ended.
    fn output_ended(&self) {}
}

pub(super) struct Output<S> {
    reader: HijackedReader,
    buffer: BytesMut,
    decoder: Decoder,
    subject: Arc<S>,
    /// The bytes are over; what the decoder holds comes out before the end.
    over: bool,
    /// The error with which they broke off.
    broken: Option<Error>,
    /// Inspections during a silence that failed.
    failures: u32,
    /// An inspection during a silence showed that the process is over.
    is_late: bool,
}

impl<S: Subject> Output<S> {
    pub(super) fn stream(reader: HijackedReader, is_framed: bool, subject: Arc<S>) -> LogStream {
        let output = Self {
            reader,
            buffer: BytesMut::new(),
            decoder: if is_framed { Decoder::framed() } else { Decoder::raw() },
            subject,
            over: false,
            broken: None,
            failures: 0,
            is_late: false,
        };
        LogStream::new(stream::unfold(Some(output), |output| async {
            let mut output = output?;
            match output.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(output))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.decoder.next() {
                Ok(Some(piece)) => {
                    return match piece.origin {
                        Origin::Output(source) => Ok(Some(LogLine::new(source, None, piece.bytes))),
                        Origin::Daemon => {
                            let text = String::from_utf8_lossy(&piece.bytes);
                            let message = format!("the daemon ended the output: {}", text.trim());
                            Err(self.subject.call().error(ErrorKind::Unexpected, message))
                        }
                    };
                }
                Ok(None) => {}
                // A connection that broke has the better reason.
                Err(malformed) => return Err(self.broken.take().unwrap_or_else(|| self.malformed(&malformed))),
            }
            if self.over {
                return match self.broken.take() {
                    Some(error) => Err(error),
                    None => self.end().await.map(|()| None),
                };
            }
            self.read().await?;
        }
    }

    /// Reads a chunk into the decoder.
    async fn read(&mut self) -> Result<()> {
        let call = self.subject.call();
        let patience = if self.is_late { ENDS_WITHIN } else { call.client.config().max_silence };
        self.buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = tokio::time::timeout(patience, self.reader.read_buf(&mut self.buffer)) => read,
            () = call.client.closed() => return Err(call.located(call.client.site(call.operation).closed())),
        };
        match read {
            Ok(Ok(0)) => {
                self.over = true;
                self.decoder.end();
                self.subject.output_ended();
            }
            Ok(Ok(_)) => {
                (self.failures, self.is_late) = (0, false);
                let read = self.buffer.split();
                // A subscriber that keeps small pieces does not keep a whole chunk for each.
                let is_small = read.len() < CHUNK / 4;
                self.decoder.push(if is_small { Bytes::copy_from_slice(&read) } else { read.freeze() });
            }
            Ok(Err(error)) => {
                let message = "the connection broke: this is not the end of the output";
                self.broken = Some(self.subject.call().error(ErrorKind::Unavailable, message).with_source(error));
                self.over = true;
                self.decoder.end();
            }
            Err(_) => self.check_silence().await?,
        }
        Ok(())
    }

    async fn check_silence(&mut self) -> Result<()> {
        match self.subject.observe().await {
            Ok(Seen::Alive) => self.failures = 0,
            Ok(Seen::Over(_)) if !self.is_late => self.is_late = true,
            Ok(Seen::Over(_)) => {
                let message = "the process is over and its output did not end: the connection is dead";
                return Err(self.subject.call().error(ErrorKind::Unavailable, message));
            }
            Ok(Seen::Lost) => return Err(self.lost()),
            Err(error) if is_absence(&error) && self.failures + 1 < FAILURES => self.failures += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Succeeds if the process is over, so that its output is whole.
    async fn end(&self) -> Result<()> {
        let over = async {
            loop {
                match self.subject.observe().await? {
                    Seen::Over(_) => return Ok(()),
                    Seen::Alive => tokio::time::sleep(Duration::from_millis(50)).await,
                    Seen::Lost => return Err(self.lost()),
                }
            }
        };
        let over = tokio::time::timeout(ENDS_WITHIN, over).await;
        let call = self.subject.call();
        over.unwrap_or_else(|_| {
            let message = "the output ended and the process still runs: it closed its output, or the connection broke";
            Err(call.error(ErrorKind::Unavailable, message))
        })
    }

    fn lost(&self) -> Error {
        let message = "the daemon no longer knows the process (was it restarted?): its output may be incomplete";
        self.subject.call().error(ErrorKind::Unavailable, message)
    }

    fn malformed(&self, malformed: &Malformed) -> Error {
        let call = self.subject.call();
        match malformed {
            Malformed::Truncated => call.error(ErrorKind::Unavailable, "the output broke off inside a frame"),
            Malformed::Head(head) => call
                .error(ErrorKind::Protocol, "the output is not framed as it should be")
                .with_context("head", head.escape_ascii()),
        }
    }
}

/// The daemon does not answer at present.
pub(super) fn is_absence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}
