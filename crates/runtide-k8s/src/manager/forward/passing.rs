//! The task of one connection: it passes messages between the pipe and the server. Reading and writing wait for each other nowhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use runtide_core::{ErrorKind, Failure, Result, backend::lock};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    sync::watch,
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    DATA, ERROR,
    stream::{End, PortForward},
};
use crate::{client::Socket, manager::subject::Subject};

/// Bytes that wait to be sent, or to be read, and of one message.
const PIPE: usize = 64 << 10;
const MESSAGE: usize = 32 << 10;
/// Bytes of the node's words that are kept.
const WORDS: usize = 4 << 10;
/// Time for the connection to end after the node's words, and after the near end was dropped.
const LAST: Duration = Duration::from_secs(5);

pub(super) fn start(subject: Subject, socket: Socket, first: Bytes) -> PortForward {
    let (near, far) = tokio::io::duplex(PIPE);
    let (held, dropped) = watch::channel(());
    let end = End::default();
    let passing = Passing { subject, dropped, has_sent: AtomicBool::new(false) };
    tokio::spawn(passing.run(socket, first, far, Arc::clone(&end)));
    PortForward { pipe: near, end, _held: held }
}

/// The node's words, as a message.
pub(super) fn printable(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words.get(..WORDS).unwrap_or(words));
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

struct Passing {
    subject: Subject,
    dropped: watch::Receiver<()>,
    /// True if bytes were sent since the last message came. A node whose process reads nothing answers nothing, and is not dead for that.
    has_sent: AtomicBool,
}

impl Passing {
    async fn run(self, socket: Socket, first: Bytes, far: DuplexStream, end: End) {
        let (from_near, mut to_near) = tokio::io::split(far);
        let passed = self.pass(socket, from_near, &mut to_near, first).await;
        if let Err(error) = passed {
            // Known before the pipe ends, which it does with its second half.
            *lock(&end) = Some(Failure::from(&error));
        }
        drop(to_near);
    }

    /// Passes bytes on until either end is gone.
    async fn pass(
        &self,
        socket: Socket,
        from_near: ReadHalf<DuplexStream>,
        to_near: &mut WriteHalf<DuplexStream>,
        first: Bytes,
    ) -> Result<()> {
        let silence = self.subject.client.config().max_silence;
        let (sink, stream) = socket.split();
        let reading = self.read(stream, to_near, first, silence);
        let mut reading = std::pin::pin!(self.subject.client.until_closed(self.subject.operation, reading));
        let mut writing = std::pin::pin!(self.write(sink, from_near, silence / 3));
        let mut overdue = std::pin::pin!(async {
            self.dropped().await;
            tokio::time::sleep(LAST).await;
        });
        let mut is_writing = true;
        loop {
            tokio::select! {
                read = &mut reading => return read,
                // The node may have said why before it closed: reading tells. After a close of ours it takes what was sent before.
                written = &mut writing, if is_writing => {
                    is_writing = false;
                    written.unwrap_or_else(|error| tracing::trace!(%error, "bytes for a port are no longer taken"));
                }
                () = &mut overdue => return Ok(()),
            }
        }
    }

    /// Waits until the near end is gone.
    async fn dropped(&self) {
        let mut dropped = self.dropped.clone();
        while dropped.changed().await.is_ok() {}
    }

    /// Sends what was written; once the near end is gone, closes the connection.
    async fn write(
        &self,
        mut sink: SplitSink<Socket, Message>,
        from_near: ReadHalf<DuplexStream>,
        ping: Duration,
    ) -> std::result::Result<(), tungstenite::Error> {
        let mut from_near = Some(from_near);
        let mut buffer = vec![0; MESSAGE];
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + ping, ping);
        loop {
            let written = async {
                if let Some(from_near) = &mut from_near {
                    return from_near.read(&mut buffer).await;
                }
                self.dropped().await;
                Ok(0)
            };
            let next = tokio::select! {
                read = written => match read {
                    Ok(read) if read > 0 => {
                        self.has_sent.store(true, Ordering::Relaxed);
                        let bytes = buffer.get(..read).unwrap_or_default();
                        Message::Binary([&[DATA], bytes].concat().into())
                    }
                    // Of a shutdown the protocol cannot tell.
                    _ if from_near.is_some() => {
                        from_near = None;
                        continue;
                    }
                    _ => return sink.close().await,
                },
                // The server answers: a connection that is dead is noticed.
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            sink.send(next).await?;
        }
    }

    /// Reads to the end of the connection.
    async fn read(
        &self,
        mut stream: SplitStream<Socket>,
        to_near: &mut WriteHalf<DuplexStream>,
        first: Bytes,
        silence: Duration,
    ) -> Result<()> {
        let mut to_near = Some(to_near);
        let (mut data, mut words) = (first, Vec::new());
        loop {
            if let Some(near) = &mut to_near
                && near.write_all(&data).await.is_err()
            {
                // It was dropped: what comes now is for no one.
                to_near = None;
            }
            data = Bytes::new();
            let limit = if words.is_empty() { silence } else { LAST };
            let next = tokio::time::timeout(limit, stream.next()).await;
            if matches!(next, Ok(Some(Ok(_)))) {
                self.has_sent.store(false, Ordering::Relaxed);
            }
            match next {
                Ok(Some(Ok(Message::Binary(mut message)))) => match message.first() {
                    Some(&DATA) => data = message.split_off(1),
                    Some(&ERROR) => {
                        let left = WORDS.saturating_sub(words.len());
                        words.extend(message.get(1..).unwrap_or_default().iter().take(left));
                    }
                    _ => {}
                },
                Ok(Some(Ok(Message::Close(_)))) => break,
                Ok(Some(Ok(_))) => {}
                _ if !words.is_empty() => break,
                Ok(broken) => {
                    let message = "the connection broke off before the node said that it has ended";
                    let error = self.subject.error(ErrorKind::Unavailable, message);
                    return Err(match broken {
                        Some(Err(cause)) => error.with_source(cause),
                        _ => error,
                    });
                }
                Err(_) if self.has_sent.load(Ordering::Relaxed) => {}
                Err(_) => return Err(self.subject.site().timeout(silence)),
            }
        }
        if words.is_empty() { Ok(()) } else { Err(self.subject.error(ErrorKind::Unexpected, printable(&words))) }
    }
}
