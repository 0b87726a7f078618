//! Runs all workloads with all contenders, and prints the table.

use criterion::Criterion;

use super::{
    contender::Contender,
    nested::Nested,
    runtide::Runtide,
    work::{Peer, Work},
};
use crate::{Contest, Figures, Table, count, met, span, times};

/// Runs every workload with every contender that supports it, and prints the table.
pub fn compare(peers: &[&dyn Peer], criterion: &mut Criterion) {
    let mut table = Table::new(["work", "by", "figure", "best turn", "CPU each", "Runtide is", "goal"]);
    // A round of turns is long with many contenders: take fewer.
    let most = if peers.len() > 2 { 7 } else { usize::MAX };
    for work in Work::ALL {
        eprintln!("{}", work.title());
        if work == Work::Snapshot {
            // The workloads from here on fill smaller stores themselves: free the large ones.
            for peer in peers {
                peer.clear();
            }
        }
        let mut contest = Contest::new(work.title()).turns(work.turns().min(most));
        for peer in peers {
            if let Some(turn) = peer.turn(work) {
                contest = contest.with(peer.name(), turn);
            }
        }
        let figures = contest.run(criterion);
        for name in figures.names() {
            table.row(row(work, name, &figures));
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
        (String::new(), absolute_goal(work, rate))
    } else {
        let faster = figures.faster(Runtide::NAME, name);
        (
            times(faster),
            relative_goal(work, name).map_or(String::new(), |goal| met(&format!("≥ {goal}×"), faster >= goal)),
        )
    };
    let best = figures.best_rate(name);
    [work.title().to_owned(), name.to_owned(), figure(rate), figure(best), span(figures.cpu_each(name)), is, goal]
}

/// Runtide's goal relative to this contender.
fn relative_goal(work: Work, name: &str) -> Option<f64> {
    Some(match (work, name) {
        (Work::Fill | Work::Replace, Nested::NAME) => 0.5,
        (Work::Get, Nested::NAME) => 0.7,
        _ => return None,
    })
}

/// Runtide's own goal, and whether `rate` meets it; empty if the workload has none.
fn absolute_goal(work: Work, rate: f64) -> String {
    match work {
        Work::List => met("≤ 0.3 ms", rate >= 1.0 / 0.3e-3),
        Work::TwoThreads => met("≥ 2.5 M/s", rate >= 2.5e6),
        Work::Snapshot => met("≤ 60 ms", rate >= 1.0 / 60e-3),
        Work::Restore => met("≤ 120 ms", rate >= 1.0 / 120e-3),
        _ => String::new(),
    }
}
