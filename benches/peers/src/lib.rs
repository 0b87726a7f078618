//! Other crates at the works of Runtide's log and store. Each is given the setting in which it is fastest while it keeps what it promises;
//! what must be known beside a figure is in its note.

mod commitlog;
mod engenho;
mod okaywal;
mod open_wal;
mod raft_engine;
mod redb;
mod reflector;
mod runtimo;
mod sqlite;
mod store;

pub use self::{
    commitlog::CommitLog,
    engenho::Engenho,
    okaywal::OkayWal,
    open_wal::OpenWal,
    raft_engine::RaftEngine,
    redb::Redb,
    reflector::Reflector,
    runtimo::Runtimo,
    sqlite::Sqlite,
    store::{Peered, Store},
};
