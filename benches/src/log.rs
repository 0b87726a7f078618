//! The log's works, and who does them: the same in `wal` (Runtide beside the bare loops that stand for the limit) and in
//! `peers/` (beside other crates too), so that nothing is written twice.
//!
//! Every record has 256 bytes. A contender says for each [`Work`] how it does one turn of it, or that it cannot.

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
    drive::{Appends, Tasks, Threads, anew, each, reopened, timed},
    folder::Folder,
    large::Large,
    memory::{grown, peak},
    records::{RECORD, Records, Seen},
    report::compare,
    role::play_role,
    runtide::Runtide,
    work::{Peer, Place, Turn, Work, million},
};
