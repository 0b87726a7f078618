//! Run processes inside an instance, and attach to its main one.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    backend::lock,
    manager::{
        AttachOptions, ByteWriter, ExecControl, ExecManager, ExecOptions, ExecSession, LogLine, LogSource, LogStream,
        TtySize,
    },
};
use tokio::{
    io::{AsyncReadExt, DuplexStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Link, log::lines};
use crate::{
    client::Client,
    fault::Call,
    runtime::{Emission, LogReader, MemoryRuntime, Program, Surroundings, Waiting, conflict, is_env},
};

/// Most pieces of output that wait for the reader; then the process waits.
const UNREAD: usize = 4;

#[async_trait]
impl ExecManager for Client {
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession> {
        let (link, given, life) = self.prepared(id, &options).await?;
        Ok(session(link, id.clone(), life, given, &options))
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        if options.stdin {
            return Err(self.invalid(Call::Exec, "a detached process has no input"));
        }
        let (link, given, life) = self.prepared(id, &options).await?;
        let ExecSession { mut output, control, .. } = session(link, id.clone(), life, given, &options);
        // The stream owns the process as well: it runs as long as its output is discarded.
        self.tasks.spawn(async move { while let Some(Ok(_)) = output.next().await {} });
        Ok(control)
    }

    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        self.attached(id, &options, false).await
    }

    async fn start_attached(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        let session = self.attached(id, &options, true).await?;
        self.ask(Call::Start, |state| state.start(id, Call::Start)).await?;
        Ok(session)
    }

    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()> {
        self.ask(Call::Resize, |state| state.resize(id, size)).await
    }
}

impl Client {
    /// A connection for a process inside the instance, with its surroundings and the number of the instance's run.
    async fn prepared(&self, id: &InstanceId, options: &ExecOptions) -> Result<(Link, Surroundings, u64)> {
        check(options).map_err(|wrong| self.invalid(Call::Exec, wrong))?;
        let find = |runtime: &MemoryRuntime| {
            runtime.with(|state| {
                let life = state.life(id, Call::Exec)?;
                let record = state.record(id, Call::Exec)?;
                if record.is_frozen() {
                    return Err(conflict(id, Call::Exec, "it is paused"));
                }
                Ok((surroundings(record.surroundings(), options), life))
            })
        };
        let (link, (given, life)) = Link::open(self, Call::Exec, find).await?;
        Ok((link, given, life))
    }

    /// The main process in its present run, or in the next one of an instance that does not run; it has no open input.
    async fn attached(&self, id: &InstanceId, options: &AttachOptions, next: bool) -> Result<ExecSession> {
        let find = |runtime: &MemoryRuntime| {
            let state = runtime.with(|state| {
                state.record(id, Call::Attach).map(|record| (record.phase.is_alive(), record.is_frozen()))
            });
            let (alive, frozen) = state?;
            if frozen {
                return Err(conflict(id, Call::Attach, "it is paused"));
            }
            if alive && next {
                return Err(conflict(id, Call::Attach, "it runs already: attach to it"));
            }
            if options.stdin {
                return Err(self.invalid(Call::Attach, "its main process has no open input"));
            }
            let reader = LogReader::attach(runtime, id, next)?;
            Ok((runtime.waiting(id, Some(reader.life()))?, reader))
        };
        let (link, (waiting, reader)) = Link::open(self, Call::Attach, find).await?;
        let control = Main { client: self.clone(), id: id.clone(), waiting };
        Ok(ExecSession { stdin: None, output: lines(link, reader), control: Arc::new(control) })
    }

    fn invalid(&self, call: Call, wrong: &'static str) -> Error {
        Error::new(ErrorKind::InvalidInput, call.operation(), wrong).with_context("backend", &self.config.id)
    }
}

/// Refuses options that the runtime cannot take, before a connection is made.
fn check(options: &ExecOptions) -> Result<(), &'static str> {
    let wrong = if options.argv.is_empty() {
        "there is no command"
    } else if options.argv.iter().chain(&options.user).chain(&options.working_dir).any(|word| word.contains('\0')) {
        "the command, the user or the working directory holds a NUL"
    } else if options.env.iter().any(|(key, value)| !is_env(key, value)) {
        "an environment variable is empty, or holds a NUL, or a '=' in its name"
    } else if options.user.as_ref().is_some_and(String::is_empty) {
        "the user is empty"
    } else if options.working_dir.as_ref().is_some_and(|path| !path.starts_with('/')) {
        "the working directory is not an absolute path"
    } else {
        return Ok(());
    };
    Err(wrong)
}

fn surroundings(mut own: Surroundings, options: &ExecOptions) -> Surroundings {
    own.argv.clone_from(&options.argv);
    own.env.extend(options.env.clone());
    own.user = options.user.clone().unwrap_or(own.user);
    own.working_dir = options.working_dir.clone().unwrap_or(own.working_dir);
    own
}

