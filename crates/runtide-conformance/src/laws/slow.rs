//! A subscriber that does not keep up: R12.

use std::{num::NonZeroUsize, time::Duration};

use runtide_core::{ErrorKind, Gap, InstanceId, RuntimeEventKind as Kind, SlowConsumer, WatchOptions};

use super::running;
use crate::{Change, Done, Harness, Law, LawResult, Obstacle, Subscriber, Verdict, ensure};

const RING: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
const CHANGES: usize = 200;

/// Makes `CHANGES` changes, slowly enough that each is an event.
async fn churn(h: &dyn Harness, id: &InstanceId) -> Done<()> {
    for n in 0..CHANGES {
        let change = if n % 2 == 0 { Change::Pause } else { Change::Unpause };
        let changed = if h.dialect().pauses {
            h.change(id, &change).await
        } else {
            Err(Obstacle::unsupported("a pause may be over before an inspection"))
        };
        match changed {
            Err(Obstacle::Unsupported(_)) if n % 2 == 0 => h.stop(id).await?,
            Err(Obstacle::Unsupported(_)) => h.start(id).await?,
            other => other?,
        }
        // Hints of one instance are resolved together; a pause keeps the changes apart.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// **R12 slow consumer.** A stalled subscriber never delays another, never loses silently, never grows without bound: once
/// its position has left the ring it gets a resync with the number of events it missed, or, if it asked for that, `Expired`.
pub async fn r12_slow_consumer(h: &dyn Harness) -> LawResult {
    let mut tuning = h.timing().tuning();
    tuning.driver = tuning.driver.with_ring(RING);
    let backend = h.backend(&tuning).await?;
    let id = running(h, "busy").await?;
    let mut fast = Subscriber::live(h, &backend).await?;
    let mut stalled = Subscriber::live(h, &backend).await?;
    let mut closing =
        Subscriber::open(&backend, WatchOptions::default().with_slow_consumer(SlowConsumer::Close)).await?;
    closing.until_live(h).await?;
    let mut never_read = Subscriber::open(&backend, WatchOptions::default()).await?;
    fast.converge(h, Law::R12).await?;

    let (from, from_stalled) = (fast.events.len(), stalled.events.len());
    fast.during(churn(h, &id)).await??;
    fast.converge(h, Law::R12).await?;
    ensure!(
        fast.gaps(from).next().is_none(),
        R12,
        "no gap for a subscriber that keeps up",
        format!("{:?}", fast.gaps(from).collect::<Vec<_>>())
    );
    let reported = fast.events_of(&id, from).count();
    ensure!(
        reported >= CHANGES,
        R12,
        format!("{CHANGES} events for a subscriber that keeps up, while another stalls"),
        format!("{reported}")
    );

    stalled.converge(h, Law::R12).await?;
    let lagged = stalled
        .events
        .iter()
        .skip(from_stalled)
        .position(|event| matches!(event.kind, Kind::ResyncBegin { gap: Gap::Lagged { dropped } } if dropped > 0));
    match lagged {
        None => {
            let expected = format!("a resync with `Lagged` after {reported} events and a ring of {RING}");
            return Err(stalled.violation(Law::R12, &expected, &format!("{:?}", stalled.counts(from_stalled))));
        }
        Some(before) => {
            ensure!(
                before <= RING.get() * 2,
                R12,
                format!("no more than {RING} events kept for a subscriber that stalls"),
                format!("{before}")
            );
        }
    }
    never_read.until_live(h).await?;
    never_read.converge(h, Law::R12).await?;

    while !closing.is_finished() {
        let known = closing.events.len();
        closing.read_for(h.timing().quiet).await?;
        if closing.events.len() == known {
            break;
        }
    }
    let ended = closing.ended.as_ref().map(runtide_core::Error::kind);
    ensure!(
        ended == Some(ErrorKind::Expired),
        R12,
        "a stream that ends with `expired` for a subscriber that asked for that",
        format!("{ended:?}")
    );
    Verdict::kept()
}
