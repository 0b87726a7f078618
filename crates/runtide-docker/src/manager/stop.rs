//! Stop and restart, with the caller's signal and timeout.
//!
//! * The daemon counts whole seconds: a timeout is rounded up, so that no container gets less time than the caller gave it.
//! * The caller's signal is a parameter since API 1.42, and silently ignored before. There the signal is sent first, and the
//!   end is awaited for the caller's timeout (whole seconds as well).
//! * In either case the daemon takes a signal that is not the container's own for no stop, so that a restart policy begins
//!   another run. The daemon's own stop without grace, which also ends that run, makes it final.

use std::time::Duration;

use bollard::query_parameters::{RestartContainerOptions, StopContainerOptions, WaitContainerOptions};
use futures_util::StreamExt;
use runtide_core::{
    ErrorKind, Result, UnixSignal,
    manager::{Effect, StopOptions},
};

use super::{
    container::{Call, Container, is_answer, is_status, speaks},
    kill::kill,
};

/// The first API version whose stop and restart take a signal.
const SIGNALS_SINCE: usize = 42;

pub(super) async fn stop(call: Call<'_>, options: &StopOptions) -> Result<Effect> {
    let before = call.bounded(call.inspect()).await?;
    if !before.state.running {
        return Ok(Effect::Unchanged);
    }
    let (call, grace) = (call.of(&before), grace(options, &before));
    call.within(limit(call, grace), async {
        let docker = call.docker().await?;
        let t = options.timeout.map(whole_seconds);
        let is_old = !speaks(&docker, SIGNALS_SINCE);
        let mut stopped = match options.signal {
            Some(signal) if is_old => {
                end_by_signal(call, signal, grace).await?;
                Ok(())
            }
            signal => {
                let signal = signal.map(|signal| signal.number().to_string());
                docker.stop_container(call.id, Some(StopContainerOptions { t, signal })).await
            }
        };
        if stopped.is_ok() && options.signal.is_some() && (is_old || before.host_config.restart_policy.restarts()) {
            let at_once = StopContainerOptions { t: Some(0), signal: None };
            stopped = match docker.stop_container(call.id, Some(at_once)).await {
                // The signal ended it, and the container removes itself at its end.
                Err(refusal) if is_status(&refusal, 404) => Ok(()),
                stopped => stopped,
            };
        }
        match stopped {
            Ok(()) => Ok(Effect::Changed),
            Err(refusal) => call.settle(refusal, |now| (!now.running).then_some(Effect::Changed), |_| false).await,
        }
    })
    .await
}

pub(super) async fn restart(call: Call<'_>, options: &StopOptions) -> Result<()> {
    let before = call.bounded(call.inspect()).await?;
    let (call, grace) = (call.of(&before), grace(options, &before));
    call.within(limit(call, grace), async {
        let docker = call.docker().await?;
        let restarted = match options.signal {
            Some(signal) if before.state.running && !speaks(&docker, SIGNALS_SINCE) => {
                if before.host_config.auto_remove {
                    let reason = "before API 1.42 the caller's signal ends the container first, and this one would then \
                                  be removed instead of started again";
                    return Err(call
                        .error(ErrorKind::Unsupported, reason)
                        .with_context("feature", "restart with a signal")
                        .with_context("reason", "API before 1.42"));
                }
                end_by_signal(call, signal, grace).await?;
                docker.restart_container(call.id, Some(RestartContainerOptions { t: Some(0), signal: None })).await
            }
            signal => {
                let t = options.timeout.map(whole_seconds);
                let signal = signal.map(|signal| signal.number().to_string());
                docker.restart_container(call.id, Some(RestartContainerOptions { t, signal })).await
            }
        };
        restarted.map_err(|refusal| call.refused(refusal))
    })
    .await
}

/// Time that the container gets to end; `None`: no limit.
fn grace(options: &StopOptions, container: &Container) -> Option<Duration> {
    match options.timeout {
        Some(timeout) => Some(Duration::from_secs(u64::from(whole_seconds(timeout).unsigned_abs()))),
        None => container.grace(),
    }
}

/// The deadline of the whole call: the container's time and the client's own. The wait for a container without a limit is
/// bounded by the client's deadline alone.
fn limit(call: Call<'_>, grace: Option<Duration>) -> Duration {
    call.client.deadline().saturating_add(grace.unwrap_or_default())
}

/// Rounded up to a whole second, at most the daemon's maximum (68 years).
fn whole_seconds(timeout: Duration) -> i32 {
    let up = u64::from(timeout.subsec_nanos() > 0);
    i32::try_from(timeout.as_secs().saturating_add(up)).unwrap_or(i32::MAX)
}

/// Sends the signal and waits until the run is over, at most for `grace`.
async fn end_by_signal(call: Call<'_>, signal: UnixSignal, grace: Option<Duration>) -> Result<()> {
    match kill(call, signal).await {
        Ok(()) => {}
        // It ended by itself before the signal.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        Err(error) => return Err(error),
    }
    let docker = call.docker().await?;
    let options = WaitContainerOptions { condition: "not-running".to_owned() };
    let mut end = docker.wait_container(call.id, Some(options));
    let waited = async {
        match end.next().await {
            Some(Err(refusal)) if is_answer(&refusal) => Err(call.refused(refusal)),
            _ => Ok(()),
        }
    };
    match grace {
        Some(grace) => tokio::time::timeout(grace, waited).await.unwrap_or(Ok(())),
        None => waited.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_container_gets_less_time_than_the_caller_gave() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(200), 1),
            (Duration::from_secs(3), 3),
            (Duration::from_millis(3001), 4),
            (Duration::MAX, i32::MAX),
        ];
        for (timeout, seconds) in cases {
            assert_eq!(whole_seconds(timeout), seconds);
        }
    }
}
