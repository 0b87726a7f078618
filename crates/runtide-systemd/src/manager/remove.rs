//! Remove: a created unit is unloaded together with its holder.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Result,
    manager::{Effect, RemoveOptions},
};

use super::{
    holder,
    job::{Jobs, failed},
    stop,
    unit::{Call, Seen},
};

/// Time in which systemd unloads a unit that nothing needs any more: it does so when it is idle.
const FORGOTTEN: Duration = Duration::from_secs(10);

pub(super) async fn remove(call: Call<'_>, options: &RemoveOptions) -> Result<Effect> {
    let Some(before) = call.look_if_loaded().await? else { return Ok(Effect::Unchanged) };
    if !before.is_transient() {
        let reason = "it has a unit file, which is a declared resource: delete it in the store";
        return Err(call
            .error(ErrorKind::Unsupported, reason)
            .with_context("feature", "remove of a unit with a file")
            .with_context("reason", before.about.fragment_path.unwrap_or_default()));
    }
    if !options.kill && !before.rests() && !before.has_exited() {
        return Err(call.conflict("it runs, and the options do not include `kill`", &before));
    }
    if !before.rests() {
        let mut jobs = Jobs::open(call, call.unit).await?;
        if options.kill {
            stop::kill_all(call).await?;
        }
        match jobs.send("StopUnit", &(call.unit, "replace")).await {
            Ok(job) => {
                if options.kill {
                    // A unit that was started again in the meantime: with the stop queued, it will not be again.
                    stop::kill_all(call).await?;
                }
                let end = jobs.end(&job).await?;
                if !end.is_done() && call.look_if_loaded().await?.is_some_and(|seen| !seen.rests()) {
                    return Err(failed(call, "its stop", &end));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    forget(call).await?;
    Ok(Effect::Changed)
}

/// Lets systemd unload an inactive unit, and returns when it did.
pub(super) async fn forget(call: Call<'_>) -> Result<()> {
    call.reset_failed(call.unit).await?;
    let holder = holder::of(call.unit);
    match call.client.manager(call.operation, "StopUnit", &(&holder, "replace")).await {
        Ok(_) => {}
        // The unit has no holder: another client created it.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let gone = call.until(|seen: Option<&Seen>| seen.is_none().then_some(()));
    let Ok(gone) = tokio::time::timeout(FORGOTTEN, gone).await else {
        let message = "it is inactive, but another unit or client refers to it: systemd does not unload it";
        return Err(call.error(ErrorKind::Conflict, message));
    };
    gone?;
    // The name can be used again only when both are gone.
    let holder = Call { unit: &holder, ..call };
    holder.until(|seen: Option<&Seen>| seen.is_none().then_some(())).await
}
