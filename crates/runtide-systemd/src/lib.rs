#![doc = include_str!("../README.md")]

mod client;
mod config;
mod error;
mod labels;
mod names;
mod normalize;
mod properties;
mod selection;
mod store;
mod unit_file;

pub use self::{
    config::{Config, Scope},
    selection::{Selection, UnitType},
    store::{UnitFileName, UnitForm, UnitStore, UnitStoreConfig, Units, Verify},
};
