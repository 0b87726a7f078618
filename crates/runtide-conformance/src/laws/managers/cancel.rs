//! Dropped futures and streams, at any await: M5.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use runtide_core::{
    ListOptions, RuntimeBackend, WatchOptions,
    manager::{AttachOptions, ExecOptions, LogOptions, RemoveOptions, StopOptions},
};

use super::{lifecycle, ok};
use crate::{
    Harness, Law, LawResult, Subscriber, Verdict, Violation, Workload, ensure,
    laws::{backend, resources::given_back, running},
};

/// Polls a future `times` times, then drops it; `true` if it was done by then.
async fn poll_times<T>(work: impl Future<Output = T>, times: usize) -> bool {
    let mut work = pin!(work);
    for _ in 0..times {
        let ready = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
        if ready {
            return true;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

/// **M5 cancel.** Dropping any future or stream, at any of its first awaits, leaves the backend usable and leaks nothing.
pub async fn m5_cancel(h: &dyn Harness) -> LawResult {
    let timing = h.timing();
    let running_one = running(h, "subject").await?;
    let printer = h.create("printer", &Workload::Print { bytes: 1 << 20 }).await;
    // Threads and a resolver, made once and kept for good, are no leak.
    drop(Subscriber::live(h, &backend(h).await?).await?);
    tokio::time::sleep(timing.quiet).await;
    let baseline = h.held().await;
    let backend = backend(h).await?;
    ok(Law::M5, "connect", backend.connect().await)?;
    let attempts: &[usize] = &[0, 1, 2, 3, 5, 8, 13];
    for &times in attempts {
        drop_each(&*backend, h, &running_one, times).await?;
        if let Ok(printer) = &printer {
            if times == 1 {
                h.start(printer).await?;
            }
            if let Some(logs) = backend.logs() {
                let _ = poll_times(
                    async {
                        let mut stream = logs.logs(printer, LogOptions::default()).await.ok()?;
                        for _ in 0..times {
                            let _ = stream.next().await?;
                        }
                        Some(())
                    },
                    times + 2,
                )
                .await;
            }
        }
        usable(h, &*backend, &running_one, times).await?;
    }
    drop(backend);
    given_back(h, Law::M5, &baseline, "dropping every future").await?;
    Verdict::kept()
}

/// Begins each call and drops it.
async fn drop_each(
    backend: &dyn RuntimeBackend,
    h: &dyn Harness,
    id: &runtide_core::InstanceId,
    times: usize,
) -> Result<(), Violation> {
    let verbs = lifecycle(backend, Law::M5)?;
    poll_times(backend.connect(), times).await;
    poll_times(backend.list_instances(ListOptions::default()), times).await;
    poll_times(backend.inspect(id), times).await;
    poll_times(verbs.wait(id), times).await;
    if backend.capabilities().lifecycle_start.is_yes() {
        poll_times(verbs.restart(id, StopOptions::default()), times).await;
        poll_times(verbs.stop(id, StopOptions::default()), times).await;
        poll_times(verbs.start(id), times).await;
    } else {
        // There is no way back from a stop that takes effect although it was dropped.
        let fleeting = running(h, &format!("fleeting-{times}")).await?;
        poll_times(verbs.stop(&fleeting, StopOptions::default()), times).await;
    }
    if backend.capabilities().lifecycle_pause.is_yes() {
        poll_times(verbs.pause(id), times).await;
        poll_times(verbs.unpause(id), times).await;
    }
    poll_times(
        async {
            let mut stream = backend.watch(WatchOptions::default()).await.ok()?;
            for _ in 0..times {
                let _ = stream.next().await?.ok()?;
            }
            Some(())
        },
        times + 1,
    )
    .await;
    if let Some(exec) = backend.exec() {
        // A session as well: it is dropped in the middle of its output.
        for command in h.commands(1 << 20) {
            let options = ExecOptions::default().with_argv(command.argv);
            poll_times(
                async {
                    let mut session = exec.exec(id, options).await.ok()?;
                    for _ in 0..times {
                        let _ = session.output.next().await?.ok()?;
                    }
                    let _ = session.control.wait().await;
                    Some(())
                },
                times,
            )
            .await;
        }
        if backend.capabilities().exec_attach.is_yes() {
            let attached = async {
                let mut session = exec.attach(id, AttachOptions::default()).await.ok()?;
                session.output.next().await
            };
            poll_times(attached, times).await;
        }
    }
    if let Some(provision) = backend.provision() {
        let spec = h.spec(&format!("dropped-{times}"), &Workload::Idle)?;
        poll_times(provision.create(&spec), times).await;
    }
    poll_times(verbs.remove(&"runtide-conformance-absent".into(), RemoveOptions::default()), times).await;
    Ok(())
}

/// The verbs still work. A request that was sent before the drop may still take effect, so a verb may find its work done.
async fn usable(
    h: &dyn Harness,
    backend: &dyn RuntimeBackend,
    id: &runtide_core::InstanceId,
    times: usize,
) -> Result<(), Violation> {
    let verbs = lifecycle(backend, Law::M5)?;
    let limit = h.timing().timeout;
    let after = |verb: &str| format!("{verb} to work after futures were dropped at await {times}");
    let within = async |verb: &str, work: std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send + '_>>| {
        match tokio::time::timeout(limit, work).await {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(Violation::of(Law::M5, after(verb), error)),
            Err(_) => Err(Violation::of(Law::M5, after(verb), "that it hangs")),
        }
    };
    // A request that was sent before the drop may still be under way.
    tokio::time::sleep(h.timing().quiet).await;
    if backend.capabilities().lifecycle_pause.is_yes() {
        within(
            "unpause",
            Box::pin(async { verbs.unpause(id).await.err().filter(not_conflict).map(|error| error.to_string()) }),
        )
        .await?;
    }
    if backend.capabilities().lifecycle_start.is_yes() {
        within("start", Box::pin(async { verbs.start(id).await.err().map(|error| error.to_string()) })).await?;
    }
    within(
        "list",
        Box::pin(async { backend.list_instances(ListOptions::default()).await.err().map(|error| error.to_string()) }),
    )
    .await?;
    within("inspect", Box::pin(async { backend.inspect(id).await.err().map(|error| error.to_string()) })).await?;
    let alive = super::state(h, id).await?;
    ensure!(alive.is_alive(), M5, after("start"), alive.to_string());
    Ok(())
}

fn not_conflict(error: &runtide_core::Error) -> bool {
    error.kind() != runtide_core::ErrorKind::Conflict
}