/// The main process, seen through an attached session.
#[derive(Debug)]
struct Main {
    client: Client,
    id: InstanceId,
    waiting: Waiting,
}

#[async_trait]
impl ExecControl for Main {
    async fn resize(&self, size: TtySize) -> Result<()> {
        ExecManager::resize(&self.client, &self.id, size).await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        self.client.open_ended(Call::Wait, self.waiting.exit()).await
    }
}

/// A process next to the main one. It ends with the instance's run, and when its session is dropped.
#[derive(Debug)]
struct Session {
    link: Link,
    task: JoinHandle<()>,
    end: watch::Receiver<Option<ExitStatus>>,
    /// Size of the terminal; `None` without one.
    size: Option<Arc<Mutex<TtySize>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl ExecControl for Session {
    async fn resize(&self, size: TtySize) -> Result<()> {
        let held = self
            .size
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Conflict, Call::Resize.operation(), "the process has no terminal"))?;
        self.link.client.ask(Call::Resize, |_| Ok(())).await?;
        *lock(held) = size;
        Ok(())
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let mut end = self.end.clone();
        self.link.carry(async move { end.wait_for(Option::is_some).await.ok().and_then(|end| *end) }).await
    }
}

fn session(link: Link, id: InstanceId, life: u64, given: Surroundings, options: &ExecOptions) -> ExecSession {
    let (stdin, input) = options.stdin.then(|| tokio::io::duplex(64 << 10)).unzip();
    let (output, read) = mpsc::channel(UNREAD);
    let (ended, end) = watch::channel(None);
    let size = options.tty.map(|size| Arc::new(Mutex::new(size)));
    let process = Process { input, output, size: size.clone() };
    let runtime = link.client.runtime.clone();
    let open = Arc::clone(&link.client.session);
    let task = link.client.tasks.spawn(async move {
        let exit = tokio::select! {
            biased;
            () = open.closed() => return,
            code = process.run(&given) => ExitStatus::code(code),
            () = runtime.life_over(&id, life) => ExitStatus::signal(UnixSignal::KILL),
        };
        ended.send_replace(Some(exit));
    });
    let session = Arc::new(Session { link, task, end, size });
    let control = Arc::clone(&session) as Arc<dyn ExecControl>;
    let output = stream::unfold(Some((session, read)), |reading| async {
        let (session, mut read) = reading?;
        match session.link.carry(read.recv()).await {
            Ok(piece) => Some((Ok(piece?), Some((session, read)))),
            Err(error) => Some((Err(error), None)),
        }
    });
    let stdin = stdin.map(|stdin| Box::pin(stdin) as ByteWriter);
    ExecSession { stdin, output: LogStream::new(output), control }
}

struct Process {
    input: Option<DuplexStream>,
    output: mpsc::Sender<LogLine>,
    size: Option<Arc<Mutex<TtySize>>>,
}

impl Process {
    /// Runs to the end, and returns the exit code.
    async fn run(mut self, given: &Surroundings) -> i32 {
        match Program::of(given) {
            Program::Print(source, bytes, code) => {
                self.write(source, bytes).await;
                return code;
            }
            Program::Emit(source, emission) => {
                for chunk in emission.chunks() {
                    self.write(source, chunk).await;
                }
            }
            Program::Cat => {
                while let Some(bytes) = self.read().await {
                    self.write(LogSource::Stdout, bytes).await;
                }
            }
            Program::Size => loop {
                let Some(size) = self.size.as_ref().map(|size| *lock(size)) else {
                    self.write(LogSource::Stderr, "size: there is no terminal\n".into()).await;
                    return 1;
                };
                self.write(LogSource::Stdout, format!("{} {}\n", size.columns, size.rows).into()).await;
                if self.read().await.is_none() {
                    break;
                }
            },
            Program::Sleep(time) => tokio::time::sleep(time).await,
            Program::Other => {
                let name = given.argv.first().map(String::as_str).unwrap_or_default();
                self.write(LogSource::Stderr, format!("{name}: not found\n").into()).await;
                return 127;
            }
        }
        0
    }

    /// Waits until there is room. Output without a reader is lost, as on a terminal that was closed.
    fn write(&self, source: LogSource, bytes: Bytes) -> impl Future<Output = ()> {
        let source = if self.size.is_some() { LogSource::Console } else { source };
        async move {
            if !bytes.is_empty() {
                let _ = self.output.send(LogLine::new(source, None, bytes)).await;
            }
        }
    }

    /// `None` at the end of the input.
    async fn read(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::with_capacity(Emission::CHUNK);
        let count = self.input.as_mut()?.read_buf(&mut bytes).await.ok()?;
        (count > 0).then(|| bytes.freeze())
    }
}
