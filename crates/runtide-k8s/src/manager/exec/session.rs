//! One process, run by an exec or attached to: a task that passes messages between its pipes and the server.
//!
//! Each message begins with the number of its channel. Reading and writing wait for each other nowhere: a process that writes while it is
//! written to would stand still otherwise (trap K10).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use runtide_core::{
    Error, ErrorKind, ExitStatus, Failure, Result,
    manager::{ByteWriter, ExecControl, ExecSession, LogLine, LogSource, LogStream, TtySize},
};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    sync::{mpsc, watch},
};
use tokio_tungstenite::tungstenite::Message;

use super::{end::End, input::Typed};
use crate::{
    client::Socket,
    manager::{subject::Subject, wait},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// A stream ends, whose number follows: in the fifth version of the protocol.
const CLOSE: u8 = 255;

/// Bytes of the input that wait to be sent, and of one message.
const INPUT: usize = 64 << 10;
const MESSAGE: usize = 32 << 10;
/// Pieces of the output that wait to be read.
const PIECES: usize = 16;
/// Time for the connection to end after the server's word on the process.
const LAST: Duration = Duration::from_secs(5);

/// The end, once it is known: of a process whose connection broke, why.
type Known = Option<std::result::Result<Option<ExitStatus>, Failure>>;

/// The process of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Exec,
    /// One that goes on without a session.
    Detached,
    /// The container's own, in the run with this number.
    Main(u32),
}

/// The pipes of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipes {
    pub(super) stdin: bool,
    pub(super) has_terminal: bool,
    /// Size of the terminal at the beginning.
    pub(super) size: Option<TtySize>,
}

pub(super) struct Session {
    stdin: Option<ByteWriter>,
    output: mpsc::Receiver<Result<LogLine>>,
    control: Control,
}

#[derive(Debug)]
struct Control {
    subject: Subject,
    end: watch::Receiver<Known>,
    sizes: mpsc::Sender<TtySize>,
    has_terminal: bool,
}

/// State of the task.
struct Passing {
    subject: Subject,
    output: Option<mpsc::Sender<Result<LogLine>>>,
    end: watch::Sender<Known>,
    process: Process,
    has_terminal: bool,
}

impl Session {
    pub(super) fn start(subject: Subject, socket: Socket, closes: bool, pipes: Pipes, process: Process) -> Self {
        let has_terminal = pipes.has_terminal;
        let (output, pieces) = mpsc::channel(PIECES);
        let (end, known) = watch::channel(None);
        let (sizes, changes) = mpsc::channel(1);
        let (near, far) = tokio::io::duplex(INPUT);
        let stdin: Option<ByteWriter> = match (pipes.stdin, has_terminal) {
            (false, _) => None,
            (true, true) => Some(Box::pin(Typed::new(near))),
            (true, false) => Some(Box::pin(near)),
        };
        let passing = Passing {
            subject: subject.clone(),
            output: (process != Process::Detached).then_some(output),
            end,
            process,
            has_terminal,
        };
        let input = pipes.stdin.then_some(far);
        tokio::spawn(passing.run(socket, Writing { input, closes, has_terminal, changes, first: pipes.size }));
        Self { stdin, output: pieces, control: Control { subject, end: known, sizes, has_terminal } }
    }

    pub(super) fn into_pipes(self) -> ExecSession {
        let output = futures_util::stream::unfold(self.output, |mut output| async {
            output.recv().await.map(|piece| (piece, output))
        });
        ExecSession { stdin: self.stdin, output: LogStream::new(output), control: Arc::new(self.control) }
    }

    pub(super) fn into_control(self) -> Arc<dyn ExecControl> {
        Arc::new(self.control)
    }
}

#[async_trait]
impl ExecControl for Control {
    async fn resize(&self, size: TtySize) -> Result<()> {
        let conflict = |why: &str| self.subject.error(ErrorKind::Conflict, why);
        if !self.has_terminal {
            return Err(conflict("the process has no terminal"));
        }
        if self.end.borrow().is_some() {
            return Err(conflict("the process has ended"));
        }
        let deadline = self.subject.client.config().deadline;
        let sent = async { self.sizes.send(size).await.map_err(|_| conflict("the process has ended")) };
        self.subject.site().within(deadline, sent).await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let mut end = self.end.clone();
        let known = end.wait_for(Option::is_some).await.map(|known| known.clone());
        match known {
            Ok(Some(Ok(exit))) => Ok(exit),
            Ok(Some(Err(failure))) => Err(Error::from(failure)),
            // The task ended without a word: the backend is closed.
            _ => Err(self.subject.site().closed()),
        }
    }
}

