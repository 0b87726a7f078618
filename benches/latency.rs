//! Latency of a message, from the daemon's write to the consumer, at a thousand messages a second.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::{Duration, SystemTime};

use runtide_benches::{
    Table,
    daemon::{Daemon, Dialect, RUN},
    is_trial, nanos, times,
    watchers::{Bare, Watch},
};

const CONTAINERS: usize = 300;
const INTERVAL: Duration = Duration::from_millis(1);

fn main() {
    Daemon::serve_if_asked();
    let (turns, runs) = if is_trial() { (1, 10) } else { (10, 250) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut ours, mut theirs) = (Daemon::start(Dialect::V29, CONTAINERS), Daemon::start(Dialect::V29, CONTAINERS));
    let mut watch = Watch::open(&runtime, ours.socket());
    ours.await_subscribers(1);
    let mut bare = Bare::new(theirs.socket());
    bare.open(&runtime);
    theirs.await_subscribers(1);
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        ours.drip(runs, INTERVAL);
        runtime.block_on(watch.take(runs * RUN, |at| of_ours.push(since(at))));
        theirs.drip(runs, INTERVAL);
        runtime.block_on(bare.take(runs * RUN, |at| of_theirs.push(since(at))));
    }
    let mut table = Table::new(["from write to consumer", "runtide", "bollard", "ratio"]);
    of_ours.sort_unstable();
    of_theirs.sort_unstable();
    for (name, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990)] {
        let of = |sorted: &[Duration]| sorted[(sorted.len() - 1) * per_mille / 1_000].as_secs_f64();
        let (ours, theirs) = (of(&of_ours), of(&of_theirs));
        table.row([name.to_owned(), nanos(ours), nanos(theirs), times(ours / theirs)]);
    }
    table.print();
}

/// Time since the daemon's write; both processes read the same system clock.
fn since(at: SystemTime) -> Duration {
    at.elapsed().unwrap_or_default()
}
