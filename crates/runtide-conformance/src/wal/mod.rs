//! The laws of the log, W1 to W11, and the disk on which they are tested.
//!
//! A log is anything that implements [`LogHarness`]; [`RealLog`] is Runtide's own. Each law is tested on a [`ModelDisk`], which
//! knows every state in which a power cut can leave it, fails on request, and counts the bytes that are read. So nothing here
//! waits, and nothing depends on the machine, but on the order in which a log's own threads get their turn.
//!
//! The cases of each law, with their number, are in `docs/guarantees.md` of the repository. Mutants show that the laws bite
//! (`tests/it/wal_mutants.rs`).

mod check;
mod disk;
mod law;
mod laws;
mod log;
mod real;

pub(crate) use self::disk::Random;
pub use self::{
    disk::{Crash, Fault, Load, ModelDisk},
    law::{Effort, WalLaw, WalLawResult},
    log::{Audit, Cut, Entries, Entry, LogHarness, Meter, OpenLog, Salvaged},
    real::RealLog,
};
pub(crate) use crate::Looked;
