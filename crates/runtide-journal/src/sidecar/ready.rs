//! Readiness: polls an instance until a start counts as done.

mod address;
mod http;
mod output;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use self::address::Reached;
use runtide_core::{
    Error, ErrorKind, Health, Instance, InstanceId, InstanceState, Result, RuntimeBackend, RuntimeBackendExt,
    manager::{ExecOptions, Readiness},
};

pub(super) const READY: &str = "sidecar.ready";

/// Pause between two polls: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Deadline of one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Waits until the instance is ready; the caller bounds the time. An instance that ends first is an error.
pub(super) async fn wait(backend: &dyn RuntimeBackend, id: &InstanceId, ready: &Readiness) -> Result<()> {
    if let Readiness::Log(text) = ready {
        return wait_for_output(backend, id, text).await;
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let instance = inspect_running(backend, id).await?;
        let is_ready = match ready {
            Readiness::Healthy => instance.health == Some(Health::Healthy),
            _ if instance.state != InstanceState::Running => false,
            Readiness::Tcp(port) => address::connect(&instance, *port).await.is_some(),
            Readiness::Http { port, path } => match address::connect(&instance, *port).await {
                Some(Reached { stream, host }) => http::is_success(stream, &host, path).await,
                None => false,
            },
            Readiness::Command(argv) => succeeds(backend, id, argv).await?,
            Readiness::Running => true,
            other => {
                let message = format!("sidecars do not know this kind of readiness: {other:?}");
                return Err(Error::new(ErrorKind::Unsupported, READY, message));
            }
        };
        if is_ready {
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The instance, inspected now; an error if it has ended.
async fn inspect_running(backend: &dyn RuntimeBackend, id: &InstanceId) -> Result<Arc<Instance>> {
    let instance = backend.inspect(id).await?;
    if instance.state.is_ended() {
        let mut ended = Error::new(ErrorKind::Conflict, READY, "the instance ended before it was ready")
            .with_context("instance", id);
        if let Some(exit) = instance.exit {
            ended = ended.with_context("exit", format!("{:?}", exit.end));
        }
        return Err(ended);
    }
    Ok(instance)
}

/// `true` if the command ends with code 0. A command that cannot be run yet counts as not ready.
async fn succeeds(backend: &dyn RuntimeBackend, id: &InstanceId, argv: &[String]) -> Result<bool> {
    let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_run"))?;
    let run = async {
        let mut session = exec.exec(id, ExecOptions::default().with_argv(argv.to_vec())).await?;
        // The output is read and dropped, since a full pipe would block the command.
        while let Some(line) = session.output.next().await {
            line?;
        }
        session.control.wait().await
    };
    match tokio::time::timeout(ATTEMPT, run).await {
        Ok(Ok(exit)) => Ok(exit.is_some_and(|exit| exit.end == runtide_core::ExitCause::Code(0))),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => Err(error),
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

/// Reads the output, and polls whether the instance still runs. A stream that breaks off is opened again.
async fn wait_for_output(backend: &dyn RuntimeBackend, id: &InstanceId, text: &str) -> Result<()> {
    loop {
        let read = output::contains(backend, id, text);
        let ended = async {
            loop {
                sleep(LONGEST_PAUSE).await;
                if let Err(error) = inspect_running(backend, id).await {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            read = read => match read {
                Ok(true) => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
                    return Err(error);
                }
                Ok(false) | Err(_) => drop(inspect_running(backend, id).await?),
            },
            error = ended => return Err(error),
        }
        sleep(FIRST_PAUSE).await;
    }
}
