//! Resumption after a restart: R7.

use runtide_core::{Cursor, InstanceId, InstanceTable, RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};

use super::{accounts_for, backend, edges::reported_in_order, passing, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, ensure};

/// The cursor and the table of a journal, through the form in which they are stored.
pub(super) fn stored(
    subscriber: &Subscriber,
    backend: &dyn RuntimeBackend,
) -> Result<(Cursor, InstanceTable), Violation> {
    let table = &subscriber.table;
    let Some((position, _)) = table.position(backend.id()) else {
        return Err(subscriber.violation(Law::R7, "a position to resume from", "none"));
    };
    let reread = || {
        let position = serde_json::from_str(&serde_json::to_string(position)?)?;
        let table = serde_json::from_str(&serde_json::to_string(table)?)?;
        Ok::<_, serde_json::Error>((position, table))
    };
    reread().map_err(|error| Violation::of(Law::R7, "a cursor and a table that can be stored", error.to_string()))
}

/// No edge of the gap comes after the event that says that all of them did; the `from`th event is the first after the gap began.
fn caught_up_last(subscriber: &Subscriber, ids: &[&InstanceId], from: usize) -> Result<(), Violation> {
    let end = subscriber.events.iter().skip(from).position(|event| event.kind == Kind::CaughtUp);
    let Some(end) = end.map(|at| from + at) else { return Ok(()) }; // a resync came in its place
    match ids.iter().find(|id| subscriber.edges_of(id, end).next().is_some()) {
        None => Ok(()),
        Some(id) => {
            let late: Vec<_> = subscriber.edges_of(id, end).collect();
            Err(subscriber.violation(
                Law::R7,
                "`CaughtUp` after every missed edge",
                &format!("{late:?} of {id} after it"),
            ))
        }
    }
}

/// **R7 resumable.** A watch from a stored cursor, after the runtime or we restarted, loses nothing. Short gaps replay real
/// edges where the runtime keeps history, and `CaughtUp` comes after the last of them.
pub async fn r7_resumable(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let (a, b) = (running(h, "a").await?, running(h, "b").await?);
    let backend_value = backend(h).await?;
    let mut kept = Subscriber::live(h, &backend_value).await?;
    kept.converge(h, Law::R7).await?;

    // In the same run of the process the ring simply goes on.
    let mut first = Subscriber::live(h, &backend_value).await?;
    h.stop(&a).await?;
    first.converge(h, Law::R7).await?;
    let (position, known) = stored(&first, &*backend_value)?;
    drop(first);
    let before = h.facts().await?.len();
    h.start(&a).await?;
    h.stop(&b).await?;
    kept.read_for(timing.quiet).await?;
    let options = WatchOptions::default().with_from(position).with_known(known);
    let mut second = Subscriber::open(&backend_value, options).await?;
    second.converge(h, Law::R7).await?;
    ensure!(second.gaps(0).next().is_none(), R7, "a resume within the ring, without a resync", "a resync");
    let facts = h.facts().await?;
    for id in [&a, &b] {
        reported_in_order(h, Law::R7, &second, id, 0, facts.get(before..).unwrap_or_default())?;
    }

    // A short gap of the link.
    if try_fault!(h, Fault::Refuse, without) {
        kept.read_for(timing.quiet).await?;
        let (from, before) = (kept.events.len(), h.facts().await?.len());
        h.start(&b).await?;
        h.stop(&a).await?;
        h.start(&a).await?;
        kept.read_for(timing.quiet).await?;
        h.heal().await?;
        kept.converge(h, Law::R7).await?;
        if h.dialect().history {
            let facts = h.facts().await?;
            for id in [&a, &b] {
                reported_in_order(h, Law::R7, &kept, id, from, facts.get(before..).unwrap_or_default())?;
            }
            caught_up_last(&kept, &[&a, &b], from)?;
        }
    }

    // Our process was restarted: once it resumes as a journal does, once with nothing but a cursor.
    let mut backend_value = backend_value;
    for with_known in [true, false] {
        let (position, known) = stored(&kept, &*backend_value)?;
        drop((kept, second, backend_value));
        let before = h.facts().await?.len();
        h.stop(&b).await?;
        h.start(&b).await?;
        h.stop(&a).await?;
        let passing = running(h, &format!("passing-{with_known}")).await?;
        h.remove(&passing).await?;
        let stayed = running(h, &format!("stayed-{with_known}")).await?;
        backend_value = backend(h).await?;
        let options = WatchOptions::default().with_from(position).with_known(with_known.then_some(known));
        kept = Subscriber::open(&backend_value, options).await?;
        kept.converge(h, Law::R7).await?;
        if h.dialect().history {
            let facts = h.facts().await?;
            for id in [&a, &b, &passing, &stayed] {
                reported_in_order(h, Law::R7, &kept, id, 0, facts.get(before..).unwrap_or_default())?;
            }
            caught_up_last(&kept, &[&a, &b, &passing, &stayed], 0)?;
        }
        h.start(&a).await?;
        kept.converge(h, Law::R7).await?;
        second = Subscriber::live(h, &backend_value).await?;
    }
    drop(second);

    // The runtime was restarted.
    for fault in [Fault::RestartDaemon, Fault::KillDaemon] {
        h.stop(&b).await?;
        kept.converge(h, Law::R7).await?;
        let from = kept.events.len();
        // It may be reported before the runtime goes down, or lost with it.
        let passed = passing(h, &format!("passing-{fault:?}")).await?;
        if try_fault!(h, fault, without) {
            h.heal().await?;
            accounts_for(h, Law::R7, &mut kept, &passed, from).await?;
            h.start(&b).await?;
            kept.converge(h, Law::R7).await?;
        }
    }
    Verdict::kept_without(without)
}
