//! Memory of the store, next to the bare map; its growth, and that of snapshots, with the number of resources.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use peak_alloc::PeakAlloc;
use runtide_benches::store::{Nested, Peer, Peered, Runtide, held, watch};

/// Counts the requested bytes. It costs each allocation some time, so that speeds are measured without it.
#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

fn main() {
    let (runtide, nested) = (Peered::<Runtide>::default(), Peered::<Nested>::default());
    let peers: [&dyn Peer; 2] = [&runtide, &nested];
    held(&peers, || HELD.current_usage());
    watch::held(|| HELD.current_usage());
}
