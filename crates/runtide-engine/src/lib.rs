#![doc = include_str!("../README.md")]

mod answer;
mod archive;
mod client;
mod connection;
mod dialect;
mod endpoint;
pub mod error;
pub mod exec;
mod feed;
mod hijack;
pub mod image;
pub mod late;
mod lenient;
pub mod network;
pub mod output;
mod own_answer;
mod port;
pub mod progress;
mod request;
mod spool;
mod ssh;
mod text;
mod time;
mod tls;
mod transport;
mod values;

pub use self::{
    answer::{Answer, http_date},
    archive::{ArchiveCheck, ArchiveFlaw, Folder},
    client::{Client, Settings},
    dialect::Dialect,
    endpoint::{Endpoint, Tls, without_credentials},
    feed::Feed,
    hijack::{Hijacked, HijackedReader, HijackedWriter},
    lenient::{lenient, log_left_out, number},
    own_answer::OwnAnswer,
    request::{Request, segment},
    spool::{SpoolReader, SpoolWriter, spool},
    ssh::Ssh,
    text::Text,
    time::time,
    transport::{Body, BoxError, as_io},
    values::{Framed, Values},
};
