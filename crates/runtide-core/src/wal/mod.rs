//! A write-ahead log.
mod anchor;
mod chain;
mod commit;
mod damage;
mod engine;
mod format;
pub mod fs;
mod layout;
mod lock;
mod open;
mod options;
mod published;
mod queue;
mod reader;
mod record;
mod scan;
mod segment;
mod walk;
mod window;
mod writer;

pub use self::{
    anchor::Anchor,
    damage::Damage,
    open::Repair,
    options::{Durability, OnDamage, WalKey, WalOptions},
    reader::WalReader,
    record::{ReadFrom, Record, RecordKind, Seq},
    writer::{Wal, WalWriter},
};

#[cfg(test)]
mod tests;
