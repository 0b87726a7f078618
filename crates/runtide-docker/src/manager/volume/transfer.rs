//! Export and import of a volume's contents, through a [`Helper`].
//!
//! The daemon holds the helper's lock for as long as an archive is under way, and an inspection of the helper by any client waits
//! for that lock. The caller's own pace therefore never reaches the daemon: what a slow reader has not taken, and what a slow
//! writer has given so far, waits in a spool.

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
    backend::{lock, saturating_add},
    manager::ByteReader,
};
use runtide_engine::{ArchiveCheck, ArchiveFlaw, Folder, Request, SpoolReader, SpoolWriter, as_io, spool};
use tokio::{io::AsyncReadExt, time::Instant};

use super::{
    On, Volume,
    helper::{ENTRY, Helper, is_still},
};
use crate::client::Client;

/// Bytes that are read from the caller at a time, at most.
const CHUNK: usize = 64 * 1024;

/// The helper of a volume that exists, and still does.
async fn helper(on: On<'_>) -> Result<Helper> {
    let volume: Volume = on.volume().await?;
    let helper = Helper::make(on, &volume).await?;
    match is_still(on, &volume).await {
        Ok(true) => Ok(helper),
        Ok(false) => {
            helper.guard.undo().await;
            // If the daemon made the volume that has the name now, for the helper, it went with the helper; else it is another client's.
            Err(on.error(ErrorKind::NotFound, "the volume was removed as its transfer began"))
        }
        Err(error) => helper.guard.settle(Err(error)).await,
    }
}

pub(super) async fn export(on: On<'_>) -> Result<ByteReader> {
    let helper = helper(on).await?;
    let opened = on.client.open(on.operation, Request::get(helper.archive())).await;
    let response = match opened {
        Ok(response) => response,
        Err(error) => return helper.guard.settle(Err(on.located(error))).await,
    };
    let (mut writer, reader) = spool();
    let (client, operation, name) = (on.client.clone(), on.operation, on.name.to_owned());
    let task = tokio::spawn(async move {
        let on = On { client: &client, operation, name: &name };
        let outcome = download(on, response, &mut writer).await;
        // Before the end is reported: then nothing is left of the transfer.
        helper.guard.undo().await;
        writer.finish(outcome.map_err(io::Error::other));
    });
    Ok(Box::pin(reader.with_work(&task)))
}

/// Reads the archive as quickly as the daemon writes it; each piece within the client's deadline.
async fn download(on: On<'_>, response: Response<Incoming>, writer: &mut SpoolWriter) -> Result<()> {
    let (site, deadline) = (on.client.site(on.operation), on.client.deadline());
    let mut body = response.into_body();
    let mut check = ArchiveCheck::default();
    let flawed =
        |flaw: ArchiveFlaw| on.error(ErrorKind::Protocol, format!("the daemon's archive is not whole: {flaw}"));
    loop {
        let frame = tokio::time::timeout(deadline, body.frame());
        let frame = frame.await.map_err(|_| on.located(site.timeout(deadline)))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| on.located(on.client.broken(site, as_io(error))))?;
        let Ok(bytes) = frame.into_data() else { continue };
        check.pass(&bytes).map_err(flawed)?;
        writer.write(bytes).await.map_err(|error| spilled(on, error))?;
    }
    check.finish().map_err(flawed)
}

pub(super) async fn import(on: On<'_>, archive: ByteReader) -> Result<()> {
    // Before anything is read, so that a caller who is wrong learns it at once.
    on.volume().await?;
    let (whole, root) = collect(on, archive).await?;
    let helper = helper(on).await?;
    let sent = async {
        upload(on, helper.archive(), whole).await?;
        // The daemon leaves the folder into which it unpacks as it is: its mode and owner come as an entry of the one above.
        let Some(root) = root else { return Ok(()) };
        let (mut writer, reader) = spool();
        let written = writer.write(root.archive(ENTRY).into()).await;
        written.map_err(|error| spilled(on, error))?;
        writer.finish(Ok(()));
        upload(on, helper.above(), reader).await
    };
    let sent = sent.await.map_err(|error| on.located(error));
    helper.guard.undo().await;
    sent
}

/// The caller's archive, as a whole, and checked, with the folder that it is the content of.
async fn collect(on: On<'_>, mut archive: ByteReader) -> Result<(SpoolReader, Option<Folder>)> {
    let invalid = |flaw: ArchiveFlaw| on.error(ErrorKind::InvalidInput, flaw.to_string());
    let (mut writer, reader) = spool();
    let mut check = ArchiveCheck::default();
    loop {
        // No deadline: it is the caller's own stream.
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = archive.read_buf(&mut chunk).await;
        let read = read.map_err(|error| {
            on.error(ErrorKind::InvalidInput, "the archive cannot be read to its end").with_source(error)
        })?;
        if read == 0 {
            break;
        }
        check.pass(&chunk).map_err(invalid)?;
        writer.write(chunk.freeze()).await.map_err(|error| spilled(on, error))?;
    }
    check.finish().map_err(invalid)?;
    writer.finish(Ok(()));
    Ok((reader, check.root()))
}

/// Sends the archive; `Timeout` if the daemon takes no piece of it within the client's deadline, or does not answer within it.
async fn upload(on: On<'_>, path: String, archive: SpoolReader) -> Result<()> {
    let deadline = on.client.deadline();
    let last = Arc::new(Mutex::new(Instant::now()));
    let body = Marked { archive, last: Arc::clone(&last) };
    let sent = send(on.client, on.operation, Request::put(path).with_body(body, "application/x-tar"));
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
        sent = sent => sent,
        () = stalled => Err(on.client.site(on.operation).timeout(deadline)),
    }
}

async fn send(client: &Client, operation: &'static str, request: Request) -> Result<()> {
    // Without a limit of its own: how long it takes depends on the archive.
    client.call(operation, request, Duration::MAX).await.map(drop).map_err(|error| {
        // The daemon has one status for all that fails as it unpacks; a name or link that leads out of the volume is the archive's.
        let leads_out = ["is outside of", "invalid symlink", "invalid hardlink"];
        if leads_out.iter().any(|why| error.message().contains(why)) {
            return client.site(operation).error(ErrorKind::InvalidInput, error.message());
        }
        error
    })
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

/// The spool's file failed, or the reader is gone.
fn spilled(on: On<'_>, error: io::Error) -> Error {
    let message = "what waits for the other side cannot be kept in the folder for temporary files";
    on.error(ErrorKind::Unavailable, message).with_source(error)
}
