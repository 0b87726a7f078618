//! Memory that stores hold at several sizes, and the size and time of their snapshots.

use std::time::Instant;

use super::{
    contender::Contender,
    runtide::Runtide,
    work::{Peer, of_million},
};
use crate::{Table, bytes, met, span};

/// Fills each contender at each size, and prints the table. `held` returns the number of allocated bytes. The resident size that
/// the kernel reports is of no use here: it does not shrink between one contender and the next.
pub fn held(peers: &[&dyn Peer], held: impl Fn() -> usize) {
    let mut table =
        Table::new(["resources", "by", "held", "for each", "goal", "snapshot", "written in", "restored in"]);
    for (count, size) in [(1_000_000, 512), (250_000, 1_024), (500_000, 1_024), (1_000_000, 1_024)] {
        for peer in peers {
            let count = of_million(count);
            eprintln!("{count} of {size} bytes in {}", peer.name());
            let before = held();
            let mut holder = peer.fill(count, size);
            let all = held() - before;
            let each = all as f64 / count as f64;
            let goal = if peer.name() == Runtide::NAME && size == 512 {
                met("≤ 800 B", each <= 800.0)
            } else {
                String::new()
            };
            holder.snapshot(); // warm
            let begin = Instant::now();
            let snapshot = holder.snapshot();
            let written = begin.elapsed().as_secs_f64();
            let [snapshot, written, restored] = match snapshot {
                Some(snapshot) => {
                    let begin = Instant::now();
                    let restored = holder.restore();
                    let took = begin.elapsed().as_secs_f64();
                    drop(restored);
                    [bytes(snapshot as f64), span(written), span(took)]
                }
                None => [const { String::new() }; 3],
            };
            let resources = format!("{} of {size} B", grouped(count));
            let row = [resources, peer.name().to_owned(), bytes(all as f64), format!("{each:.0} B"), goal];
            table.row(row.into_iter().chain([snapshot, written, restored]));
        }
    }
    table.print();
}

/// `250,000`.
fn grouped(count: usize) -> String {
    if count < 1_000 { count.to_string() } else { format!("{},{:03}", grouped(count / 1_000), count % 1_000) }
}
