//! systemd's signals on a unix socket → a normalized event delivered to the consumer, next to zbus alone.

#![allow(missing_docs, clippy::unwrap_used)]

use runtide_benches::{
    Clock, Contest, Round, Table, count, criterion, is_trial,
    manager::{Manager, RUN},
    nanos, percent,
    signals::{Bare, Read, Watched},
    times,
};

const OURS: &str = "runtide";
const DECODED: &str = "zbus, bodies decoded";
const RECEIVED: &str = "zbus, headers only";

fn main() {
    Manager::serve_if_asked();
    let runs = if is_trial() { 100 } else { 4_000 };
    let mut criterion = criterion();
    // One thread, so that the scheduler has no influence.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [mut ours, mut decoded, mut received] = [(); 3].map(|()| Manager::start());
    let mut watched = Watched::open(&runtime, &ours.address());
    let mut bodies = Bare::open(&runtime, &decoded.address());
    let mut headers = Bare::open(&runtime, &received.address());
    let turn = |manager: &mut Manager, take: &mut dyn FnMut()| -> Round {
        manager.prepare(runs);
        let clock = Clock::start();
        manager.go();
        take();
        clock.stop((runs * RUN) as u64)
    };
    let figures = Contest::new("systemd_signals")
        .with(OURS, || turn(&mut ours, &mut || runtime.block_on(watched.take(runs))))
        .with(DECODED, || turn(&mut decoded, &mut || runtime.block_on(bodies.take(runs, Read::Body))))
        .with(RECEIVED, || turn(&mut received, &mut || runtime.block_on(headers.take(runs, Read::Header))))
        .run(&mut criterion);
    criterion.final_summary();
    let mut table = Table::new(["read by", "signals/s", "best turn", "CPU each", "runtide is", "its CPU is"]);
    for name in figures.names() {
        let cells =
            [name.to_owned(), count(figures.rate(name)), count(figures.best_rate(name)), nanos(figures.cpu_each(name))];
        let compared = if name == OURS {
            [String::new(), String::new()]
        } else {
            [times(figures.faster(OURS, name)), percent(figures.cpu_ratio(OURS, name))]
        };
        table.row(cells.into_iter().chain(compared));
    }
    table.print();
}
