//! All contenders at all works, and the resulting table.

use criterion::Criterion;

use super::{
    bare::{Bare, Lingering},
    child::Child,
    folder::Folder,
    runtide::Runtide,
    work::{Peer, Place, Work},
};
use crate::{Contest, Figures, Table, bytes, count, met, span, times};

/// Runs every work with each contender that can do it, and prints the table.
pub fn compare(peers: &[&dyn Peer], criterion: &mut Criterion) {
    let folder = Folder::new().expect("a folder next to the executable");
    let mut table = Table::new(["work", "by", "figure", "best turn", "CPU each", "Runtide is", "goal"]);
    // A rotation of many contenders takes long.
    let most = if peers.len() > 3 { 9 } else { usize::MAX };
    for work in Work::ALL {
        eprintln!("{}", work.title());
        let mut contest = Contest::new(work.title()).turns(work.turns().min(most));
        for peer in peers {
            let place = Place { folder: &folder, name: peer.name() };
            if let Some(turn) = peer.turn(work, &place) {
                contest = contest.with(peer.name(), turn);
            }
        }
        let figures = contest.run(criterion);
        for name in figures.names() {
            table.row(row(work, name, &figures));
        }
        if work == Work::Replay {
            memory(peers, &folder, &mut table);
        }
    }
    criterion.final_summary();
    table.print();
    for peer in peers.iter().filter(|peer| !peer.note().is_empty()) {
        println!("* {}: {}", peer.name(), peer.note());
    }
}

fn row(work: Work, name: &str, figures: &Figures) -> [String; 7] {
    let rate = figures.rate(name);
    let figure = |rate: f64| if work.is_a_time() { span(1.0 / rate) } else { format!("{}/s", count(rate)) };
    let (is, goal) = if name == Runtide::NAME {
        (String::new(), absolute(work, rate))
    } else {
        let faster = figures.faster(Runtide::NAME, name);
        (
            times(faster),
            goal_against(work, name).map_or(String::new(), |goal| met(&format!("≥ {goal}×"), faster >= goal)),
        )
    };
    let best = figures.best_rate(name);
    [work.title(), name.to_owned(), figure(rate), figure(best), span(figures.cpu_each(name)), is, goal]
}

/// The goal of Runtide against this contender.
fn goal_against(work: Work, name: &str) -> Option<f64> {
    Some(match (work, name) {
        (Work::Alone, Bare::NAME) | (Work::Tasks(64), Lingering::NAME) => 0.95,
        (Work::Tasks(512), Bare::NAME) | (Work::Threads(64), "raft-engine") => 0.9,
        (Work::Tasks(64), "raft-engine") => 1.5,
        (Work::Tasks(512), "okaywal") => 10.0,
        (Work::Bulk | Work::Replay, Bare::NAME) => 0.75,
        (Work::Bulk, "open-wal") => 1.05,
        (Work::Replay, "commitlog") => 1.1,
        _ => return None,
    })
}

/// The goal that stands by itself.
fn absolute(work: Work, rate: f64) -> String {
    match work {
        Work::Verify => met("≥ 8 M/s", rate >= 8e6),
        Work::VerifyAbreast => met("≥ 12 M/s on 2", rate >= 12e6),
        Work::ReopenClosed => met("≤ 1 ms", rate >= 1e3),
        Work::ReopenKilled => met("≤ 10 ms", rate >= 100.0),
        Work::Tail => met("≤ 0.15 ms", rate >= 1.0 / 0.15e-3),
        _ => String::new(),
    }
}

/// Bytes by which a process grows that replays the log of the preceding work.
fn memory(peers: &[&dyn Peer], folder: &Folder, table: &mut Table) {
    for peer in peers {
        let place = Place { folder, name: peer.name() };
        let Some(dir) = place.made_million() else { continue };
        let grown = Child::replays(peer.name(), &dir);
        let goal = if peer.name() == Runtide::NAME { met("≤ 4 MiB", grown <= 4 << 20) } else { String::new() };
        let [nothing, none, empty] = [const { String::new() }; 3];
        let what = "memory growth of a replay".to_owned();
        table.row([what, peer.name().to_owned(), bytes(grown as f64), nothing, none, empty, goal]);
    }
}
