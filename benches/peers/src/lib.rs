//! Other crates at the works of Runtide's log and store. Each has its fastest setting that keeps its promises; its note
//! explains its figures. [`Relay`] counts what clients of a daemon ask.

mod commitlog;
mod engenho;
mod okaywal;
mod open_wal;
mod raft_engine;
mod redb;
mod reflector;
mod relay;
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
    relay::Relay,
    runtimo::Runtimo,
    sqlite::Sqlite,
    store::{Peered, Store},
};
