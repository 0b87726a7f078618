//! Processes inside a container, and its main process, over upgraded connections.
//!
//! * Framing follows the terminal alone: the content type says "raw" below libpod 4.7 of frames as well (trap P8).
//! * Keys that detach are looked for in every input, also without a terminal. An attach has none; an exec cannot have none.
//! * A connection that is cut makes Podman stop following the process: after 5 s it writes down an exit of -1, which is none (trap P7).
//! * A container that ran is made ready again by an attach. So the end of the run that a session starts is found in the log of
//!   events, behind the last end before it: see [`attached`].

mod attached;
mod record;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result,
    manager::{
        AttachOptions, ByteWriter, Effect, ExecControl, ExecManager, ExecOptions, ExecSession, LogLine, LogSource,
        LogStream, TtySize,
    },
};
use runtide_engine::{
    Hijacked, Request,
    exec::{Create, DETACH_KEYS, End, Input, Main, Output, Owner, Process, Records, Start, check, id_in},
};
use tokio::{io::AsyncWriteExt, time::Instant};

use self::{
    attached::{Run, Which},
    record::Record,
};
use super::{
    container::{Call, Container},
    lifecycle,
};
use crate::client::{Client, Podman, is_answer};

/// The exit with which the `podman` command ends where a program cannot be run, and 127 where there is none.
const CANNOT_RUN: i32 = 126;

/// Longest wait until a run that ended is cleaned up after. Where that program was killed it never is.
const CLEANED_UP_WITHIN: Duration = Duration::from_secs(10);

/// Pause between two inspections.
const PAUSE: Duration = Duration::from_millis(50);

/// The [`ExecManager`] of one service.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    client: Client,
}

impl Exec {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl ExecManager for Exec {
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession> {
        let call = Call::on(&self.client, "podman.exec", id)?;
        check(&options).map_err(|wrong| call.error(ErrorKind::InvalidInput, wrong))?;
        call.bounded(exec(call, &options)).await
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        let call = Call::on(&self.client, "podman.exec", id)?;
        check(&options).map_err(|wrong| call.error(ErrorKind::InvalidInput, wrong))?;
        if options.stdin {
            return Err(call.error(ErrorKind::InvalidInput, "a detached process has no input"));
        }
        call.bounded(exec_detached(call, &options)).await
    }

    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        let call = Call::on(&self.client, "podman.attach", id)?;
        call.bounded(attach(call, &options)).await
    }

    async fn start_attached(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        let call = Call::on(&self.client, "podman.start_attached", id)?;
        call.bounded(start_attached(call, &options)).await
    }

    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()> {
        let call = Call::on(&self.client, "podman.resize", id)?;
        call.bounded(attached::resize_main(call, size)).await
    }
}

/// The container, if processes can be started in it and attached to: an attach to another one would change its state.
async fn alive(call: Call<'_>) -> Result<Container> {
    let container = call.inspect().await?;
    match refused(call, &container) {
        Some(error) => Err(error),
        None => Ok(container),
    }
}

fn refused(call: Call<'_>, container: &Container) -> Option<Error> {
    let state = &container.state;
    let why = match (state.is_alive(), state.is_paused()) {
        (true, false) => return None,
        (true, true) => "it is paused: unpause it",
        (false, _) => "it does not run",
    };
    Some(call.error(ErrorKind::Conflict, why).with_context("state", &state.status))
}

/// The service's refusal, or the state of the container if that explains it: the service has no status for it.
async fn explained(call: Call<'_>, refusal: Error) -> Error {
    if !is_answer(&refusal) {
        return refusal;
    }
    match call.inspect().await {
        Ok(container) => refused(call, &container).unwrap_or(refusal),
        Err(error) => error,
    }
}

/// The call, for as long as the session lasts.
fn owner(call: Call<'_>, container: &Container) -> Owner<Podman> {
    Owner {
        client: (**call.client).clone(),
        operation: call.operation,
        container: container.id_or(call.id).to_owned(),
        max_silence: call.client.config().max_silence,
    }
}

