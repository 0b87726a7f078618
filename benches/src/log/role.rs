//! [`play_role`]: the child's side of [`Child`](super::Child).

use std::path::Path;

use super::{
    child::{LEAVE_OPEN, REPLAY, VERIFY},
    large, memory,
    work::Peer,
};

/// Call it first in `main`: a process that was started as a [`Child`](super::Child) plays its role here, and exits.
pub fn play_role(peers: &[&dyn Peer]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, name, dir, ..] = args.as_slice() else { return };
    if ![LEAVE_OPEN, REPLAY, VERIFY].contains(&role.as_str()) {
        return;
    }
    let dir = Path::new(dir);
    let peer = peers.iter().find(|peer| peer.name() == name).expect("a contender of this name");
    if role == REPLAY {
        println!("{}", memory::grown(|| peer.replay(dir)));
    } else if role == VERIFY {
        let (took, peak) = large::verified(dir);
        println!("{} {peak}", took.as_nanos());
    } else {
        let log = peer.left_open(dir);
        println!("open");
        // Until the parent kills it; if the parent has ended, its end of the pipe is closed.
        let _ = std::io::stdin().lines().next();
        std::mem::forget(log);
    }
    std::process::exit(0);
}
