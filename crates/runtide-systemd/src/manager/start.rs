//! Start, and the condition of its success.

use runtide_core::{Error, ErrorKind, ExitCause, Result, manager::Effect};
use zbus::OwnedObjectPath;

use super::{
    job::{End, Jobs, failed},
    unit::{Call, Seen},
};

/// Exit codes of systemd's own steps before a program runs (systemd.exec(5), "Process Exit Codes").
const BEFORE_EXEC: std::ops::RangeInclusive<i32> = 200..=245;

pub(super) async fn start(call: Call<'_>) -> Result<Effect> {
    let before = call.look().await?;
    if before.is_up() {
        return Ok(Effect::Unchanged);
    }
    let mut jobs = Jobs::open(call, call.unit).await?;
    begin(call, &mut jobs, &before).await?;
    Ok(Effect::Changed)
}

/// Starts a unit that is not up, and returns when it is, or was.
pub(super) async fn begin(call: Call<'_>, jobs: &mut Jobs<'_>, before: &Seen) -> Result<()> {
    if before.rests() {
        // A requested start does not count towards the unit's own limit.
        call.reset_failed(call.unit).await?;
    }
    // `StartUnit` would leave a unit unchanged that is up without a process.
    let method = if before.has_exited() { "RestartUnit" } else { "StartUnit" };
    let mut changes = jobs.changes().await?;
    let job = jobs.send(method, &(call.unit, "replace")).await.map_err(|error| refused(call, error))?;
    // An inspection after the job's end may show the next run: systemd restarts a unit that failed by itself.
    let mut first_end = None;
    let mut hear = |seen: Seen| {
        // Before a run leaves the state of the one before, it may be reported with that state.
        let has_begun = seen.began() != before.began() || seen.exit().is_some();
        if first_end.is_none() && has_begun && !seen.runs() && seen.run() != before.run() {
            first_end = Some(seen);
        }
    };
    let end = changes.during(Box::pin(end_of(call, jobs, &job, before)), &mut hear).await?;
    if end.is("failed") {
        changes.during(jobs.catch_up(), &mut hear).await;
    }
    let after = call.look_if_loaded().await?;
    if end.may_be_done() {
        // Gone already: it ran, ended, and was unloaded.
        let Some(after) = after else { return Ok(()) };
        if after.is_up() || after.run() != before.run() || !before.rests() {
            return thawed(call, &after).await;
        }
        let why = match after.more.condition_result {
            Some(false) => "its start: a condition of the unit does not hold",
            _ => "its start changed nothing",
        };
        return Err(call.conflict(why, &after));
    }
    let shown = first_end.or(after);
    let run = shown.as_ref().filter(|shown| shown.run() != before.run());
    if end.is("failed") && run.is_some_and(ran) {
        return Ok(());
    }
    let error = failed(call, "its start", &end);
    let status = run.filter(|run| run.exit().is_some()).and_then(|run| run.service.exec_main_status);
    let error = match status {
        Some(status) => error.with_context("exit", status),
        None => error,
    };
    Err(match shown.and_then(|shown| shown.service.result) {
        Some(result) => error.with_context("result", result),
        None => error,
    })
}

/// Waits until a start is done: its job ended, or a `oneshot` is at work, whose job ends when its work does.
async fn end_of(call: Call<'_>, jobs: &mut Jobs<'_>, job: &OwnedObjectPath, before: &Seen) -> Result<End> {
    if before.service.kind.as_deref() != Some("oneshot") {
        return jobs.end(job).await;
    }
    let at_work = call.until(|seen| {
        let seen = seen?;
        (seen.is_up() && seen.run() != before.run()).then_some(End(None))
    });
    tokio::select! {
        biased;
        end = jobs.end(job) => end,
        end = at_work => end,
    }
}

/// True if the unit's program ran in this run, and ended: then the start is a success, whatever its exit.
fn ran(after: &Seen) -> bool {
    if matches!(after.service.result.as_deref(), Some("timeout" | "protocol" | "start-limit-hit" | "resources")) {
        return false;
    }
    match after.exit().map(|exit| exit.end) {
        // A program that ends at once fails its start like one that could not be executed; these codes distinguish
        // them.
        Some(ExitCause::Code(code)) => !BEFORE_EXEC.contains(&code),
        other => other.is_some(),
    }
}

/// Thaws a unit that was killed while frozen: systemd reports its next run as frozen too, which it is not.
async fn thawed(call: Call<'_>, after: &Seen) -> Result<()> {
    if after.is_frozen() && after.is_up() {
        call.client.manager(call.operation, "ThawUnit", &(call.unit,)).await?;
    }
    Ok(())
}

/// Invalid settings of a unit are its state: the input of this call was valid.
fn refused(call: Call<'_>, error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput => call.error(ErrorKind::Conflict, error.message()),
        _ => error,
    }
}
