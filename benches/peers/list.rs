//! All containers of a real daemon: Runtide's one request, next to koi-runtime, which asks for a list and then for each container.
//!
//! koi-runtime asks for a version of the API that Docker 20.10 refuses, and for running containers only. Both go through a relay that
//! counts their requests, and that alters these two words in koi-runtime's.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use std::path::Path;

use koi_runtime::{RuntimeBackend as _, docker::DockerBackend as Koi};
use runtide_benches::{Clock, Contest, Round, Table, criterion, is_trial, met, millis, real::Real, times, watchers};
use runtide_core::{Detail, ListOptions, RuntimeBackend as _};
use runtide_docker::DockerBackend;
use runtide_peers::Relay;
use tokio::runtime::Runtime;

const RUNNING: usize = 50;
const CONTAINERS: usize = 2_000;
const TURNS: usize = 5;

fn main() {
    let Some(real) = Real::from_env("list") else { return };
    let (running, all) = if is_trial() { (2, 20) } else { (RUNNING, CONTAINERS) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut criterion = criterion();
    let mut table = Table::new(["containers", "listed by", "requests", "one list", "Runtide is", "goal"]);

    for _ in 0..running {
        let id = real.create(&["--init", "--network", "none"], &["sleep", "100000"]);
        real.docker(["start", &id]);
    }
    let its_version = ("/v1.53/", "/v1.41/");
    let mut one = |count: usize, of: &str, replaced: &[(&str, &str)], is_goal: bool| {
        let (ours, theirs) = (Relay::before(real.socket(), &[]), Relay::before(real.socket(), replaced));
        let (backend, koi) = (watchers::runtide(ours.socket()), connected(&runtime, theirs.socket()));
        let summary = || of_runtide(&runtime, &backend, Detail::Summary, count);
        let full = || of_runtide(&runtime, &backend, Detail::Full, count);
        let by_koi = || of_koi(&runtime, &koi, count);
        let requests = |relay: &Relay, list: &dyn Fn() -> Round| {
            list(); // the first one negotiates
            relay.take_requests();
            list();
            relay.take_requests()
        };
        let asked = [requests(&ours, &summary), requests(&ours, &full), requests(&theirs, &by_koi)];
        let figures = Contest::new(format!("list/{of}"))
            .turns(TURNS)
            .with("Runtide", summary)
            .with("Runtide, all details", full)
            .with("koi-runtime", by_koi)
            .run(&mut criterion);
        for (name, requests) in figures.names().zip(asked) {
            let faster = figures.faster("Runtide", name);
            let goal = if is_goal && name == "koi-runtime" { met("≥ 20×", faster >= 20.0) } else { String::new() };
            let faster = if name == "Runtide" { String::new() } else { times(faster) };
            let (count, requests) = (format!("{count} {of}"), requests.to_string());
            table.row([count, name.to_owned(), requests, millis(figures.seconds(name)), faster, goal]);
        }
    };
    one(running, "running", &[its_version], false);
    runtime.block_on(real.create_many(all - running));
    one(all, "in all", &[its_version, ("all=false", "all=true")], true);
    criterion.final_summary();
    table.print();
}

fn connected(runtime: &Runtime, socket: &Path) -> Koi {
    let mut koi = Koi::with_socket(socket.display().to_string());
    runtime.block_on(koi.connect()).expect("a daemon");
    koi
}

fn of_runtide(runtime: &Runtime, backend: &DockerBackend, detail: Detail, count: usize) -> Round {
    let clock = Clock::start();
    let list = runtime.block_on(backend.list_instances(ListOptions::default().with_detail(detail))).expect("a list");
    assert!(list.is_complete() && list.instances.len() == count, "{} instances", list.instances.len());
    drop(list);
    clock.stop(count as u64)
}

fn of_koi(runtime: &Runtime, koi: &Koi, count: usize) -> Round {
    let clock = Clock::start();
    let list = runtime.block_on(koi.list_instances()).expect("a list");
    assert_eq!(list.len(), count);
    drop(list);
    clock.stop(count as u64)
}