/// Creates the record of a process, which the service removes some minutes after the process ended.
async fn create(call: Call<'_>, body: &Create<'_>, options: &ExecOptions) -> Result<Record> {
    let container = alive(call).await?;
    let call = call.of(&container);
    let answer = match call.send(Request::post(call.path("exec")).with_json(body)).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(explained(call, refusal).await),
    };
    let owner = owner(call, &container);
    let id = id_in(&owner, &answer)?;
    Ok(Record::new(owner, call.client.clone(), id, &container, options.tty.is_some()))
}

async fn exec(call: Call<'_>, options: &ExecOptions) -> Result<ExecSession> {
    let body = Create { detach_keys: Some(DETACH_KEYS), ..Create::of(options) };
    let record = create(call, &body, options).await?;
    let unbegun = record.guard();
    let has_terminal = options.tty.is_some();
    let link = match hijack(call, start(&record, options)).await {
        Ok(link) => link,
        Err(refusal) if is_answer(&refusal) && record.could_not_run().await? => {
            unbegun.undo().await;
            return Ok(not_run(record, options, &refusal));
        }
        Err(refusal) => return unbegun.settle(Err(explained(call, refusal).await)).await,
    };
    unbegun.keep();
    let process = Arc::new(Process::new(record));
    let Hijacked { reader, writer, .. } = link;
    let end = if has_terminal { End::Typed } else { End::HalfClose };
    Ok(ExecSession {
        stdin: options.stdin.then(|| Box::pin(Input::new(writer, end, call.client.deadline())) as ByteWriter),
        output: Output::stream(reader, !has_terminal, Arc::clone(&process)),
        control: process,
    })
}

/// The session of a program that could not be run, of which the service says so before it upgrades the connection: the reason is its
/// output, as that of the others is.
fn not_run(record: Record, options: &ExecOptions, refusal: &Error) -> ExecSession {
    let source = if options.tty.is_some() { LogSource::Console } else { LogSource::Stderr };
    let line = LogLine::new(source, None, format!("Error: {}\n", refusal.message()).into());
    ExecSession {
        stdin: options.stdin.then(|| Box::pin(tokio::io::sink()) as ByteWriter),
        output: LogStream::new(stream::iter([Ok(line)])),
        control: Arc::new(Process::ended(record, Some(ExitStatus::code(CANNOT_RUN)))),
    }
}

/// Podman's own way to detach follows no process: up to 4.5 the end is known only some minutes after it. With a session of the input
/// alone it does, and throws the output away by itself, also when the session is left.
async fn exec_detached(call: Call<'_>, options: &ExecOptions) -> Result<Arc<dyn ExecControl>> {
    let none = Create { attach_stdout: false, attach_stderr: false, ..Create::of(options) };
    if options.tty.is_some() {
        // A terminal's output is followed by none if it is not attached.
        let record = create(call, &none, options).await?;
        return detached_with_terminal(call, record, options).await;
    }
    let record = create(call, &Create { attach_stdin: true, ..none }, options).await?;
    let unbegun = record.guard();
    let mut link = match hijack(call, start(&record, options)).await {
        Ok(link) => link,
        Err(refusal) => return unbegun.settle(Err(failed(call, refusal).await)).await,
    };
    // The service answers when the process runs, or could not be run.
    let is_over = record.could_not_run().await?;
    if is_over && let Some(reason) = record::reason(&mut link.reader).await {
        return unbegun.settle(Err(call.error(ErrorKind::Conflict, reason))).await;
    }
    unbegun.keep();
    let _ = link.writer.shutdown().await;
    Ok(Arc::new(Process::new(record)))
}

async fn detached_with_terminal(call: Call<'_>, record: Record, options: &ExecOptions) -> Result<Arc<dyn ExecControl>> {
    let body = Start { detach: true, tty: true, ..Start::default() };
    let unbegun = record.guard();
    if let Err(refusal) = call.send(Request::post(record.path("start")).with_json(&body)).await {
        return unbegun.settle(Err(failed(call, refusal).await)).await;
    }
    unbegun.keep();
    if let Some(size) = options.tty
        && let Err(error) = record.resize(size).await
    {
        tracing::warn!(%error, instance = call.id, "the terminal of a process that runs has not the size that was asked for");
    }
    Ok(Arc::new(Process::new(record)))
}

