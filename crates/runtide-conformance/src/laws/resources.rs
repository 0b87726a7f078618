//! Resources, held and given back: R15.

use runtide_core::{ErrorKind, ListOptions, WatchOptions};
use tokio::time::Instant;

use super::{backend, running, try_fault};
use crate::{Fault, Harness, Held, Law, LawResult, Subscriber, Verdict, Violation, ensure};

/// Waits until nothing is held beyond the baseline.
pub(crate) async fn given_back(h: &dyn Harness, law: Law, baseline: &Held, after: &str) -> Result<(), Violation> {
    let deadline = Instant::now() + h.timing().timeout;
    loop {
        let held = h.held().await;
        if held.is_within(baseline) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Violation::of(
                law,
                format!("to hold no more than before ({baseline:?}), after {after}"),
                format!("{held:?}"),
            ));
        }
        tokio::time::sleep(h.timing().quiet / 4).await;
    }
}

/// **R15 drop closes.** Dropping the streams and the backend returns connections, tasks and file descriptors to the baseline,
/// in any state: live, backing off, or in the middle of a listing. `close` does the same, and returns when it is done.
pub async fn r15_drop_closes(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let id = running(h, "a").await?;
    // Threads and a resolver, made once and kept for good, are no leak.
    drop(Subscriber::live(h, &backend(h).await?).await?);
    tokio::time::sleep(timing.quiet).await;
    let baseline = h.held().await;

    for _ in 0..3 {
        let backend = backend(h).await?;
        let mut streams = Vec::new();
        for _ in 0..5 {
            streams.push(Subscriber::live(h, &backend).await?);
        }
        h.stop(&id).await?;
        h.start(&id).await?;
        for stream in &mut streams {
            stream.read_for(timing.quiet / 4).await?;
        }
        // Connections that calls share may stay with the backend; the stream's own may not.
        let live = h.held().await;
        let without_stream = live.connections.map(|connections| connections.saturating_sub(1));
        drop(streams);
        given_back(h, Law::R15, &Held::new(without_stream, None, None), "the last stream was dropped").await?;
        drop(backend);
        given_back(h, Law::R15, &baseline, "streams and backend were dropped").await?;
    }

    for fault in [Fault::Refuse, Fault::Stall, Fault::SlowList(timing.timeout)] {
        if !try_fault!(h, fault, without) {
            continue;
        }
        let backend = backend(h).await?;
        let mut stream = Subscriber::open(&backend, WatchOptions::default()).await?;
        stream.read_for(timing.quiet).await?;
        drop((stream, backend));
        h.heal().await?;
        given_back(h, Law::R15, &baseline, &format!("dropping under {fault:?}")).await?;
    }

    let backend = backend(h).await?;
    let mut stream = Subscriber::live(h, &backend).await?;
    backend.close().await.map_err(|error| Violation::of(Law::R15, "`close` to succeed", error.to_string()))?;
    stream.read_for(timing.quiet).await?;
    let ended = stream.ended.as_ref().map(runtide_core::Error::kind);
    ensure!(
        ended == Some(ErrorKind::Cancelled),
        R15,
        "a stream to end with `cancelled` after `close`",
        format!("{ended:?}")
    );
    let after = backend.list_instances(ListOptions::default()).await.err().map(|error| error.kind());
    ensure!(after == Some(ErrorKind::Cancelled), R15, "a call after `close` to be `cancelled`", format!("{after:?}"));
    let watch = backend.watch(WatchOptions::default()).await.err().map(|error| error.kind());
    ensure!(watch == Some(ErrorKind::Cancelled), R15, "a watch after `close` to be `cancelled`", format!("{watch:?}"));
    given_back(h, Law::R15, &baseline, "`close`").await?;
    drop(stream);
    Verdict::kept_without(without)
}
