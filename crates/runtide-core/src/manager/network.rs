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
    /// A network's id or name in the runtime.
    NetworkId;
}

/// Manages networks. Removing a network that is gone, or disconnecting an instance that is not connected, is `Unchanged`.
#[async_trait]
pub trait NetworkManager: Debug + Send + Sync {
    /// Creates a network.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, even if the runtime itself would allow two.
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId>;

    /// Removes a network.
    ///
    /// # Errors
    /// `Conflict` while instances are connected to it.
    async fn remove(&self, network: &NetworkId) -> Result<Effect>;

    /// Lists every network that the runtime has.
    async fn list(&self) -> Result<Vec<NetworkInfo>>;

    /// Returns one network, as the runtime reports it now.
    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo>;

    /// Connects an instance to the network.
    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect>;

    /// Disconnects an instance from the network.
    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect>;
}

/// Description of a network to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// Name of the network.
    pub name: String,
    /// Network driver; the runtime's default if `None`.
    pub driver: Option<String>,
    /// True for a network without a route out of the host.
    pub internal: bool,
    /// Range of addresses in CIDR form; the runtime picks one if `None`.
    pub subnet: Option<String>,
    /// Labels that the user gives the network.
    pub labels: Labels,
}

setters!(NetworkSpec {
    /// Sets the driver.
    with_driver: driver = String;
    /// Makes a network without a route out of the host.
    with_internal: internal;
    /// Sets the range of addresses, in CIDR form.
    with_subnet: subnet = String;
    /// Sets the user's labels.
    with_labels: labels: Labels;
});

impl NetworkSpec {
    /// Makes the description of a network of this name; the runtime chooses all else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }
}

/// One network, as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Id of the network.
    pub id: NetworkId,
    /// Name of the network.
    pub name: String,
    /// Address of the host in this network.
    pub gateway: Option<IpAddr>,
    /// Connected instances, as the runtime lists them now.
    pub members: Vec<InstanceId>,
    /// Labels that the user gave the network.
    pub labels: Labels,
}

impl NetworkInfo {
    /// Makes the information of a network of which only id and name are known.
    pub fn new(id: impl Into<NetworkId>, name: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), gateway: None, members: Vec::new(), labels: Labels::default() }
    }
}

/// Options of a connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Further names of the instance in this network.
    pub aliases: Vec<String>,
    /// Address of the instance, which must lie in the network's range; the runtime picks one if `None`.
    pub address: Option<IpAddr>,
}

setters!(ConnectOptions {
    /// Sets further names of the instance in this network.
    with_aliases: aliases: Vec<String>;
    /// Sets the address of the instance.
    with_address: address: Option<IpAddr>;
});
