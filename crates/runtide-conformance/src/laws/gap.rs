//! Changes during a gap, and the report of the gap: R8, R9.

use std::time::Duration;

use runtide_core::{Cursor, Evidence, Gap, InstanceId, RuntimeBackendExt, Transition, TransitionStream, WatchOptions};
use tokio::time::Instant;

use super::{accounts_for, backend, passing, resume::stored, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, ensure};

/// **R8 honest gap.** History that was lost gives a resync with its reason, never silence: after an outage that the runtime's
/// history does not span, and at a cursor that is too old or foreign. This holds also where no later listing would show a
/// difference, since the instances came and went in the gap; there a short gap may give their edges instead. A backend that
/// reports no edges may poll, and owes a resync only for the outages that it reports.
pub async fn r8_honest_gap(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let (a, b) = (running(h, "a").await?, running(h, "b").await?);
    let mut tuning = timing.tuning();
    tuning.max_silence = Some(timing.max_silence);
    let backend_value = h.backend(&tuning).await?;
    let mut kept = Subscriber::live(h, &backend_value).await?;
    kept.converge(h, Law::R8).await?;

    for fault in [Fault::Sever, Fault::Refuse, Fault::CleanEof, Fault::Deny, Fault::Stall, Fault::HalfOpen] {
        let from = kept.events.len();
        if try_fault!(h, fault, without) {
            let passed = passing(h, &format!("in-{fault:?}")).await?;
            if matches!(fault, Fault::Refuse | Fault::Deny | Fault::Stall) {
                kept.read_for(timing.quiet).await?;
            }
            h.heal().await?;
            if !h.dialect().edges {
                // Long enough to find a link that is half open.
                kept.read_for(timing.max_silence.saturating_mul(2)).await?;
            }
            if is_noticed(h, &kept, from) {
                accounts_for(h, Law::R8, &mut kept, &passed, from).await?;
            }
            kept.converge(h, Law::R8).await?;
            // A link that breaks often is held back, which is another law's subject.
            kept.read_for(timing.healthy_after.saturating_mul(2)).await?;
        }
    }

    let (position, known) = stored(&kept, &*backend_value)?;
    let expires = || if h.dialect().history { Fault::ExpireHistory } else { Fault::Refuse };
    let lost = |one: &Subscriber| one.gaps(0).any(|gap| gap != Gap::Initial);
    let before = kept.events.len();
    if try_fault!(h, expires(), without) {
        kept.read_for(timing.quiet).await?;
        let from = kept.events.len();
        passing(h, "unseen").await?;
        h.heal().await?;
        let resynced = |one: &Subscriber| one.gaps(from).any(|gap| gap != Gap::Initial);
        if is_noticed(h, &kept, before) {
            let what = "a resync with its reason, after history was lost that left no trace";
            kept.until(h, Law::R8, what, resynced).await?;
        }
        kept.converge(h, Law::R8).await?;
        drop((kept, backend_value));

        // Another process, with all that a journal holds, and that is still true.
        let backend_value = backend(h).await?;
        let options = WatchOptions::default().with_from(position).with_known(known);
        let mut resumed = Subscriber::open(&backend_value, options).await?;
        resumed.until(h, Law::R8, "a resync with its reason, at a cursor that history does not reach", lost).await?;
        resumed.converge(h, Law::R8).await?;
    } else {
        drop((kept, backend_value));
    }

    let backend_value = backend(h).await?;
    let mut kept = Subscriber::live(h, &backend_value).await?;
    kept.converge(h, Law::R8).await?;
    let stored = kept.table.position(backend_value.id()).map(|(position, _)| position.clone());
    let before = kept.events.len();
    if try_fault!(h, expires(), without) {
        kept.read_for(timing.quiet).await?;
        let from = kept.events.len();
        h.stop(&a).await?;
        h.remove(&b).await?;
        h.heal().await?;
        kept.converge(h, Law::R8).await?;
        let gaps: Vec<Gap> = kept.gaps(from).collect();
        if gaps.is_empty() && is_noticed(h, &kept, before) {
            return Err(kept.violation(Law::R8, "a resync after history was lost", "none"));
        }
        ensure!(!gaps.contains(&Gap::Initial), R8, "the resync to say that something was lost", format!("{gaps:?}"));
        drop(kept);
        drop(backend_value);

        // Another process, with the cursor from before.
        if let Some(stored) = stored {
            let backend_value = backend(h).await?;
            let mut resumed = Subscriber::open(&backend_value, WatchOptions::default().with_from(stored)).await?;
            resumed.converge(h, Law::R8).await?;
            let gaps: Vec<Gap> = resumed.gaps(0).collect();
            let honest = gaps.first().is_some_and(|gap| *gap != Gap::Initial);
            if !honest {
                let expected = "a resync with its reason, at a cursor that history does not reach";
                return Err(resumed.violation(Law::R8, expected, &format!("{gaps:?}")));
            }
        }
    }

    let backend_value = backend(h).await?;
    let foreign = Cursor::new("of-another-backend".into(), 12_345, None);
    let mut stranger = Subscriber::open(&backend_value, WatchOptions::default().with_from(foreign)).await?;
    stranger.converge(h, Law::R8).await?;
    let gap = stranger.gaps(0).next();
    ensure!(gap == Some(Gap::ForeignCursor), R8, "a resync for a foreign cursor", format!("{gap:?}"));
    without.dedup();
    Verdict::kept_without(without)
}