/// The input, and the sizes of the terminal.
struct Writing {
    input: Option<DuplexStream>,
    closes: bool,
    has_terminal: bool,
    changes: mpsc::Receiver<TtySize>,
    first: Option<TtySize>,
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

fn size(size: TtySize) -> Message {
    message(RESIZE, format!(r#"{{"Width":{},"Height":{}}}"#, size.columns, size.rows).as_bytes())
}

impl Writing {
    /// Ends with the connection alone.
    async fn run(
        mut self,
        mut sink: SplitSink<Socket, Message>,
        ping: Duration,
    ) -> std::result::Result<std::convert::Infallible, tokio_tungstenite::tungstenite::Error> {
        if let Some(first) = self.first {
            sink.send(size(first)).await?;
        }
        let mut buffer = vec![0; MESSAGE];
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + ping, ping);
        loop {
            let input = async {
                match &mut self.input {
                    Some(input) => input.read(&mut buffer).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                read = input => match read {
                    Ok(read) if read > 0 => message(STDIN, buffer.get(..read).unwrap_or_default()),
                    _ => {
                        self.input = None;
                        // A terminal's input has been ended by what was typed. Where the server knows no end of one stream, it would
                        // be the end of all.
                        if !self.closes || self.has_terminal {
                            continue;
                        }
                        message(CLOSE, &[STDIN])
                    }
                },
                Some(change) = self.changes.recv() => size(change),
                // The server answers: a connection that is dead is noticed.
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            sink.send(next).await?;
        }
    }
}

impl Passing {
    async fn run(mut self, socket: Socket, writing: Writing) {
        let silence = self.subject.client.config().max_silence;
        let (sink, stream) = socket.split();
        let client = self.subject.client.clone();
        let operation = self.subject.operation;
        let known = {
            let reading =
                std::pin::pin!(client.until_closed(operation, async { Ok(self.read(stream, silence).await) }));
            let mut writing = Some(Box::pin(writing.run(sink, silence / 3)));
            let mut reading = reading;
            loop {
                let write = async {
                    match &mut writing {
                        Some(writing) => writing.await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    known = &mut reading => break known,
                    // The server may have said how the process ended before it closed: reading tells.
                    Err(error) = write => {
                        tracing::trace!(%error, "the input of a process is no longer taken");
                        writing = None;
                    }
                }
            }
        };
        let known = known.unwrap_or_else(Err);
        if let (Err(error), Some(output)) = (&known, self.output.take()) {
            let _ = output.send(Err(Error::from(Failure::from(error)))).await;
        }
        self.end.send_replace(Some(known.map_err(|error| Failure::from(&error))));
    }

    /// Passes a piece on; without a reader it is discarded. An error once the whole session was dropped.
    async fn pass(&mut self, source: LogSource, bytes: Bytes) -> std::result::Result<(), ()> {
        if let Some(output) = &self.output {
            let line = LogLine::new(source, None, bytes);
            if output.send(Ok(line)).await.is_err() {
                self.output = None;
            }
        }
        if self.is_dropped() { Err(()) } else { Ok(()) }
    }

    fn is_dropped(&self) -> bool {
        self.process != Process::Detached
            && self.end.is_closed()
            && self.output.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Waits until no handle of the session is left.
    async fn dropped(end: &watch::Sender<Known>, output: Option<&mpsc::Sender<Result<LogLine>>>, process: Process) {
        if process == Process::Detached {
            std::future::pending::<()>().await;
        }
        end.closed().await;
        if let Some(output) = output {
            output.closed().await;
        }
    }

    /// Reads to the end of the process.
    async fn read(&mut self, mut stream: SplitStream<Socket>, silence: Duration) -> Result<Option<ExitStatus>> {
        let mut end = None;
        let detached = |subject: &Subject| subject.error(ErrorKind::Cancelled, "the session was dropped");
        loop {
            let limit = if end.is_some() { LAST } else { silence };
            let next = tokio::select! {
                next = tokio::time::timeout(limit, stream.next()) => next,
                () = Self::dropped(&self.end, self.output.as_ref(), self.process) => return Err(detached(&self.subject)),
            };
            let data = match next {
                Ok(Some(Ok(Message::Binary(data)))) => data,
                Ok(Some(Ok(Message::Close(_))) | None) => break,
                Ok(Some(Ok(_))) => continue,
                Ok(Some(Err(_))) | Err(_) if end.is_some() => break,
                Ok(Some(Err(error))) => {
                    let message = "the connection broke before the process ended";
                    return Err(self.subject.error(ErrorKind::Unavailable, message).with_source(error));
                }
                Err(_) => return Err(self.subject.site().timeout(silence)),
            };
            let mut data = data;
            if data.len() < 2 {
                continue;
            }
            let channel = data.split_to(1);
            let passed = match channel.first() {
                Some(&STDOUT) if self.has_terminal => self.pass(LogSource::Console, data).await,
                Some(&STDOUT) => self.pass(LogSource::Stdout, data).await,
                Some(&STDERR) => self.pass(LogSource::Stderr, data).await,
                Some(&STATUS) => {
                    end = Some(End::of(&data));
                    Ok(())
                }
                _ => Ok(()),
            };
            if passed.is_err() {
                return Err(detached(&self.subject));
            }
        }
        match end {
            Some(End::Exit(exit)) => match self.process {
                Process::Main(run) => self.end_of_main(run).await,
                Process::Exec | Process::Detached => Ok(Some(exit)),
            },
            Some(End::NotRun(exit, words)) => {
                let source = if self.has_terminal { LogSource::Console } else { LogSource::Stderr };
                let _ = self.pass(source, Bytes::from(words + "\n")).await;
                Ok(Some(exit))
            }
            Some(End::Unseen(why)) => Err(self.subject.error(ErrorKind::Unexpected, why)),
            None => {
                let message = "the connection ended before the server said how the process did";
                Err(self.subject.error(ErrorKind::Unavailable, message))
            }
        }
    }

    /// The end of the container's run. To one that is attached the server says *success*, whatever it was, and as soon as the process has
    /// closed its outputs (trap K12).
    async fn end_of_main(&self, run: u32) -> Result<Option<ExitStatus>> {
        let ended = tokio::select! {
            ended = wait::end_of(&self.subject, run) => ended,
            () = Self::dropped(&self.end, self.output.as_ref(), self.process) => {
                return Err(self.subject.error(ErrorKind::Cancelled, "the session was dropped"));
            }
        };
        match ended {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            ended => ended,
        }
    }
}
