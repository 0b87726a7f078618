//! [`SshLink`]: a running `ssh` as a connection.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use runtide_core::backend::lock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Sleep,
};

use super::{
    address::{Ssh, quoted},
    failure::{Failure, Tail},
};

/// Logins under way at once: an sshd drops some once ten wait (MaxStartups).
const LOGINS: usize = 4;

/// Time for `ssh` to end once its output has ended, and for its last words.
const TO_EXIT: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Runs `ssh` for each connection.
pub(crate) struct SshConnector {
    ssh: Ssh,
    command: Arc<str>,
    logins: Arc<Semaphore>,
}

impl SshConnector {
    /// `words` is the command that joins its input and output to the daemon's socket there.
    pub(crate) fn new(ssh: Ssh, words: &[String]) -> Self {
        Self { ssh, command: quoted(words).into(), logins: Arc::new(Semaphore::new(LOGINS)) }
    }

    /// Starts `ssh`, which tells by its end that it did not reach the host: the first read has that error.
    pub(crate) async fn connect(&self, connect_deadline: Duration) -> io::Result<SshLink> {
        let closed = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
        let login = Arc::clone(&self.logins).acquire_owned().await.map_err(closed)?;
        let mut command = Command::new(self.ssh.program());
        command
            .args(self.ssh.arguments(&self.command, connect_deadline))
            // It never asks at this process's terminal. A program that asks in a window may, as with the docker client.
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C at the terminal is for this process.
        #[cfg(unix)]
        command.process_group(0);
        let not_run = |error: io::Error| Failure::not_run(self.ssh.program(), &self.command, &error).into_io();
        let mut child = command.spawn().map_err(not_run)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        };
        let (in_use, dropped) = oneshot::channel();
        let (heard, first_byte) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        tokio::spawn(guard(Guarded { child, stderr, dropped, exited }));
        tokio::spawn(release(login, first_byte, connect_deadline));
        Ok(SshLink {
            stdin: Some(stdin),
            stdout,
            heard: Some(heard),
            exit: Exit::Awaited { exit, limit: None },
            waiting: Arc::default(),
            command: Arc::clone(&self.command),
            _in_use: in_use,
        })
    }
}

/// The end of a login: the first byte from there, or the connection's end, or the time for it.
async fn release(login: OwnedSemaphorePermit, heard: oneshot::Receiver<()>, limit: Duration) {
    let _ = tokio::time::timeout(limit, heard).await;
    drop(login);
}

struct Guarded {
    child: Child,
    stderr: ChildStderr,
    /// Ends with the connection.
    dropped: oneshot::Receiver<Infallible>,
    exited: oneshot::Sender<(io::Result<ExitStatus>, String)>,
}

/// Reads the error output and waits for the end of `ssh`; kills it when the connection is dropped.
async fn guard(guarded: Guarded) {
    let Guarded { mut child, mut stderr, mut dropped, exited } = guarded;
    let mut tail = Tail::default();
    let mut buffer = [0; 1024];
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut dropped => {
                let _ = child.kill().await;
                return;
            }
            read = stderr.read(&mut buffer), if open => match read {
                Ok(length @ 1..) => tail.push(buffer.get(..length).unwrap_or_default()),
                Ok(0) | Err(_) => open = false,
            }
        }
    };
    // A master in the background (ControlPersist) keeps the error output open, so that its end may never come.
    let rest = async {
        while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
            tail.push(buffer.get(..length).unwrap_or_default());
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    let _ = exited.send((status, tail.text()));
}

