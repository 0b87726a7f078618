#![doc = include_str!("../README.md")]

mod absence;
mod answer;
mod archive;
mod client;
mod connection;
pub mod create;
mod dialect;
mod endpoint;
pub mod error;
pub mod exec;
mod feed;
mod hijack;
pub mod image;
pub mod late;
mod lenient;
mod names;
pub mod network;
mod outages;
pub mod output;
mod own_answer;
mod port;
pub mod progress;
mod readings;
mod request;
mod spool;
mod ssh;
pub mod subnets;
mod text;
mod time;
mod tls;
mod transport;
mod unreadables;
mod values;
pub mod volume;

pub use self::{
    absence::Absence,
    answer::{Answer, http_date},
    archive::{ArchiveCheck, ArchiveFlaw, Folder, Rebase, archive_of},
    client::{Client, Settings},
    dialect::Dialect,
    endpoint::{Endpoint, Tls, without_credentials},
    feed::Feed,
    hijack::{Hijacked, HijackedReader, HijackedWriter},
    lenient::{item, items, lenient, log_left_out, number},
    names::{is_host_name, is_name, is_named, is_word, shown},
    outages::Outages,
    own_answer::OwnAnswer,
    readings::readings,
    request::{Request, segment},
    spool::{SpoolReader, SpoolWriter, spool},
    ssh::Ssh,
    text::Text,
    time::time,
    transport::{Body, BoxError, as_io},
    unreadables::Unreadables,
    values::{Framed, Values},
};
