//! Managers that are broken in one way, around the sound ones.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, RuntimeBackend, UnixSignal,
    manager::{
        AttachOptions, ByteWriter, Effect, ExecControl, ExecManager, ExecOptions, ExecSession, InstanceSpec,
        LifecycleManager, LogManager, LogOptions, LogSource, LogStream, ProvisionManager, RemoveOptions, StopOptions,
        TtySize,
    },
};
use runtide_memory::MemoryBackend;

use super::{harness::SECRET, table::Mutant};

/// All the managers.
#[derive(Debug)]
pub(crate) struct Verbs {
    how: Mutant,
    inner: Arc<MemoryBackend>,
    /// `true` while a call is under way, and forever after a call that was dropped.
    busy: AtomicBool,
    /// Number of creates.
    created: AtomicU64,
}

impl Verbs {
    pub(crate) fn new(how: Mutant, inner: Arc<MemoryBackend>) -> Self {
        Self { how, inner, busy: AtomicBool::new(false), created: AtomicU64::new(0) }
    }

    fn verbs(&self) -> &dyn LifecycleManager {
        self.inner.lifecycle().expect("the memory runtime has verbs")
    }

    fn processes(&self) -> &dyn ExecManager {
        self.inner.exec().expect("the memory runtime runs processes")
    }

    /// Takes the part after the last slash as the id.
    fn id(&self, id: &InstanceId) -> InstanceId {
        if self.how != Mutant::PastesNames {
            return id.clone();
        }
        let path = id.as_str().split(['?', '#', '\n', '%']).next().unwrap_or_default();
        let last = path.trim_end_matches("/json").rsplit('/').next().unwrap_or_default();
        InstanceId::from(last.to_owned())
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.how == Mutant::PoisonedByCancel {
            if self.busy.swap(true, Ordering::AcqRel) {
                return Err(Error::new(ErrorKind::Unexpected, "mutant.call", "another call is under way"));
            }
            let done = work.await;
            self.busy.store(false, Ordering::Release);
            return done;
        }
        work.await.map_err(|error| blurred(self.how, error))
    }

    /// Reports a wrong effect, for the mutants that do not check the state first.
    fn effect(&self, effect: Result<Effect>) -> Result<Effect> {
        match (self.how, effect?) {
            (Mutant::AlwaysChanged, _) => Ok(Effect::Changed),
            (Mutant::NotIdempotent, Effect::Unchanged) => {
                Err(Error::new(ErrorKind::Conflict, "mutant.call", "it is so already"))
            }
            (_, effect) => Ok(effect),
        }
    }
}

#[async_trait]
impl LifecycleManager for Verbs {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        if self.how == Mutant::RestartsTheStarted {
            let effect = self.verbs().start(id).await?;
            if effect == Effect::Unchanged {
                self.verbs().restart(id, StopOptions::default()).await?;
            }
            return Ok(effect);
        }
        self.effect(self.call(self.verbs().start(&self.id(id))).await)
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        self.effect(self.call(self.verbs().stop(&self.id(id), options)).await)
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        self.call(self.verbs().kill(&self.id(id), signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        self.call(self.verbs().restart(&self.id(id), options)).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        if self.how == Mutant::OkWithoutEffect {
            return Ok(Effect::Changed);
        }
        self.effect(self.call(self.verbs().pause(&self.id(id))).await)
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        if self.how == Mutant::OkWithoutEffect {
            return Ok(Effect::Changed);
        }
        self.effect(self.call(self.verbs().unpause(&self.id(id))).await)
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        let end = self.call(self.verbs().wait(&self.id(id))).await;
        if self.how == Mutant::InventsTheExit {
            // An unknown end counts as a success.
            return Ok(Some(end.ok().flatten().unwrap_or(ExitStatus::code(0))));
        }
        end
    }

    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect> {
        self.effect(self.call(self.verbs().rename(&self.id(id), name)).await)
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        self.effect(self.call(self.verbs().remove(&self.id(id), options)).await)
    }
}

#[async_trait]
impl ProvisionManager for Verbs {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        let mut spec = spec.clone();
        if self.how == Mutant::PastesNames {
            // It takes the name as a shell would expand it.
            spec.name =
                spec.name.map(|name| name.split([';', '/', ' ', '\n', '\0']).next().unwrap_or_default().to_owned());
        }
        let provision = self.inner.provision().expect("the memory runtime creates");
        let forgets = matches!(self.how, Mutant::ForgetsAHelper | Mutant::ForgetsAnImage);
        let number = if forgets { self.created.fetch_add(1, Ordering::Relaxed) } else { 0 };
        match self.how {
            Mutant::ForgetsAHelper if number % 8 == 7 => {
                let _ = provision.create(&InstanceSpec::default()).await?;
            }
            Mutant::ForgetsAnImage if number % 8 == 7 => {
                let images = self.inner.images().expect("the memory runtime has images");
                let mut archive = vec![0; 512];
                archive[..8].copy_from_slice(&number.to_be_bytes());
                archive[257..262].copy_from_slice(b"ustar");
                let mut progress = images.import(Box::pin(std::io::Cursor::new(archive))).await?;
                while let Some(step) = progress.next().await {
                    let _ = step?;
                }
            }
            _ => {}
        }
        self.call(provision.create(&spec)).await
    }
}

