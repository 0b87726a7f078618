//! Processes inside a container, and its main process, over upgraded connections.
//!
//! * Framing follows the terminal: the request's own for an exec, the inspected one for an attach. From API 1.42 on the content
//!   type says it too, and is believed where it says "multiplexed". It is never guessed from the bytes (trap D20).
//! * An upgraded connection has no end of its own: a daemon that dies closes it as one that is done does. So the end of the bytes is
//!   the end of the output only if an inspection shows that the process ended: see [`Output`].
//! * The exit is the daemon's record, which is gone with the daemon's process: then it is unknown, never 0 (trap D22).
//! * With a terminal, the end of the input would end the output (trap D21): see [`Input`].

mod attached;
mod process;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, InstanceId, Result,
    manager::{AttachOptions, ByteWriter, Effect, ExecControl, ExecManager, ExecOptions, ExecSession, TtySize},
};
use runtide_engine::{
    Hijacked, Request,
    exec::{Create, DETACH_KEYS, End, Input, Main, Output, Owner, Process, Start, check, id_in},
};

use self::{
    attached::{Begun, Run},
    process::Record,
};
use super::{
    container::{Call, Container},
    lifecycle, wait,
};
use crate::{
    client::{Client, Docker},
    version::ApiVersion,
};

/// The first API version that takes the terminal's size when the process is created.
const CONSOLE_SIZE_SINCE: ApiVersion = ApiVersion::new(1, 42);

/// Longest time to set the size of a terminal whose process runs already.
const SIZED_WITHIN: Duration = Duration::from_secs(5);

/// Said of bytes in frames, from API 1.42 on.
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The [`ExecManager`] of one daemon.
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
        let call = Call::on(&self.client, "docker.exec", id)?;
        check(&options).map_err(|wrong| call.error(ErrorKind::InvalidInput, wrong))?;
        call.bounded(exec(call, &options)).await
    }

    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        let call = Call::on(&self.client, "docker.exec", id)?;
        check(&options).map_err(|wrong| call.error(ErrorKind::InvalidInput, wrong))?;
        if options.stdin {
            return Err(call.error(ErrorKind::InvalidInput, "a detached process has no input"));
        }
        call.bounded(exec_detached(call, &options)).await
    }

    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        let call = Call::on(&self.client, "docker.attach", id)?;
        call.bounded(attach(call, &options)).await
    }

    async fn start_attached(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession> {
        let call = Call::on(&self.client, "docker.start_attached", id)?;
        call.bounded(start_attached(call, &options)).await
    }

    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()> {
        let call = Call::on(&self.client, "docker.resize", id)?;
        call.bounded(attached::resize_main(call, size)).await
    }
}

/// The container, if processes can be started in it and attached to. The daemon refuses the others too, each version in its own
/// words, but lets an attach to a container that ended wait indefinitely.
async fn alive(call: Call<'_>) -> Result<Container> {
    let container = call.inspect().await?;
    let state = &container.state;
    let refused = match (state.is_alive(), state.paused) {
        (true, false) => return Ok(container),
        (true, true) => "it is paused: unpause it",
        (false, _) => "it does not run",
    };
    Err(call.error(ErrorKind::Conflict, refused).with_context("state", &state.status))
}

/// The call, for as long as the session lasts.
fn owner(call: Call<'_>, container: &Container) -> Owner<Docker> {
    Owner {
        client: (**call.client).clone(),
        operation: call.operation,
        container: container.id_or(call.id).to_owned(),
        max_silence: call.client.config().max_silence,
    }
}

/// Creates the process's record, which the daemon removes with the container, or some minutes after the process ended.
async fn create(call: Call<'_>, options: &ExecOptions, is_attached: bool) -> Result<Process<Record>> {
    let container = alive(call).await?;
    let call = call.of(&container);
    let takes_size = takes_size(call).await?;
    let body = Create {
        attach_stdout: is_attached,
        attach_stderr: is_attached,
        console_size: options.tty.filter(|_| takes_size).map(|size| [size.rows.get(), size.columns.get()]),
        ..Create::of(options)
    };
    let answer = call.send(Request::post(format!("/containers/{}/exec", call.id)).with_json(&body)).await?;
    let owner = owner(call, &container);
    let id = id_in(&owner, &answer)?;
    Ok(Process::new(Record::new(owner, call.client.clone(), id, &container, options.tty.is_some())))
}

async fn takes_size(call: Call<'_>) -> Result<bool> {
    let server = Box::pin(call.client.server()).await.map_err(|error| call.located(error))?;
    Ok(server.api >= CONSOLE_SIZE_SINCE)
}

