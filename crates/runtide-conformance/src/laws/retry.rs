//! Retries, indefinitely and not too often: R11, R17.

use std::time::Duration;

use runtide_core::{ErrorKind, ListOptions, RuntimeEventKind as Kind, WatchOptions};
use tokio::time::Instant;

use super::{backend, need_fault, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, ensure};

/// Calm number of dials in two periods of the longest backoff (a minute, unscaled).
const CALM: u64 = 10;

/// **R11 calm retry.** Under refusal, denial and instant clean end of stream: at most 10 dials a minute once backed off, and
/// still trying after a day. Only a stream that stayed healthy resets the backoff. Flapping is one degraded state, not a pair
/// of events per second.
///
/// On a virtual clock the day is a day. On a real one it is scaled: backends are made with a short `max_backoff` and
/// `healthy_after`, a minute is two periods of that backoff, and the day is sixteen.
pub async fn r11_calm_retry(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let minute = timing.max_backoff.saturating_mul(2);
    let day = if timing.is_virtual { Duration::from_secs(86_400) } else { timing.max_backoff.saturating_mul(16) };
    let some = if timing.is_virtual { 5 } else { 2 };
    let witness = running(h, "witness").await?;
    for fault in [Fault::Refuse, Fault::Deny, Fault::CleanEof] {
        let backend = backend(h).await?;
        let mut subscriber = Subscriber::live(h, &backend).await?;
        subscriber.read_for(timing.healthy_after.saturating_mul(2)).await?;
        let from = subscriber.events.len();
        if !try_fault!(h, fault, without) {
            continue;
        }
        wait_calmly(h, &mut subscriber, minute.saturating_mul(some), None, &fault).await?;
        wait_calmly(h, &mut subscriber, day, Some(minute), &fault).await?;
        let before = h.dials();
        subscriber.read_for(minute.saturating_mul(some)).await?;
        ensure!(h.dials() > before, R11, format!("to be still trying under {fault:?} after {day:?}"), "no dial");
        one_outage(&subscriber, from, &fault)?;
        h.heal().await?;
        h.stop(&witness).await?;
        h.start(&witness).await?;
        subscriber.converge(h, Law::R11).await?;
    }

    // A link that comes up and breaks again before it was healthy.
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    subscriber.read_for(timing.healthy_after.saturating_mul(2)).await?;
    let from = subscriber.events.len();
    let up = timing.healthy_after / 20;
    let flap = |minutes: u32| (minute.as_nanos() / up.as_nanos().max(1)).saturating_mul(minutes.into());
    for round in 0..flap(2 * some) {
        if !try_fault!(h, Fault::Sever, without) {
            break;
        }
        if round == flap(some) {
            let before = h.dials();
            for _ in 0..flap(1) {
                subscriber.read_for(up).await?;
                let _ = h.fault(&Fault::Sever).await;
            }
            let dials = h.dials().saturating_sub(before);
            ensure!(dials <= CALM, R11, format!("at most {CALM} dials in {minute:?} of flapping"), format!("{dials}"));
        }
        subscriber.read_for(up).await?;
    }
    one_outage(&subscriber, from, &Fault::Sever)?;
    h.heal().await?;
    subscriber.converge(h, Law::R11).await?;
    Verdict::kept_without(without)
}

/// Waits, and counts the dials of each `minute`, if it is given.
async fn wait_calmly(
    h: &dyn Harness,
    subscriber: &mut Subscriber,
    time: Duration,
    minute: Option<Duration>,
    fault: &Fault,
) -> Result<(), Violation> {
    // Before it has backed off, a hundred dials a minute are eager, and more are a loop.
    let (window, most) = minute.map_or((time, 100), |minute| (minute, CALM));
    let end = Instant::now() + time;
    while Instant::now() < end {
        let before = h.dials();
        // In small steps: a loop that does not pause is to be caught before the window is over.
        for _ in 0..20 {
            subscriber.read_for(window / 20).await?;
            let dials = h.dials().saturating_sub(before);
            ensure!(
                dials <= most,
                R11,
                format!("at most {most} dials in {window:?} under {fault:?}"),
                format!("{dials} or more")
            );
        }
    }
    Ok(())
}

/// Flapping shows only after a few outages; from then on it is one outage.
const A_FEW: usize = 5;

/// Checks that there were no more outages than it takes to recognize flapping.
fn one_outage(subscriber: &Subscriber, from: usize, fault: &Fault) -> Result<(), Violation> {
    let down = subscriber.counts(from).get("backend_disconnected").copied().unwrap_or_default();
    if down <= A_FEW {
        return Ok(());
    }
    Err(subscriber.violation(
        Law::R11,
        &format!("one degraded state under {fault:?}"),
        &format!("{down} outages announced"),
    ))
}

/// **R17 connect.** `connect` is optional and idempotent; a daemon that is late at boot is picked up when it comes, by a watch
/// that was opened before.
pub async fn r17_connect(h: &dyn Harness) -> LawResult {
    let timing = h.timing();
    let id = running(h, "there").await?;
    let unconnected = backend(h).await?;
    let listed = unconnected.list_instances(ListOptions::default()).await;
    let listed = listed.map_err(|error| Violation::of(Law::R17, "a listing without `connect`", error.to_string()))?;
    ensure!(
        listed.instances.iter().any(|row| row.id == id),
        R17,
        "a listing without `connect`",
        "one that lacks an instance"
    );

    let connected = backend(h).await?;
    let mut infos = Vec::new();
    for _ in 0..2 {
        infos.push(
            connected
                .connect()
                .await
                .map_err(|error| Violation::of(Law::R17, "`connect` to succeed", error.to_string()))?,
        );
    }
    ensure!(infos.first() == infos.last(), R17, "`connect` to say the same twice", format!("{infos:?}"));
    ensure!(
        infos.iter().all(|info| info.backend == *connected.id()),
        R17,
        "the backend's own id",
        format!("{infos:?}")
    );

    need_fault!(h, Fault::Refuse);
    let early = backend(h).await?;
    let refused = early.connect().await;
    let kind = refused.as_ref().err().map(runtide_core::Error::kind);
    ensure!(
        kind == Some(ErrorKind::Unavailable),
        R17,
        "`connect` to say `unavailable` of a runtime that is down",
        format!("{refused:?}")
    );
    let mut subscriber = Subscriber::open(&early, WatchOptions::default()).await?;
    subscriber.read_for(timing.max_backoff.saturating_mul(4)).await?;
    let first = subscriber.events.first().map(|event| event.kind.clone());
    ensure!(
        matches!(first, Some(Kind::BackendDisconnected { cause: Some(_) })),
        R17,
        "an outage with its cause as the first item",
        format!("{first:?}")
    );
    h.heal().await?;
    subscriber.until_live(h).await?;
    subscriber.converge(h, Law::R17).await?;
    early
        .connect()
        .await
        .map_err(|error| Violation::of(Law::R17, "`connect` once the runtime is there", error.to_string()))?;
    Verdict::kept()
}