/// Returns true if the backend has to account for a fault: always if it reports edges, else if it reported an outage since the
/// `from`th event.
fn is_noticed(h: &dyn Harness, subscriber: &Subscriber, from: usize) -> bool {
    h.dialect().edges || subscriber.counts(from).contains_key("backend_disconnected")
}

/// **R9 absent means removed.** An instance that vanished during a gap gives one removal, from `InstanceTable` and from
/// `transitions()`: net where a comparison shows it, reported where the runtime's history reported it.
pub async fn r9_absent_means_removed(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    for fault in [Fault::Refuse, Fault::ExpireHistory] {
        let (stays, goes) =
            (running(h, &format!("stays-{fault:?}")).await?, running(h, &format!("goes-{fault:?}")).await?);
        subscriber.converge(h, Law::R9).await?;
        let stream = backend.transitions(WatchOptions::default()).await;
        let mut stream = stream.map_err(|error| Violation::of(Law::R9, "`transitions()`", error.to_string()))?;
        read_transitions(&mut stream, timing.quiet).await?;
        let from = subscriber.transitions.len();
        if !try_fault!(h, fault, without) {
            continue;
        }
        subscriber.read_for(timing.quiet).await?;
        h.remove(&goes).await?;
        h.heal().await?;
        subscriber.converge(h, Law::R9).await?;
        let folded = subscriber.transitions.get(from..).unwrap_or_default();
        let streamed = read_transitions(&mut stream, timing.quiet.saturating_mul(5).max(timing.max_backoff)).await?;
        for (view, steps) in [("`InstanceTable`", folded), ("`transitions()`", &streamed)] {
            let removals: Vec<&Transition> = steps.iter().filter(|step| is_removal(step, &goes)).collect();
            ensure!(
                removals.len() == 1,
                R9,
                format!("one removal of {goes} from {view}"),
                format!("{} of them", removals.len())
            );
            let reported = removals.iter().any(|step| step.evidence == Evidence::Reported);
            ensure!(
                h.dialect().history || !reported,
                R9,
                format!("{view} to mark as net a removal that a comparison shows"),
                "a removal marked as reported"
            );
            ensure!(
                !steps.iter().any(|step| is_removal(step, &stays)),
                R9,
                "the instance that was not removed to stay",
                format!("{view} removed {stays}")
            );
        }
    }
    Verdict::kept_without(without)
}

fn is_removal(step: &Transition, id: &InstanceId) -> bool {
    step.after.is_none() && step.before.as_ref().is_some_and(|before| before.id == *id)
}

async fn read_transitions(stream: &mut TransitionStream, time: Duration) -> Result<Vec<Transition>, Violation> {
    let deadline = Instant::now() + time;
    let mut read = Vec::new();
    while let Ok(next) = tokio::time::timeout_at(deadline, stream.next()).await {
        match next {
            Some(Ok(change)) => read.extend(change.into_step()),
            Some(Err(error)) => return Err(Violation::of(Law::R9, "`transitions()` to go on", error.to_string())),
            None => return Err(Violation::of(Law::R9, "`transitions()` to go on", "its end")),
        }
    }
    Ok(read)
}
