//! [`spool`]: a pipe whose writer never waits for its reader.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use runtide_core::backend::lock;
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::Handle,
    task::{AbortHandle, JoinError, JoinHandle},
};

/// Bytes that wait in memory, at most; more wait in a file.
const IN_MEMORY: usize = 4 * 1024 * 1024;

/// Bytes that are read from the file at a time, at most.
const READ: u64 = 256 * 1024;

/// Smallest buffer of those that wait in memory.
const CHUNK: usize = 64 * 1024;

/// A pipe for bytes of which the writer may not be held back, as an archive that a daemon reads under a lock: up to 4 MiB that the
/// reader has not taken wait in memory, the rest in a file without a name, in the folder for temporary files. The file is no longer
/// than what waits at most, and gone with the pipe.
///
/// Must be called within a tokio runtime: its blocking threads use the file.
pub fn spool() -> (SpoolWriter, SpoolReader) {
    let shared = Arc::new(Mutex::new(State::default()));
    let writer = SpoolWriter { shared: Arc::clone(&shared), is_finished: false };
    let reader = SpoolReader {
        shared,
        runtime: Handle::try_current().ok(),
        reading: None,
        current: Bytes::new(),
        work: None,
        has_ended: false,
    };
    (writer, reader)
}

/// Bytes in the order in which they are read: those of the queue, then those of the file.
#[derive(Debug, Default)]
struct State {
    queue: VecDeque<BytesMut>,
    queued: usize,
    file: Option<Arc<File>>,
    /// Bytes of the file that were written, and of these those that were read.
    written: u64,
    read: u64,
    end: Option<io::Result<()>>,
    waiting: Option<Waker>,
    is_reader_gone: bool,
}

impl State {
    /// Copies: small pieces would each keep the buffer alive into which they were read.
    fn enqueue(&mut self, bytes: &[u8]) {
        match self.queue.back_mut() {
            Some(last) if last.capacity() - last.len() >= bytes.len() => last.extend_from_slice(bytes),
            _ => {
                let mut chunk = BytesMut::with_capacity(bytes.len().max(CHUNK));
                chunk.extend_from_slice(bytes);
                self.queue.push_back(chunk);
            }
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// The end that writes. Dropped before [`finish`](Self::finish), it gives the reader an error.
#[derive(Debug)]
pub struct SpoolWriter {
    shared: Arc<Mutex<State>>,
    is_finished: bool,
}

impl SpoolWriter {
    /// Writes some bytes, as quickly as the disk takes them.
    ///
    /// # Errors
    /// `BrokenPipe` once the reader is gone; the file's own.
    ///
    /// # Cancel safety
    /// A dropped future may lose the bytes: nothing may be written after it.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let (file, at) = {
            let mut state = lock(&self.shared);
            if state.is_reader_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let is_file_read = state.read == state.written;
            if is_file_read && state.queued.saturating_add(bytes.len()) <= IN_MEMORY {
                state.queued += bytes.len();
                state.enqueue(&bytes);
                state.wake();
                return Ok(());
            }
            if is_file_read {
                (state.read, state.written) = (0, 0);
            }
            (state.file.clone(), state.written)
        };
        let length = bytes.len() as u64;
        let written = tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| tempfile::tempfile().map(Arc::new), Ok)?;
            write_all_at(&file, &bytes, at).map(|()| file)
        });
        let file = written.await.map_err(interrupted)??;
        let mut state = lock(&self.shared);
        state.file = Some(file);
        state.written = at + length;
        state.wake();
        Ok(())
    }

    /// Ends the pipe: the reader gets this outcome once it has read everything.
    pub fn finish(mut self, outcome: io::Result<()>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: io::Result<()>) {
        if !std::mem::replace(&mut self.is_finished, true) {
            let mut state = lock(&self.shared);
            state.end = Some(outcome);
            state.wake();
        }
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.end(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the work that wrote was broken off")));
    }
}

/// The end that reads, as bytes or as chunks. After an error it has no more of either.
#[derive(Debug)]
pub struct SpoolReader {
    shared: Arc<Mutex<State>>,
    /// `None`: the pipe was made outside a tokio runtime, and has no file.
    runtime: Option<Handle>,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    current: Bytes,
    work: Option<AbortHandle>,
    has_ended: bool,
}

impl SpoolReader {
    /// Ends this task when the reader is dropped: the one that writes.
    #[must_use]
    pub fn with_work<T>(mut self, task: &JoinHandle<T>) -> Self {
        self.work = Some(task.abort_handle());
        self
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.current.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.current))));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_next_chunk(cx));
        self.has_ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn poll_next_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                let bytes = match read.map_err(interrupted) {
                    Ok(Ok(bytes)) => bytes,
                    Ok(Err(error)) | Err(error) => return Poll::Ready(Some(Err(error))),
                };
                lock(&self.shared).read += bytes.len() as u64;
                return Poll::Ready(Some(Ok(bytes.into())));
            }
            let mut state = lock(&self.shared);
            if let Some(bytes) = state.queue.pop_front() {
                state.queued -= bytes.len();
                if bytes.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(bytes.freeze())));
            }
            if state.read < state.written
                && let (Some(file), Some(runtime)) = (state.file.clone(), &self.runtime)
            {
                let (at, length) = (state.read, (state.written - state.read).min(READ));
                self.reading = Some(runtime.spawn_blocking(move || read_at(&file, at, length)));
                continue;
            }
            return match state.end.take() {
                None => {
                    state.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
            };
        }
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared);
            state.is_reader_gone = true;
            state.queue.clear();
        }
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