/// A connection through a running `ssh`. Dropped, it kills `ssh`.
#[derive(Debug)]
pub(crate) struct SshLink {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    heard: Option<oneshot::Sender<()>>,
    exit: Exit,
    waiting: Arc<Waiting>,
    command: Arc<str>,
    _in_use: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
enum Exit {
    Awaited { exit: oneshot::Receiver<(io::Result<ExitStatus>, String)>, limit: Option<Pin<Box<Sleep>>> },
    Clean,
    Failed(Failure),
}

/// The tasks that wait for the end of `ssh`. The two directions may be two tasks, and a future keeps one waker: this one wakes both.
#[derive(Debug, Default)]
struct Waiting {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        for waiting in [&self.reader, &self.writer] {
            let waker = lock(waiting).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl SshLink {
    /// The verdict on the end of `ssh`: that of a connection that the daemon closed is a good one. The direction's waker is in
    /// `waiting` by now.
    fn poll_exit(&mut self) -> Poll<io::Result<()>> {
        let waker = Waker::from(Arc::clone(&self.waiting));
        let cx = &mut Context::from_waker(&waker);
        if let Exit::Awaited { exit, limit } = &mut self.exit {
            let limit = limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(TO_EXIT)));
            self.exit = match Pin::new(exit).poll(cx) {
                Poll::Ready(Ok((Ok(status), _))) if status.success() => Exit::Clean,
                Poll::Ready(Ok((Ok(status), stderr))) => Exit::Failed(Failure::ended(&self.command, status, stderr)),
                Poll::Ready(Ok((Err(_), _)) | Err(_)) => Exit::Failed(Failure::lingers(&self.command)),
                Poll::Pending => {
                    ready!(limit.as_mut().poll(cx));
                    Exit::Failed(Failure::lingers(&self.command))
                }
            };
        }
        Poll::Ready(match &self.exit {
            Exit::Failed(failure) => Err(failure.clone().into_io()),
            _ => Ok(()),
        })
    }
}

impl AsyncRead for SshLink {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            *lock(&self.waiting.reader) = Some(cx.waker().clone());
            return self.poll_exit();
        }
        if let Some(heard) = self.heard.take() {
            let _ = heard.send(());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stdin) = &mut self.stdin else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        match ready!(Pin::new(stdin).poll_write(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // `ssh` has ended, and says why by its end.
                *lock(&self.waiting.writer) = Some(cx.waker().clone());
                ready!(self.poll_exit())?;
                Poll::Ready(Err(error))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The end of the input, which the command there hands on to the daemon; the other direction stays open.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// The link of an `ssh` that closed its ends, and the sender of its end.
    async fn link() -> (SshLink, oneshot::Sender<(io::Result<ExitStatus>, String)>) {
        let mut child = Command::new("true").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        child.wait().await.unwrap();
        let (exited, exit) = oneshot::channel();
        let exit = Exit::Awaited { exit, limit: None };
        let (waiting, in_use) = (Arc::default(), oneshot::channel().0);
        (SshLink { stdin, stdout, heard: None, exit, waiting, command: "".into(), _in_use: in_use }, exited)
    }

    #[tokio::test]
    async fn the_end_of_ssh_wakes_the_reader_and_the_writer() {
        for reader_first in [true, false] {
            let (link, exited) = link().await;
            let waiting = Arc::clone(&link.waiting);
            let (mut reader, mut writer) = tokio::io::split(link);
            let begins = async |waits: &Mutex<Option<Waker>>| {
                while lock(waits).is_none() {
                    tokio::task::yield_now().await;
                }
            };
            let read = async move { reader.read(&mut [0]).await.map(drop) };
            let write = async move { writer.write_all(b"x").await };
            let (read, write) = if reader_first {
                let read = tokio::spawn(read);
                begins(&waiting.reader).await;
                let write = tokio::spawn(write);
                begins(&waiting.writer).await;
                (read, write)
            } else {
                let write = tokio::spawn(write);
                begins(&waiting.writer).await;
                let read = tokio::spawn(read);
                begins(&waiting.reader).await;
                (read, write)
            };
            exited.send((Ok(ExitStatus::from_raw(255 << 8)), "gone".to_owned())).unwrap();
            for direction in [read, write] {
                let ended = tokio::time::timeout(Duration::from_secs(60), direction).await;
                assert!(ended.expect("it was not woken").unwrap().unwrap_err().to_string().contains("gone"));
            }
        }
    }
}
