//! The instance's side of its networks: the networks that it joins, and how names are resolved inside it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{manager::NetworkId, names::setters};

/// One network that an instance joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkAttachment {
    /// The network.
    pub network: NetworkId,
    /// Further names of the instance in this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Address of the instance, which must lie in one of the network's ranges; the runtime picks one if `None`.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl NetworkAttachment {
    /// Makes an attachment without further names, whose address the runtime picks.
    pub fn new(network: impl Into<NetworkId>) -> Self {
        Self { network: network.into(), aliases: Vec::new(), address: None }
    }

    /// Sets further names of the instance in this network.
    #[must_use]
    pub fn with_aliases(mut self, aliases: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.aliases = aliases.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the address of the instance.
    #[must_use]
    pub fn with_address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }
}

impl From<NetworkId> for NetworkAttachment {
    fn from(network: NetworkId) -> Self {
        Self::new(network)
    }
}

impl From<&str> for NetworkAttachment {
    fn from(network: &str) -> Self {
        Self::new(network)
    }
}

impl From<String> for NetworkAttachment {
    fn from(network: String) -> Self {
        Self::new(network)
    }
}

/// A host name that resolves to a given address inside an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExtraHost {
    /// The host name.
    pub name: String,
    /// The address.
    pub address: HostAddress,
}

impl ExtraHost {
    /// Makes a name for this address.
    pub fn new(name: impl Into<String>, address: IpAddr) -> Self {
        Self { name: name.into(), address: HostAddress::Ip(address) }
    }

    /// Makes a name for the host that the instance runs on.
    pub fn of_gateway(name: impl Into<String>) -> Self {
        Self { name: name.into(), address: HostAddress::Gateway }
    }
}

/// The address of an [`ExtraHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostAddress {
    /// This address.
    Ip(IpAddr),
    /// The address by which the instance reaches its host.
    Gateway,
}

/// Resolution of names inside an instance; the runtime's own for an empty field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Dns {
    /// Name servers, asked in this order.
    pub servers: Vec<IpAddr>,
    /// Domains that are appended to a name without a dot.
    pub search: Vec<String>,
    /// Options of the resolver, as `ndots:2`.
    pub options: Vec<String>,
}

setters!(Dns {
    /// Sets the name servers.
    with_servers: servers: Vec<IpAddr>;
    /// Sets the search domains.
    with_search: search: Vec<String>;
    /// Sets the options of the resolver.
    with_options: options: Vec<String>;
});
