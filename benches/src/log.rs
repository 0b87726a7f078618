//! The log's works, and the contenders: the same in `wal` (Runtide next to the bare loops that stand for the limit) and in
//! `peers/` (next to other crates too), so that no code is written twice.
//!
//! Every record has 256 bytes. A contender has a turn for each [`Work`], or none if it cannot do it.

pub mod bare;
mod child;
mod drive;
mod folder;
mod format;
mod group;
mod large;
mod memory;
mod records;
mod report;
mod role;
mod runtide;
mod work;

pub use self::{
    bare::{Bare, Lingering},
    child::Child,
    drive::{Appends, Tasks, Threads, each, fresh, reopened, timed},
    folder::Folder,
    large::Large,
    memory::{grown, peak},
    records::{RECORD, Records, Seen},
    report::compare,
    role::play_role,
    runtide::Runtide,
    work::{Peer, Place, Turn, Work, million},
};
