//! [`Upload`]: a body that is read from the caller, with the error that it may end with.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use runtide_core::{
    Error, ErrorKind,
    backend::{CallSite, lock},
    manager::ByteReader,
};
use tokio_util::io::ReaderStream;

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// A body under way. Its own error is the reason for whatever the connection or the daemon says of it.
#[derive(Debug)]
pub struct Upload {
    what: &'static str,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Upload {
    /// The caller's archive, and the body that sends it.
    pub fn of_archive(archive: ByteReader) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        Self::of("the archive", ReaderStream::with_capacity(archive, CHUNK))
    }

    /// These chunks of what an error calls `what`, and the body that sends them.
    pub fn of(
        what: &'static str,
        chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let failed = Arc::new(Mutex::new(None));
        let upload = Self { what, failed: Arc::clone(&failed) };
        let body = chunks.map(move |chunk| {
            chunk.map_err(|error| {
                let kind = error.kind();
                lock(&failed).get_or_insert(error);
                io::Error::from(kind)
            })
        });
        (upload, body)
    }

    /// The error with which the body ended, if it did.
    pub fn failure(&self, site: CallSite<'_>) -> Option<Error> {
        let error = lock(&self.failed).take()?;
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unexpected,
        };
        Some(site.error(kind, format!("{} cannot be read: {error}", self.what)).with_source(error))
    }
}

/// A failed call as the error of a reader.
pub fn as_read_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        ErrorKind::Unavailable => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