async fn exec(call: Call<'_>, options: &ExecOptions) -> Result<ExecSession> {
    let process = Arc::new(create(call, options, true).await?);
    let link = hijack(call, start(&process, options, false)).await?;
    size_at_start(call, &process, options).await;
    let end = if options.tty.is_some() { End::Typed } else { End::HalfClose };
    let is_framed = is_framed(&link, options.tty.is_some());
    let Hijacked { reader, writer, .. } = link;
    Ok(ExecSession {
        stdin: options.stdin.then(|| Box::pin(Input::new(writer, end, call.client.deadline())) as ByteWriter),
        output: Output::stream(reader, is_framed, Arc::clone(&process)),
        control: process,
    })
}

async fn exec_detached(call: Call<'_>, options: &ExecOptions) -> Result<Arc<dyn ExecControl>> {
    let process = create(call, options, false).await?;
    call.send(start(&process, options, true)).await?;
    size_at_start(call, &process, options).await;
    Ok(Arc::new(process))
}

fn start(process: &Process<Record>, options: &ExecOptions, detach: bool) -> Request {
    let body = Start { detach, tty: options.tty.is_some(), ..Start::default() };
    Request::post(process.records().path("start")).with_json(&body)
}

/// Older servers take the terminal's size only of a process that has begun. It runs then: what fails is the size, and not the call.
async fn size_at_start(call: Call<'_>, process: &Process<Record>, options: &ExecOptions) {
    let Some(size) = options.tty else { return };
    let sized = async { if takes_size(call).await? { Ok(()) } else { process::size_at_start(process, size).await } };
    let limit = SIZED_WITHIN.min(call.client.deadline() / 4);
    let sized = tokio::time::timeout(limit, sized).await;
    if let Err(error) = sized.unwrap_or_else(|_| Err(call.error(ErrorKind::Timeout, "the daemon did not answer"))) {
        tracing::warn!(%error, instance = call.id, "the terminal of a process that runs has not the size that was asked for");
    }
}

async fn attach(call: Call<'_>, options: &AttachOptions) -> Result<ExecSession> {
    let container = alive(call).await?;
    let call = call.of(&container);
    let link = connect(call, &container, options).await?;
    // The daemon attaches to a container that has ended as well, and that connection would never end.
    let now = call.inspect().await?.state;
    let incarnation = container.state.incarnation().map(str::to_owned);
    if !now.is_alive() || now.incarnation() != incarnation.as_deref() {
        return Err(call.error(ErrorKind::Conflict, "it ended just now").with_context("state", &now.status));
    }
    Ok(attached(call, &container, options, link, Begun::Before(incarnation), None))
}

async fn start_attached(call: Call<'_>, options: &AttachOptions) -> Result<ExecSession> {
    let container = call.inspect().await?;
    let call = call.of(&container);
    if container.state.running {
        let error = call.error(ErrorKind::Conflict, "it runs already: attach to it");
        return Err(error.with_context("state", &container.state.status));
    }
    let link = connect(call, &container, options).await?;
    // Opened before the start too: a container that removes itself takes its exit with it (trap D24).
    let end = wait::open(call, "next-exit").await?;
    if lifecycle::start(call).await? == Effect::Unchanged {
        return Err(call.error(ErrorKind::Conflict, "another client started it first"));
    }
    // From here on the session is there, whatever an inspection says.
    Ok(attached(call, &container, options, link, Begun::Started, Some(end)))
}

/// A connection to the streams of the main process. The daemon has attached before it upgrades the connection.
async fn connect(call: Call<'_>, container: &Container, options: &AttachOptions) -> Result<Hijacked> {
    if options.stdin && !container.config.open_stdin {
        return Err(call.error(ErrorKind::InvalidInput, "its input is not open: it was created without `open_stdin`"));
    }
    let mut request = Request::post(format!("/containers/{}/attach?stream=1&stdout=1&stderr=1", call.id));
    if options.stdin {
        request = request.with_query("stdin", 1);
    }
    if container.config.tty {
        request = request.with_query("detachKeys", DETACH_KEYS);
    }
    hijack(call, request).await
}

fn attached(
    call: Call<'_>,
    container: &Container,
    options: &AttachOptions,
    link: Hijacked,
    begun: Begun,
    end: Option<wait::Opened>,
) -> ExecSession {
    let config = &container.config;
    let (is_framed, input_end) = (is_framed(&link, config.tty), End::of_main(config.tty, config.stdin_once));
    let main = Arc::new(Main::new(Run::new(call, owner(call, container), container, begun, end)));
    let Hijacked { reader, writer, .. } = link;
    ExecSession {
        stdin: options.stdin.then(|| Box::pin(Input::new(writer, input_end, call.client.deadline())) as ByteWriter),
        output: Output::stream(reader, is_framed, Arc::clone(&main)),
        control: main,
    }
}

async fn hijack(call: Call<'_>, request: Request) -> Result<Hijacked> {
    Box::pin(call.client.hijack(call.operation, request)).await.map_err(|error| call.located(error))
}

fn is_framed(link: &Hijacked, has_terminal: bool) -> bool {
    link.content_type.as_deref() == Some(MULTIPLEXED) || !has_terminal
}
