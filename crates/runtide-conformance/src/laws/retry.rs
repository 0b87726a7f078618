//! Retries, indefinitely, soon and not too often: R11, R17, R23.

use std::time::Duration;

use runtide_core::{ErrorKind, ListOptions, Retry, RuntimeEventKind as Kind, WatchOptions};
use tokio::time::Instant;

use super::{backend, need_fault, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Supported, Tuning, Verdict, Violation, ensure};

/// Calm number of dials in two periods of the longest backoff (a minute, unscaled).
const CALM: u64 = 10;

/// Most dials a second while nothing listens. No daemon has any work by them.
const POLLS: u64 = 30;

/// **R11 calm retry.** Under refusal, denial and instant clean end of stream: of the dials that reach a daemon at most 10 a minute
/// once backed off, and still trying after a day. Only a link that stayed healthy is forgiven its falls. Flapping is one degraded
/// state, not a pair of events per second.
///
/// A dial that reaches no daemon, of which the backend's error says `Retry::Poll`, is repeated at most 30 times a second.
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
        let asked = backend.connect().await;
        if fault == Fault::Refuse && matches!(asked.map_err(|error| error.retry()), Err(Retry::Poll(_))) {
            // A quarter of an hour has as many dials as many days of the others.
            let most = POLLS.saturating_mul(minute.as_secs().max(1));
            wait_calmly(h, &mut subscriber, day.min(Duration::from_secs(900)), (minute, most), &fault).await?;
        } else {
            // Before it has backed off, a hundred dials a minute are eager, and more are a loop.
            let eager = minute.saturating_mul(some);
            wait_calmly(h, &mut subscriber, eager, (eager, 100), &fault).await?;
            wait_calmly(h, &mut subscriber, day, (minute, CALM), &fault).await?;
        }
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
            let (before, began) = (h.dials(), Instant::now());
            for _ in 0..flap(1) {
                subscriber.read_for(up).await?;
                let _ = h.fault(&Fault::Sever).await;
            }
            let (dials, took) = (h.dials().saturating_sub(before), began.elapsed());
            ensure!(
                dials <= allowance(CALM, minute, took),
                R11,
                format!("at most {CALM} dials in {minute:?} of flapping"),
                format!("{dials} in {took:?}")
            );
        }
        subscriber.read_for(up).await?;
    }
    one_outage(&subscriber, from, &Fault::Sever)?;
    h.heal().await?;
    subscriber.converge(h, Law::R11).await?;
    Verdict::kept_without(without)
}

/// Waits, and counts the dials of each window.
async fn wait_calmly(
    h: &dyn Harness,
    subscriber: &mut Subscriber,
    time: Duration,
    (window, most): (Duration, u64),
    fault: &Fault,
) -> Result<(), Violation> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (before, began) = (h.dials(), Instant::now());
        // In small steps: a loop that does not pause is to be caught before the window is over.
        for _ in 0..20 {
            subscriber.read_for(window / 20).await?;
            let (dials, took) = (h.dials().saturating_sub(before), began.elapsed());
            ensure!(
                dials <= allowance(most, window, took),
                R11,
                format!("at most {most} dials in {window:?} under {fault:?}"),
                format!("{dials} in {took:?}")
            );
        }
    }
    Ok(())
}

/// The dials that are calm in the time that a window took: on a loaded machine it takes longer than it should.
fn allowance(most: u64, window: Duration, took: Duration) -> u64 {
    let dials = u128::from(most).saturating_mul(took.as_nanos()) / window.as_nanos().max(1);
    dials.try_into().unwrap_or(u64::MAX).max(most)
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

/// **R23 prompt return.** A watch is back within 0.3 s of the runtime's own return, after any number of outages in which nothing
/// listened.
///
/// On a real clock it has 2 s, for a loaded machine, and the time of the runtime's replay; a watch that backs off while nothing listens needs longer. The backend has the
/// driver's own options, since a shorter longest pause would hide that it grew. A backend that reports no edges may poll, and not
/// notice the outage: then the law does not apply.
pub async fn r23_prompt_return(h: &dyn Harness) -> LawResult {
    let is_virtual = h.timing().is_virtual;
    let (rounds, apart, limit) = if is_virtual { (6, 12_000, 300) } else { (2, 500, 2_000) };
    let limit = Duration::from_millis(limit) + h.timing().replay;
    let backend = h.backend(&Tuning::default()).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    for _ in 0..rounds {
        subscriber.read_for(Duration::from_millis(apart)).await?;
        let from = subscriber.events.len();
        if let Supported::No(reason) = subscriber.during(h.fault(&Fault::KillDaemon)).await? {
            return Verdict::not_applicable(reason);
        }
        if !h.dialect().edges && !subscriber.counts(from).contains_key("backend_disconnected") {
            return Verdict::not_applicable("the watch reported no outage while the runtime was away");
        }
        let is_back = |one: &Subscriber| one.checker.is_live() && one.counts(from).contains_key("backend_reconnected");
        subscriber.until_within(limit, Law::R23, "the watch to be back", is_back).await?;
    }
    subscriber.converge(h, Law::R23).await?;
    Verdict::kept()
}
