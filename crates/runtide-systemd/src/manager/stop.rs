//! Stop and restart.
//!
//! systemd's own stop sends the unit's own signal, to all of its processes. A signal of the caller is sent first, to
//! the main process, and systemd's stop then makes the end final: a unit with `Restart=` stays down.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Result, UnixSignal,
    manager::{Effect, StopOptions},
};

use super::{
    job::{Jobs, failed},
    start,
    unit::{Call, Seen, Whom},
};

pub(super) async fn stop(call: Call<'_>, options: &StopOptions) -> Result<Effect> {
    let before = call.look().await?;
    if before.rests() {
        return Ok(Effect::Unchanged);
    }
    let mut jobs = Jobs::open(call, call.unit).await?;
    end(call, &mut jobs, &before, options).await?;
    Ok(Effect::Changed)
}

pub(super) async fn restart(call: Call<'_>, options: &StopOptions) -> Result<()> {
    let mut before = call.look().await?;
    let mut jobs = Jobs::open(call, call.unit).await?;
    if !before.rests() {
        // A transient unit is unloaded when it ends, unless a reference holds it.
        jobs.hold().await;
        end(call, &mut jobs, &before, options).await?;
        before = call.look().await?;
    }
    if before.is_up() {
        // The unit ended in the meantime.
        return Ok(());
    }
    start::begin(call, &mut jobs, &before).await
}

/// Time that a verb may take beyond the deadline of jobs.
pub(super) fn extra(options: &StopOptions) -> Duration {
    options.timeout.unwrap_or_default()
}

/// Ends a unit that is not inactive.
async fn end(call: Call<'_>, jobs: &mut Jobs<'_>, before: &Seen, options: &StopOptions) -> Result<()> {
    if let Some(signal) = options.signal.filter(|_| before.runs()) {
        let own = before.more.timeout_stop.filter(|own| *own != u64::MAX).map(Duration::from_micros);
        ask(call, before, signal, options.timeout.or(own)).await?;
        if call.look_if_loaded().await?.is_none_or(|seen| seen.rests()) {
            return Ok(());
        }
    }
    let job = match jobs.send("StopUnit", &(call.unit, "replace")).await {
        // It ended in the meantime, and was unloaded.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        job => job?,
    };
    let ended = match options.timeout.filter(|_| options.signal.is_none()) {
        None => Some(jobs.end(&job).await?),
        Some(grace) => tokio::time::timeout(grace, jobs.end(&job)).await.ok().transpose()?,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        kill_all(call).await?;
        jobs.end(&job).await?
    };
    if !ended.is_done() && call.look_if_loaded().await?.is_some_and(|seen| !seen.rests()) {
        return Err(failed(call, "its stop", &ended));
    }
    Ok(())
}

/// Sends the signal and waits until the run is over; after the grace period the processes are killed.
async fn ask(call: Call<'_>, before: &Seen, signal: UnixSignal, grace: Option<Duration>) -> Result<()> {
    if before.is_frozen() && before.is_up() {
        call.client.manager(call.operation, "ThawUnit", &(call.unit,)).await?;
    }
    match call.signal(Whom::Main, signal.number()).await {
        Ok(()) => {}
        // It ended by itself in between.
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => return Ok(()),
        Err(error) => return Err(error),
    }
    let incarnation = before.run();
    let is_over = |seen: Option<&Seen>| seen.is_none_or(|seen| !seen.runs() || seen.run() != incarnation).then_some(());
    if call.until_within(grace, is_over).await?.is_none() {
        kill_all(call).await?;
    }
    Ok(())
}

/// Kills every process that is left, if any is.
pub(super) async fn kill_all(call: Call<'_>) -> Result<()> {
    match call.signal(Whom::All, UnixSignal::KILL.number()).await {
        Err(error) if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Err(error),
        _ => Ok(()),
    }
}
