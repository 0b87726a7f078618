//! The managers: the verbs on containers and images. Observation is the [`source`](crate::source)'s and the inspector's.
//!
//! The verbs on containers go over bollard. It answers 204 and 304 alike, and the daemon's texts differ from version to version, so the
//! effect of a verb is derived from the container's state before and after, never from a message.

mod container;
mod exec;
mod image;
mod kill;
mod lifecycle;
mod log;
mod native;
mod network;
mod provision;
mod remove;
mod rename;
mod spec;
mod stats;
mod stop;
mod volume;
mod wait;

use runtide_core::Result;
use runtide_engine::{lenient, log_left_out};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub(crate) use self::{
    exec::Exec, image::Images, lifecycle::Lifecycle, log::Logs, network::Networks, provision::Provision, stats::Stats,
    volume::Volumes,
};
use crate::client::Client;

/// One object of an answer. A member that cannot be read is left out, and the log names it.
fn item<T: DeserializeOwned>(client: &Client, operation: &'static str, json: &[u8]) -> Result<T> {
    let read = lenient(&String::from_utf8_lossy(json), |json| serde_json::from_str(json));
    let (item, left_out) = read.map_err(|error| client.site(operation).undecodable(error))?;
    log_left_out(client.id(), operation, &left_out);
    Ok(item)
}

/// The objects of an answer that is a list; `null` is one without any.
fn items<T: DeserializeOwned>(client: &Client, operation: &'static str, json: &[u8]) -> Result<Vec<T>> {
    let list: Option<Vec<&RawValue>> =
        serde_json::from_slice(json).map_err(|error| client.site(operation).undecodable(error))?;
    list.into_iter().flatten().map(|one| item(client, operation, one.get().as_bytes())).collect()
}