impl Stream for SpoolReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_chunk(cx)
    }
}

impl AsyncRead for SpoolReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_chunk(cx)) {
            None => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(mut chunk)) => {
                let length = chunk.len().min(buf.remaining());
                buf.put_slice(chunk.get(..length).unwrap_or_default());
                chunk.advance(length);
                self.current = chunk;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// The runtime is shut down.
fn interrupted(error: JoinError) -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, error)
}

fn read_at(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    #[cfg(unix)]
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, at)?;
    #[cfg(windows)]
    {
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut bytes, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(read);
    }
    Ok(bytes)
}

fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, at);
    #[cfg(windows)]
    {
        let (mut bytes, mut at) = (bytes, at);
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(written..).unwrap_or_default();
            at += written as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Bytes that differ everywhere within a period of 256 KiB and some.
    fn pattern(from: u64, length: usize) -> Bytes {
        let byte = |n: u64| u8::try_from(n % 251).unwrap();
        (from..).take(length).map(|at| byte(at) ^ byte(at / 262_147)).collect()
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_through_memory_and_file() {
        let (mut writer, mut reader) = spool();
        let total = 3 * IN_MEMORY + 12_345;
        let mut sent = 0;
        while sent < total {
            let chunk = pattern(sent as u64, 70_001.min(total - sent));
            sent += chunk.len();
            writer.write(chunk).await.unwrap();
        }
        {
            let state = lock(&writer.shared);
            assert!(state.queued <= IN_MEMORY, "{} bytes wait in memory", state.queued);
            assert_eq!(state.queued as u64 + state.written, total as u64);
        }
        // A reader that takes some, while more comes.
        let mut first = vec![0; total / 2];
        reader.read_exact(&mut first).await.unwrap();
        writer.write(pattern(total as u64, 1000)).await.unwrap();
        writer.finish(Ok(()));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        let all = [first, rest].concat();
        assert!(all == pattern(0, total + 1000), "{} bytes, of {}", all.len(), total + 1000);
    }

    #[tokio::test]
    async fn a_file_that_was_read_is_written_from_its_beginning() {
        let (mut writer, mut reader) = spool();
        let mut sent = 0;
        for _ in 0..3 {
            for _ in 0..6 {
                writer.write(pattern(sent, 1 << 20)).await.unwrap();
                sent += 1 << 20;
            }
            let mut round = vec![0; 6 << 20];
            reader.read_exact(&mut round).await.unwrap();
            assert!(round == pattern(sent - (6 << 20), 6 << 20));
        }
        let length = lock(&writer.shared).file.as_ref().unwrap().metadata().unwrap().len();
        assert!(length <= 3 << 20, "{length}");
    }

    #[tokio::test]
    async fn small_pieces_of_large_buffers_take_no_more_memory_than_large_ones() {
        for length in [64, 512, CHUNK / 2 + 1] {
            let (mut writer, mut reader) = spool();
            let mut sent = 0;
            while sent + length <= IN_MEMORY {
                let mut piece = BytesMut::with_capacity(CHUNK);
                piece.extend_from_slice(&pattern(sent as u64, length));
                writer.write(piece.freeze()).await.unwrap();
                sent += length;
            }
            let (held, pieces) = {
                let state = lock(&writer.shared);
                (state.queue.iter().map(BytesMut::capacity).sum::<usize>(), state.queue.len())
            };
            assert!(held <= 2 * IN_MEMORY && pieces <= 2 * IN_MEMORY / CHUNK, "{held} bytes in {pieces}");
            writer.finish(Ok(()));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).await.unwrap();
            assert!(read == pattern(0, sent));
        }
    }

    #[tokio::test]
    async fn a_failure_comes_after_the_bytes_before_it() {
        let (mut writer, mut reader) = spool();
        writer.write(Bytes::from_static(b"half")).await.unwrap();
        writer.finish(Err(io::Error::other("the daemon died")));
        let mut read = Vec::new();
        let error = reader.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((read.as_slice(), error.to_string().as_str()), (&b"half"[..], "the daemon died"));
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_is_no_end() {
        let (writer, mut reader) = spool();
        drop(writer);
        let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_ends_the_work() {
        let (mut writer, reader) = spool();
        let task = tokio::spawn(std::future::pending::<()>());
        drop(reader.with_work(&task));
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(writer.write(Bytes::from_static(b"x")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn it_is_read_on_any_thread() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (writer, reader) = runtime.block_on(async {
            let (mut writer, reader) = spool();
            for at in 0..6 {
                writer.write(pattern(at << 20, 1 << 20)).await.unwrap();
            }
            (writer, reader)
        });
        writer.finish(Ok(()));
        let mut reader = Box::pin(reader);
        let mut read = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match reader.as_mut().poll_next(&mut cx) {
                Poll::Ready(Some(chunk)) => read.extend_from_slice(&chunk.unwrap()),
                Poll::Ready(None) => break,
                Poll::Pending => std::thread::yield_now(),
            }
        }
        assert!(read == pattern(0, 6 << 20));
    }
}
