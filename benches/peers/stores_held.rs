//! Memory of stores: Runtide's next to the bare map and other crates.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use peak_alloc::PeakAlloc;
use runtide_benches::store::{Nested, Peer, Peered, Runtide, held};
use runtide_peers::{Engenho, Reflector};

/// Counts the requested bytes. It costs each allocation some time, so that speeds are measured without it.
#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

fn main() {
    let (runtide, nested) = (Peered::<Runtide>::default(), Peered::<Nested>::default());
    let (engenho, reflector) = (Peered::<Engenho>::default(), Peered::<Reflector>::default());
    let peers: [&dyn Peer; 4] = [&runtide, &nested, &engenho, &reflector];
    held(&peers, || HELD.current_usage());
}
