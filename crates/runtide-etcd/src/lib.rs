#![doc = include_str!("../README.md")]

mod apply;
mod call;
mod client;
mod compact;
mod config;
mod connection;
mod delete;
mod environment;
mod error;
mod feed;
mod keys;
mod known;
mod read;
mod restore;
mod settle;
mod shared;
mod snapshot;
mod store;
mod token;
mod value;
mod view;
mod watch;
mod watcher;
mod wire;

pub use self::{
    config::{Config, Tls},
    store::EtcdStore,
};
