//! All containers in one request: decoded and normalized, next to bollard's own list.

#![allow(missing_docs, clippy::unwrap_used)]

use bollard::query_parameters::ListContainersOptionsBuilder;
use runtide_benches::{
    Clock, Contest, Table, criterion,
    daemon::{Daemon, Dialect},
    is_trial, millis, nanos, percent, times, watchers,
};
use runtide_core::{ListOptions, RuntimeBackend};

fn main() {
    Daemon::serve_if_asked();
    let mut criterion = criterion();
    let mut table =
        Table::new(["Docker", "containers", "listed by", "one list", "CPU each", "runtide is", "its CPU is"]);
    for (dialect, version) in [(Dialect::V20, "20.10"), (Dialect::V29, "29")] {
        for containers in if is_trial() { [10, 20] } else { [1_000, 10_000] } {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let daemon = Daemon::start(dialect, containers);
            let backend = watchers::runtide(daemon.socket());
            let bollard = runtime.block_on(watchers::bollard(daemon.socket()).negotiate_version()).unwrap();
            let figures = Contest::new(format!("list/{version}/{containers}"))
                .with("runtide", || {
                    let clock = Clock::start();
                    let list = runtime.block_on(backend.list_instances(ListOptions::default())).unwrap();
                    assert!(list.is_complete() && list.instances.len() == containers);
                    drop(list);
                    clock.stop(containers as u64)
                })
                .with("bollard", || {
                    let all = ListContainersOptionsBuilder::new().all(true).build();
                    let clock = Clock::start();
                    let list = runtime.block_on(bollard.list_containers(Some(all))).unwrap();
                    assert_eq!(list.len(), containers);
                    drop(list);
                    clock.stop(containers as u64)
                })
                .run(&mut criterion);
            for name in figures.names() {
                let (faster, cpu) = if name == "runtide" {
                    (String::new(), String::new())
                } else {
                    (times(figures.faster("runtide", name)), percent(figures.cpu_ratio("runtide", name)))
                };
                table.row([
                    version.to_owned(),
                    containers.to_string(),
                    name.to_owned(),
                    millis(figures.seconds(name)),
                    nanos(figures.cpu_each(name)),
                    faster,
                    cpu,
                ]);
            }
        }
    }
    criterion.final_summary();
    table.print();
}
