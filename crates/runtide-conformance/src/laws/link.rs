//! A dead link without an error: R10.

use super::{need_fault, running};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict};

/// **R10 dead link.** A half-open connection is found within `max_silence` plus a margin, also when the daemon answers on
/// other connections. The margin is a second `max_silence`, for the new connection, and the harness's quiet time.
pub async fn r10_dead_link(h: &dyn Harness) -> LawResult {
    let timing = h.timing();
    let mut tuning = timing.tuning();
    tuning.max_silence = Some(timing.max_silence);
    let backend = h.backend(&tuning).await?;
    let witness = running(h, "witness").await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    subscriber.converge(h, Law::R10).await?;
    for round in 0..2 {
        need_fault!(h, Fault::HalfOpen);
        h.stop(&witness).await?;
        let id = running(h, &format!("unheard-{round}")).await?;
        let limit = timing.max_silence.saturating_mul(4).saturating_add(timing.quiet);
        subscriber
            .until_within(limit, Law::R10, "the changes that a dead link did not report", |one| {
                one.get(&id).is_some() && one.get(&witness).is_some_and(|witness| !witness.state.is_alive())
            })
            .await?;
        h.heal().await?;
        h.start(&witness).await?;
        subscriber.converge(h, Law::R10).await?;
    }
    Verdict::kept()
}
