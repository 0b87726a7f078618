//! Deadlines of every call: M6.

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

use runtide_core::{
    Error, ErrorKind, ImageRef, ListOptions, Result, UnixSignal,
    manager::{
        AttachOptions, ConnectOptions, Credentials, ExecOptions, LogOptions, NetworkId, NetworkSpec, PullOptions,
        RemoveOptions, StopOptions, VolumeId, VolumeSpec,
    },
};
use tokio::time::Instant;

use super::lifecycle;
use crate::{
    Fault, Harness, Law, LawResult, Verdict, Violation, Workload, ensure,
    laws::{need_fault, running},
};

/// **M6 deadlines.** When the daemon stalls, every call ends within its configured limit (and a margin of half of it), with
/// `Timeout`. A `wait` and an open stream have no own limit.
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
    let spec = h.spec("stalled", &Workload::Idle);
    let image = ImageRef::from("runtide-m6:1");
    let (network, network_id) = (NetworkSpec::named("runtide-m6"), NetworkId::from("runtide-m6"));
    let (volume, volume_id) = (VolumeSpec::named("runtide-m6"), VolumeId::from("runtide-m6"));
    // All at once: with no call answered, no call may wait for another.
    let mut calls: Vec<Call<'_>> = vec![
        Box::pin(ends(limit, "list", backend.list_instances(ListOptions::default()))),
        Box::pin(ends(limit, "inspect", backend.inspect(&id))),
        Box::pin(ends(limit, "connect", backend.connect())),
        Box::pin(ends(limit, "remove", verbs.remove(&id, RemoveOptions::default().with_kill()))),
    ];
    if can.lifecycle_start.is_yes() {
        calls.push(Box::pin(ends(limit, "start", verbs.start(&id))));
    }
    if can.lifecycle_kill.is_yes() {
        calls.push(Box::pin(ends(limit, "kill", verbs.kill(&id, UnixSignal::HUP))));
    }
    if can.lifecycle_pause.is_yes() {
        calls.push(Box::pin(ends(limit, "pause", verbs.pause(&id))));
        calls.push(Box::pin(ends(limit, "unpause", verbs.unpause(&id))));
    }
    // The grace period that the runtime is asked to wait comes on top.
    let grace = Duration::from_secs(1);
    let quick = || StopOptions::default().with_timeout(grace);
    calls.push(Box::pin(ends(limit + grace, "stop", verbs.stop(&id, quick()))));
    if can.lifecycle_restart.is_yes() {
        calls.push(Box::pin(ends(limit.saturating_mul(2) + grace, "restart", verbs.restart(&id, quick()))));
    }
    if let (Some(provision), Ok(spec)) = (backend.provision(), &spec) {
        calls.push(Box::pin(ends(limit, "create", provision.create(spec))));
    }
    if let Some(logs) = backend.logs() {
        calls.push(Box::pin(ends(limit, "logs", async {
            let mut stream = logs.logs(&id, LogOptions::default()).await?;
            stream
                .next()
                .await
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Unexpected, "logs", "an end without an error")))
        })));
    }
    if let Some(exec) = backend.exec().filter(|_| can.exec_run.is_yes()) {
        let argv = ExecOptions::default().with_argv(["true".to_owned()]);
        calls.push(Box::pin(ends(limit, "exec", exec.exec(&id, argv.clone()))));
        calls.push(Box::pin(ends(limit, "detached exec", exec.exec_detached(&id, argv))));
    }
    if let Some(exec) = backend.exec().filter(|_| can.exec_attach.is_yes()) {
        calls.push(Box::pin(ends(limit, "attach", exec.attach(&id, AttachOptions::default()))));
        // A backend that starts nothing attaches to nothing before a start.
        if can.lifecycle_start.is_yes() {
            calls.push(Box::pin(ends(limit, "start attached", exec.start_attached(&id, AttachOptions::default()))));
        }
    }
    if let Some(networks) = backend.networks() {
        calls.push(Box::pin(ends(limit, "list networks", networks.list())));
        calls.push(Box::pin(ends(limit, "create a network", networks.create(&network))));
        calls.push(Box::pin(ends(limit, "remove a network", networks.remove(&network_id))));
        let connect = networks.connect(&network_id, &id, ConnectOptions::default());
        calls.push(Box::pin(ends(limit, "connect", connect)));
    }
    if let Some(volumes) = backend.volumes() {
        calls.push(Box::pin(ends(limit, "list volumes", volumes.list())));
        calls.push(Box::pin(ends(limit, "create a volume", volumes.create(&volume))));
        calls.push(Box::pin(ends(limit, "remove a volume", volumes.remove(&volume_id))));
        calls.push(Box::pin(ends(limit, "export", async { volumes.export(&volume_id).await.map(drop) })));
    }
    if let Some(images) = backend.images() {
        calls.push(Box::pin(ends(limit, "list images", images.list())));
        calls.push(Box::pin(ends(limit, "exists of an image", images.exists(&image))));
        calls.push(Box::pin(ends(limit, "inspect an image", images.inspect(&image))));
        calls.push(Box::pin(ends(limit, "tag an image", images.tag(&image, &image))));
        calls.push(Box::pin(ends(limit, "remove an image", images.remove(&image))));
        if can.images_pull.is_yes() {
            let anonymous = PullOptions::default().with_credentials(Credentials::Anonymous);
            calls.push(Box::pin(ends(limit, "pull an image", images.pull(&image, anonymous))));
        }
    }
    if let Some(stats) = backend.stats() {
        calls.push(Box::pin(ends(limit, "usage", stats.usage(&id))));
    }
    if let Some(snapshots) = backend.snapshots() {
        calls.push(Box::pin(ends(limit, "list snapshots", snapshots.list(&id))));
    }
    all(calls).await?;
    h.heal().await?;
    let healed = backend.list_instances(ListOptions::default()).await;
    ensure!(healed.is_ok(), M6, "calls to work once the daemon answers again", format!("{healed:?}"));
    Verdict::kept()
}

/// One call; an error if it did not end as it must.
type Call<'a> = Pin<Box<dyn Future<Output = std::result::Result<(), Violation>> + 'a>>;

/// Waits for all of them, or for the first that breaks the law.
async fn all(mut calls: Vec<Call<'_>>) -> std::result::Result<(), Violation> {
    std::future::poll_fn(|cx| {
        let mut broken = None;
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                broken = broken.take().or(ended.err());
                false
            }
        });
        match broken {
            Some(violation) => Poll::Ready(Err(violation)),
            None if calls.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

async fn ends<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> std::result::Result<(), Violation> {
    let began = Instant::now();
    // The machine may be busy; a call without a deadline takes much longer.
    let margin = limit.saturating_mul(2);
    let expected = || format!("{what} to end with `timeout` within {limit:?} when the daemon stalls");
    match tokio::time::timeout(limit + margin, call).await {
        Err(_) => Err(Violation::of(Law::M6, expected(), "that it hangs")),
        Ok(Ok(_)) => Err(Violation::of(Law::M6, expected(), "Ok, though the daemon did not answer")),
        Ok(Err(error)) => {
            ensure!(error.kind() == ErrorKind::Timeout, M6, expected(), format!("{error} after {:?}", began.elapsed()));
            Ok(())
        }
    }
}
