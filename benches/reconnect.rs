//! Time from a daemon's first answer after an outage to the watch's own return, on real daemons.
//!
//! `-- outages [docker|docker-tcp|etcd|systemd|systemd-again] [seconds…]`, as root, for `systemd` with the testbed's environment.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench stops where an assumption is wrong, and prints its table"
)]

use std::{
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use runtide_benches::{
    Table,
    outage::{Daemon, Dockerd, Etcd, SystemBus, until_it_answers},
};
use tokio::runtime::Handle;

const OUTAGES: [u64; 3] = [3, 12, 40];
const RUNS: usize = 3;

/// Longest wait for the watch.
const LONGEST: Duration = Duration::from_secs(120);

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "outages").skip(1);
    if !std::env::args().any(|argument| argument == "outages") {
        println!("reconnect: takes daemons away, so it runs with `-- outages` only");
        return;
    }
    let one = arguments.next().filter(|argument| !argument.starts_with("--"));
    let given: Vec<u64> = arguments.filter_map(|argument| argument.parse().ok()).collect();
    let outages = if given.is_empty() { OUTAGES.to_vec() } else { given };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table = Table::new(["daemon", "down for", "back after", "median", "most"]);
    for name in ["docker", "docker-tcp", "etcd", "systemd", "systemd-again"] {
        if one.as_deref().is_none_or(|one| one == name) {
            measure(name, &outages, runtime.handle(), &mut table);
        }
    }
    table.print();
}

fn measure(name: &str, outages: &[u64], handle: &Handle, table: &mut Table) {
    let bus = || SystemBus::of_testbed(handle.clone()).expect("the testbed's environment");
    let daemon: Box<dyn Daemon> = match name {
        "docker" => Box::new(Dockerd::up(false, handle.clone())),
        "docker-tcp" => Box::new(Dockerd::up(true, handle.clone())),
        "etcd" => Box::new(Etcd::up(handle.clone())),
        "systemd" => Box::new(bus()),
        _ => return again(&bus(), table),
    };
    until_it_answers(&*daemon);
    for seconds in outages {
        // A watch of its own for each, which remembers no earlier outage.
        let took = (0..RUNS).map(|_| outage(&*daemon, &daemon.returns(), Duration::from_secs(*seconds))).collect();
        row(table, name, format!("{seconds} s"), took);
    }
}

/// Outages of one watch, 12 s apart: three in which the bus is killed and returns at once, and three of two seconds.
fn again(bus: &SystemBus, table: &mut Table) {
    let returns = bus.returns();
    let mut took = Vec::new();
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(12));
        bus.kill_and_let_return();
        took.push(back(&returns, until_it_answers(bus)));
    }
    row(table, "systemd, 12 s apart", "killed and back".to_owned(), took);
    let took = (0..3).map(|_| {
        thread::sleep(Duration::from_secs(12));
        outage(bus, &returns, Duration::from_secs(2))
    });
    row(table, "systemd, 12 s apart", "2 s".to_owned(), took.collect());
}

fn outage(daemon: &dyn Daemon, returns: &Receiver<Instant>, length: Duration) -> Duration {
    thread::sleep(Duration::from_secs(2)); // the watch is up for a moment
    while returns.try_recv().is_ok() {}
    daemon.kill();
    thread::sleep(length);
    daemon.start();
    back(returns, until_it_answers(daemon))
}

/// Time from the daemon's answer until the watch is back; zero if it was back earlier.
fn back(returns: &Receiver<Instant>, answered: Instant) -> Duration {
    returns.recv_timeout(LONGEST).unwrap().saturating_duration_since(answered)
}

fn row(table: &mut Table, name: &str, outage: String, mut took: Vec<Duration>) {
    let seconds = |took: &Duration| format!("{:.2}", took.as_secs_f64());
    let each: Vec<String> = took.iter().map(seconds).collect();
    took.sort_unstable();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{name} {outage}: {each:?}");
    let cells = [name.to_owned(), outage, format!("{} s", each.join(", ")), seconds(&median), seconds(&most)];
    table.row(cells);
}
