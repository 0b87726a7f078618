//! Networks: create, remove, connect, disconnect.

use std::{fmt::Debug, net::IpAddr};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::InstanceId,
    labels::Labels,
    manager::Effect,
    names::{names, setters},
};

names! {
    /// A network by the runtime's id or name.
    NetworkId;
}

/// Networks. Removing or leaving what is gone is `Unchanged`.
#[async_trait]
pub trait NetworkManager: Debug + Send + Sync {
    /// Creates one.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, also where the runtime itself would allow two.
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId>;

    /// Removes one.
    ///
    /// # Errors
    /// `Conflict` while instances are connected to it.
    async fn remove(&self, network: &NetworkId) -> Result<Effect>;

    /// Every network that is there.
    async fn list(&self) -> Result<Vec<NetworkInfo>>;

    /// One of them.
    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo>;

    /// Connects an instance.
    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect>;

    /// Disconnects an instance.
    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect>;
}

/// Specification of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// `None`: the runtime's default.
    pub driver: Option<String>,
    /// Without a way out.
    pub internal: bool,
    /// In CIDR form; `None`: the runtime picks.
    pub subnet: Option<String>,
    /// The user's labels.
    pub labels: Labels,
}

impl NetworkSpec {
    /// A network of this name, everything else the runtime's choice.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// The host's address in it.
    pub gateway: Option<IpAddr>,
    /// As the runtime lists them now.
    pub members: Vec<InstanceId>,
    /// The user's labels.
    pub labels: Labels,
}

impl NetworkInfo {
    /// A network of which nothing more is known.
    pub fn new(id: impl Into<NetworkId>, name: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), gateway: None, members: Vec::new(), labels: Labels::default() }
    }
}

/// How to connect.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Names for it in this network.
    pub aliases: Vec<String>,
    /// Its address, which must lie in the network's range; `None`: the runtime picks.
    pub address: Option<IpAddr>,
}

setters!(ConnectOptions {
    /// Names for it in this network.
    with_aliases: aliases: Vec<String>;
    /// Its address.
    with_address: address: Option<IpAddr>;
});