/// The error of a program that could not be run in this container: this call's input was valid.
async fn failed(call: Call<'_>, refusal: Error) -> Error {
    let error = explained(call, refusal).await;
    if error.kind() == ErrorKind::Unexpected { call.error(ErrorKind::Conflict, error.message()) } else { error }
}

fn start(record: &Record, options: &ExecOptions) -> Request {
    let (rows, columns) = options.tty.map(|size| (size.rows.get(), size.columns.get())).unzip();
    let body = Start { detach: false, tty: options.tty.is_some(), rows, columns };
    Request::post(record.path("start")).with_json(&body)
}

async fn attach(call: Call<'_>, options: &AttachOptions) -> Result<ExecSession> {
    let container = alive(call).await?;
    let call = call.of(&container);
    let link = match connect(call, &container, options).await {
        Ok(link) => link,
        Err(refusal) => return Err(explained(call, refusal).await),
    };
    // A container that has ended is made ready again, and nothing ever comes from it.
    let now = call.inspect().await?;
    if !now.state.is_alive() || now.state.incarnation() != container.state.incarnation() {
        return Err(call.error(ErrorKind::Conflict, "it ended just now").with_context("state", &now.state.status));
    }
    let which = Which::Run(Box::new(now));
    Ok(attached(call, &container, options, link, Run::before(owner(call, &container), call, which)))
}

async fn start_attached(call: Call<'_>, options: &AttachOptions) -> Result<ExecSession> {
    let container = cleaned_up(call).await?;
    let call = call.of(&container);
    if container.state.is_alive() {
        let error = call.error(ErrorKind::Conflict, "it runs already: attach to it");
        return Err(error.with_context("state", &container.state.status));
    }
    let before = attached::last_end(call, &container).await?;
    let link = connect(call, &container, options).await?;
    if lifecycle::start(call).await? == Effect::Unchanged {
        return Err(call.error(ErrorKind::Conflict, "another client started it first"));
    }
    // From here on the session is there, whatever an inspection says.
    Ok(attached(call, &container, options, link, Run::started(owner(call, &container), call, &container, before)))
}

/// The container, once Podman has cleaned up after its last run: a program of its own does that, and takes one that was made ready in the
/// meantime down again, with the connection to its streams.
async fn cleaned_up(call: Call<'_>) -> Result<Container> {
    let deadline = Instant::now() + CLEANED_UP_WITHIN.min(call.client.deadline() / 2);
    loop {
        let container = call.inspect().await?;
        if container.state.status != "stopped" || Instant::now() >= deadline {
            return Ok(container);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection to the streams of the main process. The service has attached before it upgrades the connection.
async fn connect(call: Call<'_>, container: &Container, options: &AttachOptions) -> Result<Hijacked> {
    if options.stdin && !container.config.open_stdin {
        return Err(call.error(ErrorKind::InvalidInput, "its input is not open: it was created without `open_stdin`"));
    }
    let request = Request::post(call.path("attach"))
        .with_query("logs", false)
        .with_query("stream", true)
        // Without a word on it the input is attached as well, and ended with the session.
        .with_query("stdin", options.stdin)
        .with_query("stdout", true)
        .with_query("stderr", true)
        .with_query("detachKeys", "");
    hijack(call, request).await
}

fn attached(call: Call<'_>, container: &Container, options: &AttachOptions, link: Hijacked, run: Run) -> ExecSession {
    let tty = container.config.tty;
    let main = Arc::new(Main::new(run));
    let Hijacked { reader, writer, .. } = link;
    let end = if tty { End::Typed } else { End::HalfClose };
    ExecSession {
        stdin: options.stdin.then(|| Box::pin(Input::new(writer, end, call.client.deadline())) as ByteWriter),
        output: Output::stream(reader, !tty, Arc::clone(&main)),
        control: main,
    }
}

async fn hijack(call: Call<'_>, request: Request) -> Result<Hijacked> {
    Box::pin(call.client.hijack(call.operation, request)).await.map_err(|error| call.located(error))
}
