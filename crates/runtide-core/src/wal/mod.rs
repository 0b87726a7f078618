//! A write-ahead log.
mod anchor;
mod chain;
mod commit;
mod damage;
mod dump;
mod engine;
mod follow;
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
mod retain;
mod salvage;
mod scan;
mod segment;
mod verify;
mod walk;
mod window;
mod writer;

pub use self::{
    anchor::Anchor,
    damage::Damage,
    dump::{dump, dump_with},
    follow::FollowStream,
    open::Repair,
    options::{Durability, OnDamage, WalKey, WalOptions},
    reader::WalReader,
    record::{ReadFrom, Record, RecordKind, Seq},
    retain::{Retained, Retention},
    salvage::{SalvageReport, salvage, salvage_with},
    verify::{Verified, verify, verify_with},
    writer::{Wal, WalWriter},
};

#[cfg(test)]
mod tests;
