//! Every call ends: M6.

use std::{future::Future, time::Duration};

use runtide_core::{
    Error, ErrorKind, ExecOptions, ListOptions, LogOptions, RemoveOptions, Result, StopOptions, UnixSignal,
};
use tokio::time::Instant;

use super::lifecycle;
use crate::{
    Fault, Harness, Law, LawResult, Verdict, Violation, Workload, ensure,
    laws::{need_fault, running},
};

/// **M6 deadlines.** When the daemon stalls, every call ends within its configured limit (and a margin of half of it), with
/// `Timeout`. A `wait` and an open stream have no limit of their own.
pub async fn m6_deadlines(h: &dyn Harness) -> LawResult {
    let timing = h.timing();
    let mut tuning = timing.tuning();
    tuning.deadline = Some(timing.deadline);
    let backend = h.backend(&tuning).await?;
    let id = running(h, "subject").await?;
    backend.connect().await.map_err(|error| Violation::of(Law::M6, "`connect` before the stall", error.to_string()))?;
    let can = backend.capabilities();
    let verbs = lifecycle(&*backend, Law::M6)?;
    need_fault!(h, Fault::Stall);

    let limit = timing.deadline;
    ends(limit, "list", backend.list_instances(ListOptions::default())).await?;
    ends(limit, "inspect", backend.inspect(&id)).await?;
    ends(limit, "connect", backend.connect()).await?;
    ends(limit, "start", verbs.start(&id)).await?;
    ends(limit, "kill", verbs.kill(&id, UnixSignal::HUP)).await?;
    if can.lifecycle_pause.is_yes() {
        ends(limit, "pause", verbs.pause(&id)).await?;
        ends(limit, "unpause", verbs.unpause(&id)).await?;
    }
    // What the runtime is told to wait for comes on top.
    let grace = Duration::from_secs(1);
    let quick = || StopOptions::default().with_timeout(grace);
    ends(limit + grace, "stop", verbs.stop(&id, quick())).await?;
    ends(limit.saturating_mul(2) + grace, "restart", verbs.restart(&id, quick())).await?;
    ends(limit, "remove", verbs.remove(&id, RemoveOptions::default().with_kill())).await?;
    if let Some(provision) = backend.provision() {
        let spec = h.spec("stalled", &Workload::Idle)?;
        ends(limit, "create", provision.create(&spec)).await?;
    }
    if let Some(logs) = backend.logs() {
        ends(limit, "logs", async {
            let mut stream = logs.logs(&id, LogOptions::default()).await?;
            stream
                .next()
                .await
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Unexpected, "logs", "an end without a word")))
        })
        .await?;
    }
    if let Some(exec) = backend.exec().filter(|_| can.exec_run.is_yes()) {
        ends(limit, "exec", exec.exec(&id, ExecOptions::default().with_argv(["true".to_owned()]))).await?;
    }
    if let Some(networks) = backend.networks() {
        ends(limit, "list networks", networks.list()).await?;
    }
    if let Some(volumes) = backend.volumes() {
        ends(limit, "list volumes", volumes.list()).await?;
    }
    if let Some(images) = backend.images() {
        ends(limit, "list images", images.list()).await?;
    }
    if let Some(stats) = backend.stats() {
        ends(limit, "usage", stats.usage(&id)).await?;
    }
    if let Some(snapshots) = backend.snapshots() {
        ends(limit, "list snapshots", snapshots.list(&id)).await?;
    }
    h.heal().await?;
    let healed = backend.list_instances(ListOptions::default()).await;
    ensure!(healed.is_ok(), M6, "calls to work once the daemon answers again", format!("{healed:?}"));
    Verdict::kept()
}

async fn ends<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> std::result::Result<(), Violation> {
    let began = Instant::now();
    let margin = limit / 2 + Duration::from_millis(500);
    let expected = || format!("{what} to end with `timeout` within {limit:?} when the daemon stalls");
    match tokio::time::timeout(limit + margin, call).await {
        Err(_) => Err(Violation::of(Law::M6, expected(), "that it hangs")),
        Ok(Ok(_)) => Err(Violation::of(Law::M6, expected(), "Ok, though nobody answered")),
        Ok(Err(error)) => {
            ensure!(error.kind() == ErrorKind::Timeout, M6, expected(), format!("{error} after {:?}", began.elapsed()));
            Ok(())
        }
    }
}
