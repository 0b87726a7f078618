//! Memory of the store, next to the bare map, and its snapshots, for several numbers of resources.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use peak_alloc::PeakAlloc;
use runtide_benches::store::{Nested, Peer, Peered, Runtide, held, watch};

/// Counts the requested bytes. It slows each allocation, so the speeds are measured in benches without it.
#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

fn main() {
    let (runtide, nested) = (Peered::<Runtide>::default(), Peered::<Nested>::default());
    let peers: [&dyn Peer; 2] = [&runtide, &nested];
    held(&peers, || HELD.current_usage());
    watch::held(|| HELD.current_usage());
}
