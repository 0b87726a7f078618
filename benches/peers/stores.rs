//! Runtide's store next to the bare map and other crates, in one run.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{
    criterion,
    store::{Nested, Peer, Peered, Runtide, compare},
};
use runtide_peers::{Engenho, Reflector};

fn main() {
    let (runtide, nested) = (Peered::<Runtide>::default(), Peered::<Nested>::default());
    let (engenho, reflector) = (Peered::<Engenho>::default(), Peered::<Reflector>::default());
    let peers: [&dyn Peer; 4] = [&runtide, &nested, &engenho, &reflector];
    compare(&peers, &mut criterion());
}
