//! The log next to the bare loops that stand for the limit. `peers/` compares it with other crates.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{
    criterion,
    log::{Bare, Lingering, Peer, Runtide, compare, play_role},
};

fn main() {
    let peers: [&dyn Peer; 3] = [&Runtide, &Bare, &Lingering];
    play_role(&peers);
    compare(&peers, &mut criterion());
}
