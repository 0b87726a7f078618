//! Seeded random histories on paused time: instances come and go, the runtime and the link fail in every way that the
//! memory runtime knows, subscribers are slow, come late, leave, and resume from their last position. After each history the
//! runtime is healed, and then for every subscriber: fold(stream) equals the runtime's state, no law of streams was broken,
//! and no reported edge outside the gaps is missing.
//!
//! `RUNTIDE_SIM_SEEDS=100000` runs that many seeds (10,000 by default), `RUNTIDE_SIM_SEED=42` replays one with its trace.

mod subscriber;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// One history, from the seed to the verdict.
fn simulate(seed: u64, trace: bool) -> Result<world::Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world::history(seed, trace))
}

#[test]
fn every_history_folds_to_the_truth() {
    if let Some(seed) = number("RUNTIDE_SIM_SEED") {
        let tally = simulate(seed, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("seed {seed} holds: {tally:?}");
        return;
    }
    let seeds = number("RUNTIDE_SIM_SEEDS").unwrap_or(10_000);
    let next = AtomicU64::new(0);
    let started = Instant::now();
    let work = || {
        let (mut tally, mut broken) = (world::Tally::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || broken.len() >= 3 {
                return (tally, broken);
            }
            match catch_unwind(AssertUnwindSafe(|| simulate(seed, false))) {
                Ok(Ok(one)) => tally.add(&one),
                Ok(Err(why)) => broken.push((seed, why)),
                Err(_) => broken.push((seed, "it panicked, see above".to_owned())),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let mut tally = world::Tally::default();
    let mut broken = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (one, bad) = worker.join().unwrap();
            tally.add(&one);
            broken.extend(bad);
        }
    });
    println!("{seeds} seeds in {:.1?}: {tally:?}", started.elapsed());
    for (seed, why) in &broken {
        eprintln!(
            "seed {seed}: {why}\n  replay: RUNTIDE_SIM_SEED={seed} cargo test -p runtide-memory --test simulation -- --nocapture"
        );
    }
    assert!(broken.is_empty(), "{} seeds are broken", broken.len());
    // A simulation without events proves nothing.
    if seeds >= 1_000 {
        assert!(tally.resyncs > seeds && tally.resumed > seeds / 100 && tally.edges > seeds * 5, "{tally:?}");
        assert!(tally.lagged > seeds / 100 && tally.outages > seeds / 2, "{tally:?}");
    }
}

#[test]
fn a_seed_replays_itself() {
    for seed in [3, 77, 1_234] {
        assert_eq!(simulate(seed, false), simulate(seed, false));
    }
}
