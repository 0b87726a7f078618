//! Other crates at the works of Runtide's log and store. Each has its fastest setting that keeps its promises; its note
//! explains its figures.

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
