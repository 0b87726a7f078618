//! Docker's JSON on a unix socket → a normalized event delivered to the consumer, next to bollard alone.

#![allow(missing_docs, clippy::unwrap_used)]

use runtide_benches::{
    Clock, Contest, Round, Table, count, criterion,
    daemon::{Daemon, Dialect, RUN},
    is_trial, met, nanos, percent, times,
    watchers::{Bare, Watch},
};

/// Containers that exist during the whole bench.
const CONTAINERS: usize = 300;

fn main() {
    Daemon::serve_if_asked();
    let runs = if is_trial() { 100 } else { 10_000 };
    let mut criterion = criterion();
    let mut table = Table::new([
        "Docker",
        "events per chunk",
        "read by",
        "events/s",
        "CPU each",
        "runtide is",
        "its CPU is",
        "goal",
    ]);
    for (dialect, version) in [(Dialect::V20, "20.10"), (Dialect::V29, "29")] {
        for per_chunk in [1, 32] {
            // One thread, so that the scheduler has no influence.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (mut ours, mut theirs) = (Daemon::start(dialect, CONTAINERS), Daemon::start(dialect, CONTAINERS));
            let mut watch = Watch::open(&runtime, ours.socket());
            ours.await_subscribers(1);
            let mut bare = Bare::new(theirs.socket());
            bare.open(&runtime);
            theirs.await_subscribers(1);
            let messages = runs * RUN;
            let turn = |daemon: &mut Daemon, taken: &mut dyn FnMut(usize)| -> Round {
                daemon.prepare(runs, per_chunk);
                let clock = Clock::start();
                daemon.go();
                taken(messages);
                clock.stop(messages as u64)
            };
            let figures = Contest::new(format!("docker_path/{version}/{per_chunk}"))
                .with("runtide", || turn(&mut ours, &mut |count| runtime.block_on(watch.take(count, |_| ()))))
                .with("bollard", || turn(&mut theirs, &mut |count| runtime.block_on(bare.take(count, |_| ()))))
                .run(&mut criterion);
            for name in figures.names() {
                let (rate, cpu) = (figures.rate(name), figures.cpu_each(name));
                let (faster, less) = (figures.faster("runtide", "bollard"), figures.cpu_ratio("runtide", "bollard"));
                let (goal, faster, less) = if name == "runtide" {
                    let goal = met("≥ bollard's rate", faster >= 1.0) + "; " + &met("≤ its CPU", less <= 1.0);
                    (goal, String::new(), String::new())
                } else {
                    (String::new(), times(faster), percent(less))
                };
                let row = [version.to_owned(), per_chunk.to_string(), name.to_owned(), count(rate), nanos(cpu)];
                table.row(row.into_iter().chain([faster, less, goal]));
            }
        }
    }
    criterion.final_summary();
    table.print();
}
