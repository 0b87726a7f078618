//! Stop and restart, with the caller's signal and timeout.
//!
//! * Podman counts whole seconds: a timeout is rounded up, so that no container gets less time than the caller gave it.
//! * A stop has no signal of the caller's. With one, the signal is sent first, the end is awaited for the caller's timeout, and then
//!   a stop without grace makes it final: it also ends another run, if a restart policy began one after the bare signal.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Result, UnixSignal,
    manager::{Effect, StopOptions},
};
use runtide_engine::Request;

use super::{
    container::{Call, Container},
    kill::kill,
    wait,
};
use crate::client::is_answer;

pub(super) async fn stop(call: Call<'_>, options: &StopOptions) -> Result<Effect> {
    let before = call.bounded(call.inspect()).await?;
    if !before.state.is_alive() {
        return Ok(Effect::Unchanged);
    }
    refuse_paused(call, &before)?;
    let (call, grace) = (call.of(&before), grace(options, &before));
    call.within(limit(call, grace), async {
        let mut timeout = options.timeout.map(whole_seconds);
        if let Some(signal) = options.signal {
            end_by_signal(call, signal, grace, &before).await?;
            timeout = Some(0);
        }
        let mut run = before.state.incarnation().map(str::to_owned);
        loop {
            let refusal = match call.send(timed(call, "stop", timeout)).await {
                Ok(_) => return Ok(Effect::Changed),
                Err(refusal) if is_answer(&refusal) => refusal,
                Err(refusal) => return Err(refusal),
            };
            // It ended, and a container that removes itself at its end is gone.
            let Some(now) = call.inspect_if_present().await? else { return Ok(Effect::Changed) };
            if !now.state.is_alive() {
                return Ok(Effect::Changed);
            }
            if now.state.incarnation() == run.as_deref() {
                return Err(now.named(refusal));
            }
            // The run is over, and another one began (a restart policy, another client) before Podman had cleaned up, which it then refuses.
            refuse_paused(call, &now)?;
            run = now.state.incarnation().map(str::to_owned);
        }
    })
    .await
}

pub(super) async fn restart(call: Call<'_>, options: &StopOptions) -> Result<()> {
    let before = call.bounded(call.inspect()).await?;
    refuse_paused(call, &before)?;
    let (call, grace) = (call.of(&before), grace(options, &before));
    call.within(limit(call, grace), async {
        // Without one Podman's restart would kill at once, and not take the container's own as its stop does.
        let mut timeout = Some(whole_seconds(grace));
        if let Some(signal) = options.signal.filter(|_| before.state.is_alive()) {
            if before.host_config.auto_remove {
                let reason = "the caller's signal ends the container first, and this one would then be removed instead of \
                              started again";
                return Err(call
                    .error(ErrorKind::Unsupported, reason)
                    .with_context("feature", "restart with a signal")
                    .with_context("reason", "Podman's restart takes no signal"));
            }
            end_by_signal(call, signal, grace, &before).await?;
            timeout = Some(0);
        }
        call.send(timed(call, "restart", timeout)).await.map(drop).map_err(|refusal| before.named(refusal))
    })
    .await
}

fn timed(call: Call<'_>, verb: &str, timeout: Option<u32>) -> Request {
    let request = Request::post(call.path(verb));
    match timeout {
        Some(seconds) => request.with_query("timeout", seconds),
        None => request,
    }
}

/// Podman cannot stop what it has frozen, and says so in words that name no remedy.
fn refuse_paused(call: Call<'_>, container: &Container) -> Result<()> {
    if !container.state.is_paused() {
        return Ok(());
    }
    Err(call.error(ErrorKind::Conflict, "it is paused: unpause it").with_context("state", &container.state.status))
}

/// Time that the container gets to end.
fn grace(options: &StopOptions, container: &Container) -> Duration {
    match options.timeout {
        Some(timeout) => Duration::from_secs(whole_seconds(timeout).into()),
        None => container.grace(),
    }
}

/// The deadline of the whole call: the container's time and the client's own.
fn limit(call: Call<'_>, grace: Duration) -> Duration {
    call.client.deadline().saturating_add(grace)
}

/// Rounded up to a whole second.
fn whole_seconds(timeout: Duration) -> u32 {
    let up = u64::from(timeout.subsec_nanos() > 0);
    u32::try_from(timeout.as_secs().saturating_add(up)).unwrap_or(i32::MAX.unsigned_abs()).min(i32::MAX.unsigned_abs())
}

/// Sends the signal and waits until the run is over, at most for `grace`.
async fn end_by_signal(call: Call<'_>, signal: UnixSignal, grace: Duration, before: &Container) -> Result<()> {
    match kill(call, signal).await {
        Ok(()) => {}
        // It ended by itself before the signal.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        Err(error) => return Err(error),
    }
    match tokio::time::timeout(grace, wait::end_of_run(call, before)).await {
        Ok(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
            (Duration::MAX, 2_147_483_647),
        ];
        for (timeout, seconds) in cases {
            assert_eq!(whole_seconds(timeout), seconds);
        }
    }
}
