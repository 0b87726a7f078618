//! Measures a large log: opening after an orderly end and after the process was killed, reading the tail, and verification in a
//! separate process. It needs its size on the disk, so it runs only with an argument:
//!
//! ```sh
//! cargo bench -p runtide-benches --bench wal_big -- big      # 10 GB
//! cargo bench -p runtide-benches --bench wal_big -- big 1    # 1 GB
//! ```

#![allow(missing_docs, reason = "an executable has no readers of its docs")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a wrong assumption stops it, and the table is for the terminal"
)]
#![allow(clippy::cast_precision_loss, reason = "sizes become GB here")]

use runtide_benches::{
    Table, bytes, is_trial,
    log::{Child, Folder, Large, Runtide, play_role},
    met, span,
};

const GIGABYTE: u64 = 1_000_000_000;

/// Repetitions of an open and of a read of the tail; the median counts.
const TURNS: usize = 9;

fn main() {
    play_role(&[&Runtide]);
    let Some(size) = size() else {
        println!("`-- big` makes a log of 10 GB and measures it, `-- big 1` one of 1 GB");
        return;
    };
    let folder = Folder::new().unwrap();
    let log = Large::make(folder.new_dir(), size);
    let mut table = Table::new(["a log of", "figure", "goal"]);
    let size = bytes(log.size() as f64);
    let mut row = |what: &str, figure: String, goal: String| table.row([format!("{size}: {what}"), figure, goal]);

    let closed = median(|| log.open_closed());
    row("opened after an orderly end", span(closed), met("≤ 1 ms", closed <= 1e-3));
    let killed = median(|| log.open_killed());
    row("opened after its process was killed", span(killed), met("≤ 10 ms", killed <= 10e-3));
    let wal = log.open();
    let tail = median(|| log.tail(&wal));
    drop(wal);
    row("tail(100)", span(tail), met("≤ 0.15 ms", tail <= 0.15e-3));
    let (took, peak) = Child::verifies(Runtide::NAME, log.dir());
    let took = took.as_secs_f64();
    row("verified", format!("{}, {}/s", span(took), bytes(log.size() as f64 / took)), String::new());
    row("memory of the process that verified", bytes(peak as f64), met("≤ 16 MB", peak <= 16_000_000));
    table.print();
}

/// Size in bytes; `None` without the argument.
fn size() -> Option<u64> {
    if is_trial() {
        return Some(GIGABYTE / 20);
    }
    let mut args = std::env::args().skip_while(|arg| arg != "big");
    args.next()?;
    Some(args.next().and_then(|size| size.parse().ok()).unwrap_or(10) * GIGABYTE)
}

fn median(mut turn: impl FnMut() -> f64) -> f64 {
    let mut turns: Vec<f64> = (0..TURNS).map(|_| turn()).collect();
    turns.sort_by(f64::total_cmp);
    turns.get(TURNS / 2).copied().unwrap()
}
