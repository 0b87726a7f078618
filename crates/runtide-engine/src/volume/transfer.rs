//! [`Transfer`]: a volume's contents as an archive, in either direction.
//!
//! Daemons hold a lock for as long as an archive is under way, and an inspection by any client may wait for it. The caller's own pace
//! therefore never reaches the daemon: what a slow reader has not taken, and what a slow writer has given so far, waits in a spool.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use runtide_core::{
    Error, ErrorKind, Result,
    backend::{CreateGuard, lock, saturating_add},
    manager::ByteReader,
};
use tokio::{io::AsyncReadExt, time::Instant};

use crate::{
    archive::{ArchiveCheck, ArchiveFlaw, Folder, Rebase},
    client::Client,
    dialect::Dialect,
    names::shown,
    request::Request,
    spool::{SpoolReader, SpoolWriter, spool},
    transport::as_io,
};

/// Bytes that are read from the caller at a time, at most.
const CHUNK: usize = 64 * 1024;

/// One transfer.
#[derive(Debug)]
pub struct Transfer<D: Dialect> {
    client: Client<D>,
    operation: &'static str,
    volume: String,
}

impl<D: Dialect> Transfer<D> {
    /// A transfer of the contents of the volume with this name.
    pub fn new(client: &Client<D>, operation: &'static str, volume: &str) -> Self {
        Self { client: client.clone(), operation, volume: volume.to_owned() }
    }

    /// The archive that the daemon sends, read as quickly as it comes; each piece within the client's deadline. What the guard has is
    /// removed before the end is reported, so that nothing is left of the transfer then. Entries are moved out of the folder that the
    /// daemon has them in, if it has one.
    pub fn download(
        self,
        response: Response<Incoming>,
        folder: Option<&'static str>,
        made: Option<CreateGuard>,
    ) -> ByteReader {
        let (mut writer, reader) = spool();
        let task = tokio::spawn(async move {
            let filled = self.fill(response, folder.map(Rebase::out_of), &mut writer);
            let outcome = self.client.until_closed(self.operation, filled).await;
            if let Some(made) = made {
                made.undo().await;
            }
            writer.finish(outcome.map_err(io::Error::other));
        });
        Box::pin(reader.with_work(&task))
    }

    async fn fill(
        &self,
        response: Response<Incoming>,
        mut rebase: Option<Rebase>,
        writer: &mut SpoolWriter,
    ) -> Result<()> {
        let (site, deadline) = (self.client.site(self.operation), self.client.deadline());
        let mut body = response.into_body();
        let mut check = ArchiveCheck::default();
        let flawed =
            |flaw: ArchiveFlaw| self.error(ErrorKind::Protocol, format!("the daemon's archive is not whole: {flaw}"));
        loop {
            let frame = tokio::time::timeout(deadline, body.frame());
            let frame = frame.await.map_err(|_| self.located(site.timeout(deadline)))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| self.located(self.client.broken(site, as_io(error))))?;
            let Ok(mut bytes) = frame.into_data() else { continue };
            if let Some(rebase) = &mut rebase {
                bytes = rebase.pass(&bytes).map_err(flawed)?.into();
            }
            check.pass(&bytes).map_err(flawed)?;
            writer.write(bytes).await.map_err(|error| self.spilled(error))?;
        }
        check.finish().map_err(flawed)
    }

    /// The caller's archive, as a whole, and checked, with the folder that it is the content of.
    ///
    /// # Errors
    /// `InvalidInput` for one that is none, or not whole; `Cancelled` once the client was closed.
    pub async fn collect(&self, archive: ByteReader) -> Result<(SpoolReader, Option<Folder>)> {
        // Without a deadline: it is the caller's own stream.
        self.client.until_closed(self.operation, self.collect_all(archive)).await
    }

    async fn collect_all(&self, mut archive: ByteReader) -> Result<(SpoolReader, Option<Folder>)> {
        let invalid = |flaw: ArchiveFlaw| self.error(ErrorKind::InvalidInput, flaw.to_string());
        let (mut writer, reader) = spool();
        let mut check = ArchiveCheck::default();
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            let read = archive.read_buf(&mut chunk).await;
            let read = read.map_err(|error| {
                self.error(ErrorKind::InvalidInput, "the archive cannot be read to its end").with_source(error)
            })?;
            if read == 0 {
                break;
            }
            check.pass(&chunk).map_err(invalid)?;
            if check.leads_out() {
                return Err(self.error(ErrorKind::InvalidInput, "a name in the archive leads out of the volume"));
            }
            writer.write(chunk.freeze()).await.map_err(|error| self.spilled(error))?;
        }
        check.finish().map_err(invalid)?;
        writer.finish(Ok(()));
        Ok((reader, check.root()))
    }

    /// An archive of a folder alone, as it is sent.
    ///
    /// # Errors
    /// `Unavailable` if there is no place to keep it.
    pub async fn folder(&self, folder: Folder, name: &str) -> Result<SpoolReader> {
        let (mut writer, reader) = spool();
        writer.write(folder.archive(name).into()).await.map_err(|error| self.spilled(error))?;
        writer.finish(Ok(()));
        Ok(reader)
    }

    /// Sends the archive.
    ///
    /// # Errors
    /// `Timeout` if the daemon takes no piece of it within the client's deadline, or does not answer within it; `Cancelled` once the
    /// client was closed; else that of the call.
    pub async fn upload(&self, path: String, archive: SpoolReader) -> Result<()> {
        let deadline = self.client.deadline();
        let last = Arc::new(Mutex::new(Instant::now()));
        let body = Marked { archive, last: Arc::clone(&last) };
        let request = Request::put(path).with_body(body, "application/x-tar");
        // Without a limit of its own: how long it takes depends on the archive.
        let sent = self.client.call(self.operation, request, Duration::MAX);
        let stalled = async {
            loop {
                let until = saturating_add(*lock(&last), deadline);
                if until <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(until).await;
            }
        };
        tokio::select! {
            sent = sent => sent.map(drop),
            () = stalled => Err(self.client.site(self.operation).timeout(deadline)),
            () = self.client.closed() => Err(self.client.site(self.operation).closed()),
        }
    }

    /// Waits for work of the daemon's that takes as long as the volume is large, for as long as the daemon answers in between.
    ///
    /// # Errors
    /// The work's own; that of a daemon which does not answer any more; `Cancelled` once the client was closed.
    pub async fn while_alive<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let answers = async {
            loop {
                tokio::time::sleep_until(saturating_add(Instant::now(), self.client.deadline())).await;
                if let Err(error) = self.client.ping(self.operation).await {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            error = answers => Err(error),
            () = self.client.closed() => Err(self.client.site(self.operation).closed()),
        }
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    fn located(&self, error: Error) -> Error {
        error.with_context("volume", shown(&self.volume))
    }

    /// The spool's file failed, or the reader is gone.
    fn spilled(&self, error: io::Error) -> Error {
        let message = "what waits for the other side cannot be kept in the folder for temporary files";
        self.error(ErrorKind::Unavailable, message).with_source(error)
    }
}

/// An archive that notes when the daemon took a piece of it last.
struct Marked {
    archive: SpoolReader,
    last: Arc<Mutex<Instant>>,
}

impl Stream for Marked {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        *lock(&self.last) = Instant::now();
        Pin::new(&mut self.archive).poll_next(cx)
    }
}