#[async_trait]
impl LogManager for Verbs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let logs = self.inner.logs().expect("the memory runtime has logs");
        let stream = self.call(logs.logs(&self.id(id), options)).await?;
        Ok(match self.how {
            Mutant::MergesOutputs | Mutant::LosesBytes => {
                LogStream::new(Lossy { how: self.how, inner: stream, lines: 0 })
            }
            _ => stream,
        })
    }
}

#[async_trait]
impl ExecManager for Verbs {
    async fn exec(&self, id: &InstanceId, mut options: ExecOptions) -> Result<ExecSession> {
        if self.how == Mutant::PastesNames {
            // It takes the words as a shell would split them.
            options.argv =
                options.argv.iter().flat_map(|word| word.split([' ', '\n', ';'])).map(str::to_owned).collect();
        }
        let mut session = self.call(self.processes().exec(&self.id(id), options)).await?;
        match self.how {
            Mutant::LosesTheEndOfAnExec => {
                let (output, control) = (session.output, Arc::clone(&session.control));
                let end = Box::pin(async move { drop(control.wait().await) });
                session.output = LogStream::new(output.take_until(end));
            }
            Mutant::InputWithoutEnd => {
                session.stdin = session.stdin.map(|inner| Box::pin(Endless { inner }) as ByteWriter);
            }
            _ => {}
        }
        Ok(session)
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        self.call(self.processes().exec_detached(&self.id(id), options)).await
    }

    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        self.call(self.processes().attach(&self.id(id), options)).await
    }

    async fn start_attached(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        if self.how == Mutant::StartsThenAttaches {
            let _ = self.verbs().start(id).await?;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            return self.processes().attach(id, options).await;
        }
        self.call(self.processes().start_attached(&self.id(id), options)).await
    }

    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()> {
        self.call(self.processes().resize(&self.id(id), size)).await
    }
}

/// Input whose end the process never sees.
struct Endless {
    inner: ByteWriter,
}

impl tokio::io::AsyncWrite for Endless {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.inner.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        // The pipe itself would be an end.
        let inner = std::mem::replace(&mut self.inner, Box::pin(tokio::io::sink()));
        std::mem::forget(inner);
    }
}

struct Lossy {
    how: Mutant,
    inner: LogStream,
    lines: u64,
}

impl futures_util::Stream for Lossy {
    type Item = Result<runtide_core::manager::LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.inner).poll_next(cx);
        let Poll::Ready(Some(Ok(mut line))) = next else { return next };
        self.lines += 1;
        match self.how {
            Mutant::MergesOutputs => line.source = LogSource::Stdout,
            _ if self.lines == 10 => line.bytes = line.bytes.slice(..line.bytes.len() - 1),
            _ => {}
        }
        Poll::Ready(Some(Ok(line)))
    }
}

/// Makes every error unexpected, or adds more to it than it should have.
pub(crate) fn blurred(how: Mutant, error: Error) -> Error {
    match how {
        Mutant::EveryErrorIsUnexpected => Error::new(ErrorKind::Unexpected, "mutant.call", error.to_string()),
        // Display does not show the source; Debug and the serialized error show the causes.
        Mutant::LeaksTheCredential => error.with_source(std::io::Error::other(leak())),
        _ => error,
    }
}

/// A request as a client's error quotes it.
pub(crate) fn leak() -> String {
    format!("GET http://me:{SECRET}@daemon/containers/json failed")
}
