//! Other crates at the works of Runtide's log. Each is given the setting in which it is fastest while it keeps what it promises;
//! what must be known beside a figure is in its note.

mod commitlog;
mod okaywal;
mod open_wal;
mod raft_engine;
mod redb;
mod runtimo;
mod sqlite;
mod store;

pub use self::{
    commitlog::CommitLog,
    okaywal::OkayWal,
    open_wal::OpenWal,
    raft_engine::RaftEngine,
    redb::Redb,
    runtimo::Runtimo,
    sqlite::Sqlite,
    store::{Peered, Store},
};
