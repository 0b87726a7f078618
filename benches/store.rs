//! The store next to the bare map that stands for the limit. `peers/` compares it with other crates.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{
    criterion,
    store::{Nested, Peer, Peered, Runtide, compare},
};

fn main() {
    let (runtide, nested) = (Peered::<Runtide>::default(), Peered::<Nested>::default());
    let peers: [&dyn Peer; 2] = [&runtide, &nested];
    compare(&peers, &mut criterion());
}
