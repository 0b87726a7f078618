//! [`Output`]: the output of a process, read from an upgraded connection to its true end.
//!
//! The connection has no end of its own: a daemon that is killed closes it as one does whose process ended. So at the end of the
//! bytes the process is inspected, and if it is not over, the output broke off. Where the daemon ends the output before it knows that the
//! process is over, that is a matter of ten seconds: a connection that something in between cut within the last ten of a process is taken
//! for the end there. A connection that is silent for long may be
//! half-open: the process is inspected then too, on another connection.
//!
//! No more than a chunk is buffered. The subscriber's own poll reads the socket, so that a slow subscriber holds the process back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ExitCause, ExitStatus, Result,
    manager::{LogLine, LogSource, LogStream},
};
use tokio::io::AsyncReadExt;

use super::Owner;
use crate::{
    dialect::Dialect,
    hijack::HijackedReader,
    output::{Decoder, Malformed, Origin, Piece},
};

/// Bytes read at once, at most.
const CHUNK: usize = 64 * 1024;

/// Time that a daemon has, at most, to record the end of a process whose output ended, and to end the output of one that ended.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Inspections in a row that may fail while the connection is silent.
const FAILURES: u32 = 2;

/// The state of a process, by an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It goes on.
    Alive,
    /// `None`: how it ended was not seen.
    Over(Option<ExitStatus>),
    /// The daemon does not know it, or does not follow it, any more.
    Lost,
}

/// The process behind a connection.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Its engine.
    type Dialect: Dialect;

    /// The call that opened the session.
    fn owner(&self) -> &Owner<Self::Dialect>;

    /// Inspects the process.
    async fn observe(&self) -> Result<Seen>;

    /// The output ended.
    fn output_ended(&self) {}

    /// The daemon records the end of the process before it ends the output. Else it learns of both apart, and a process that runs at the
    /// end of its output is given 10 s.
    fn is_recorded_first(&self) -> bool {
        false
    }

    /// True for an error of the daemon's connection, which an engine without frames of its own for that writes as the last words of
    /// the standard error.
    fn is_daemons(&self, _stderr: &[u8]) -> bool {
        false
    }
}

/// The output of a process, to its true end.
#[derive(Debug)]
pub struct Output<S> {
    reader: HijackedReader,
    buffer: BytesMut,
    decoder: Decoder,
    subject: Arc<S>,
    /// The bytes are over; what the decoder holds comes out before the end.
    over: bool,
    /// The error with which they broke off.
    broken: Option<Error>,
    /// Words that are the daemon's if they are the last ones.
    held: Option<LogLine>,
    /// The line behind those, which turned out to be a program's.
    next: Option<LogLine>,
    /// The output so far may be the reason why the program could not be run, and nothing else.
    is_reason: bool,
    /// Inspections during a silence that failed.
    failures: u32,
    /// An inspection during a silence showed that the process is over.
    is_late: bool,
}

impl<S: Subject> Output<S> {
    /// The stream of the output behind this connection.
    pub fn stream(reader: HijackedReader, is_framed: bool, subject: Arc<S>) -> LogStream {
        let output = Self {
            reader,
            buffer: BytesMut::new(),
            decoder: if is_framed { Decoder::framed() } else { Decoder::raw() },
            subject,
            over: false,
            broken: None,
            held: None,
            next: None,
            is_reason: true,
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
            if let Some(line) = self.next.take() {
                return Ok(Some(line));
            }
            match self.decoder.next() {
                Ok(Some(Piece { origin: Origin::Output(source), bytes, .. })) => {
                    if let Some(line) = self.pass(LogLine::new(source, None, bytes)) {
                        return Ok(Some(line));
                    }
                    continue;
                }
                Ok(Some(Piece { origin: Origin::Daemon, bytes, .. })) => return Err(self.ended_by_daemon(&bytes)),
                Ok(None) => {}
                // A connection that broke has the better reason.
                Err(malformed) => return Err(self.broken.take().unwrap_or_else(|| self.malformed(&malformed))),
            }
            if self.over {
                return match (self.held.take(), self.broken.take()) {
                    (Some(words), _) => self.end_with(&words).await.map(|()| None),
                    (None, Some(error)) => Err(error),
                    (None, None) => self.end().await.map(|_| None),
                };
            }
            self.read().await?;
        }
    }

    /// The line that comes out now. One that is the daemon's if nothing follows is held back until something does.
    fn pass(&mut self, line: LogLine) -> Option<LogLine> {
        if line.source == LogSource::Stderr && self.subject.is_daemons(&line.bytes) {
            return self.held.replace(line);
        }
        self.is_reason &= line.source == LogSource::Stderr && self.next.is_none() && self.held.is_none();
        match self.held.take() {
            None => Some(line),
            held => {
                self.next = Some(line);
                held
            }
        }
    }

    /// The end behind the daemon's words: the output may not be whole, unless all of it is the reason why the program did not run.
    async fn end_with(&mut self, words: &LogLine) -> Result<()> {
        let exit = self.end().await?.map(|exit| exit.end);
        let did_not_run = matches!(exit, Some(ExitCause::Code(126 | 127)));
        if self.is_reason && did_not_run { Ok(()) } else { Err(self.ended_by_daemon(&words.bytes)) }
    }

    fn ended_by_daemon(&self, words: &[u8]) -> Error {
        let message = format!("the daemon ended the output: {}", String::from_utf8_lossy(words).trim());
        self.subject.owner().error(ErrorKind::Unexpected, message)
    }

    /// Reads a chunk into the decoder.
    async fn read(&mut self) -> Result<()> {
        let owner = self.subject.owner();
        let patience = if self.is_late { ENDS_WITHIN } else { owner.max_silence };
        self.buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = tokio::time::timeout(patience, self.reader.read_buf(&mut self.buffer)) => read,
            error = owner.closed() => return Err(error),
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
                self.broken = Some(self.subject.owner().error(ErrorKind::Unavailable, message).with_source(error));
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
                return Err(self.subject.owner().error(ErrorKind::Unavailable, message));
            }
            Ok(Seen::Lost) => return Err(self.lost()),
            Err(error) if is_absence(&error) && self.failures + 1 < FAILURES => self.failures += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Succeeds if the process is over, so that its output is whole.
    async fn end(&self) -> Result<Option<ExitStatus>> {
        let running = || {
            let message = "the output ended and the process still runs: it closed its output, or the connection broke";
            Err(self.subject.owner().error(ErrorKind::Unavailable, message))
        };
        let over = async {
            loop {
                match self.subject.observe().await? {
                    Seen::Over(exit) => return Ok(exit),
                    Seen::Alive if self.subject.is_recorded_first() => return running(),
                    Seen::Alive => tokio::time::sleep(Duration::from_millis(50)).await,
                    Seen::Lost => return Err(self.lost()),
                }
            }
        };
        tokio::time::timeout(ENDS_WITHIN, over).await.unwrap_or_else(|_| running())
    }

    fn lost(&self) -> Error {
        let message = "the daemon no longer knows the process (was it restarted, or the connection cut?): its output may be incomplete";
        self.subject.owner().error(ErrorKind::Unavailable, message)
    }

    fn malformed(&self, malformed: &Malformed) -> Error {
        let owner = self.subject.owner();
        match malformed {
            Malformed::Truncated => owner.error(ErrorKind::Unavailable, "the output broke off inside a frame"),
            Malformed::Head(head) => owner
                .error(ErrorKind::Protocol, "the output is not framed as it should be")
                .with_context("head", head.escape_ascii()),
        }
    }
}

/// The daemon does not answer at present.
pub fn is_absence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}
