//! Runtide's log next to the bare loops and other crates, in one run.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{
    criterion,
    log::{Bare, Lingering, Peer, Runtide, compare, play_role},
};
use runtide_peers::{CommitLog, OkayWal, OpenWal, Peered, RaftEngine, Redb, Runtimo, Sqlite};

fn main() {
    let peers: [&dyn Peer; 10] = [
        &Runtide,
        &Bare,
        &Lingering,
        &Peered::<RaftEngine>::NEW,
        &Peered::<OkayWal>::NEW,
        &Peered::<OpenWal>::NEW,
        &Peered::<CommitLog>::NEW,
        &Peered::<Redb>::NEW,
        &Peered::<Sqlite>::NEW,
        &Peered::<Runtimo>::NEW,
    ];
    play_role(&peers);
    compare(&peers, &mut criterion());
}
