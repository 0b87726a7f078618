//! The runtime begins again: R24.

use std::collections::BTreeSet;

use runtide_core::{Gap, Incarnation, InstanceId, WatchOptions, event::ResumeToken};

use super::{accounts_for, backend, passing, resume::stored, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, ensure};

/// The names that a runtime gave.
#[derive(Default)]
struct Given {
    tokens: BTreeSet<ResumeToken>,
    keys: BTreeSet<[u8; 32]>,
    runs: BTreeSet<(InstanceId, Incarnation)>,
}

impl Given {
    /// The names in a subscriber's events about one instance.
    fn to(subscriber: &Subscriber, id: &InstanceId, from: usize) -> Self {
        let mut given = Self::default();
        for event in subscriber.events_of(id, from) {
            given.tokens.extend(event.token.clone());
            given.keys.extend(event.key());
            let run = event.instance().and_then(|instance| Some((instance.id.clone(), instance.incarnation.clone()?)));
            given.runs.extend(run);
        }
        given
    }

    /// Adds the names of a later boot, none of which may be known.
    fn extend(&mut self, later: Self, fault: &Fault) -> Result<(), Violation> {
        let tokens: Vec<_> = later.tokens.intersection(&self.tokens).collect();
        let runs: Vec<_> = later.runs.intersection(&self.runs).collect();
        ensure!(tokens.is_empty(), R24, format!("other tokens after {fault:?}"), format!("{tokens:?} again"));
        ensure!(later.keys.is_disjoint(&self.keys), R24, format!("other keys after {fault:?}"), "a key again");
        ensure!(runs.is_empty(), R24, format!("other incarnations after {fault:?}"), format!("{runs:?} again"));
        self.tokens.extend(later.tokens);
        self.keys.extend(later.keys);
        self.runs.extend(later.runs);
        Ok(())
    }
}

/// **R24 another boot.** No token, key or incarnation of one boot comes again in another. An old token that is offered to a
/// runtime which lost everything is answered with a resync: while that runtime has counted less than the token says, as much,
/// and more; and the facts that follow are reported, though they are the same changes as before.
pub async fn r24_another_boot(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let mut backend_value = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend_value).await?;
    let passed = passing(h, "passing").await?;
    subscriber.converge(h, Law::R24).await?;
    let mut given = Given::to(&subscriber, &passed, 0);

    let lost = [0, 1, 2].map(|rounds| (Fault::LoseEverything, rounds));
    for (fault, rounds) in lost.into_iter().chain([(Fault::RestartDaemon, 0), (Fault::KillDaemon, 0)]) {
        // The process ends with what a journal holds.
        let (position, known) = stored(&subscriber, &*backend_value)?;
        let checker = subscriber.checker.clone().resumed_after_last(&position);
        drop((subscriber, backend_value));
        let happened = try_fault!(h, fault, without);
        h.heal().await?;
        for _ in 0..rounds {
            // A runtime that counts is then at the same number as before.
            passing(h, "passing").await?;
        }
        backend_value = backend(h).await?;
        let options = WatchOptions::default().with_from(position).with_known(known);
        subscriber = Subscriber::open_with(&backend_value, options, checker).await?;
        subscriber.until_live(h).await?;
        subscriber.converge(h, Law::R24).await?;
        if happened && fault == Fault::LoseEverything {
            let gap = subscriber.gaps(0).next();
            if gap.is_none_or(|gap| gap == Gap::Initial) {
                let expected =
                    format!("a resync with its reason, from a runtime that has begun again {rounds} changes ago");
                return Err(subscriber.violation(Law::R24, &expected, &format!("{gap:?}")));
            }
        }

        let from = subscriber.events.len();
        let passed = passing(h, "passing").await?;
        if h.dialect().edges {
            accounts_for(h, Law::R24, &mut subscriber, &passed, from).await?;
        }
        subscriber.converge(h, Law::R24).await?;
        given.extend(Given::to(&subscriber, &passed, from), &fault)?;
    }
    without.dedup();
    Verdict::kept_without(without)
}
