//! Networks: create, remove, connect, disconnect.

use std::{collections::BTreeMap, fmt::Debug, net::IpAddr};

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
    ///
    /// # Errors
    /// `NotFound` if there is no such network.
    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo>;

    /// Connects an instance, running or not, to the network; `Unchanged` if it is connected already.
    ///
    /// # Errors
    /// `NotFound` if the network or the instance does not exist; `Conflict` if it is connected without an alias or an address that
    /// the options ask for, or if the address is taken; `InvalidInput` for an address outside the network's ranges.
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
    /// True for a network with IPv6 addresses as well. Some runtimes then need a range of them among the `subnets`.
    pub ipv6: bool,
    /// Ranges of addresses; the runtime picks one if empty.
    pub subnets: Vec<Subnet>,
    /// The driver's own options by their keys, passed through.
    pub options: BTreeMap<String, String>,
    /// Labels that the user gives the network.
    pub labels: Labels,
}

setters!(NetworkSpec {
    /// Sets the driver.
    with_driver: driver = String;
    /// Makes a network without a route out of the host.
    with_internal: internal;
    /// Gives the instances IPv6 addresses as well.
    with_ipv6: ipv6;
    /// Sets the user's labels.
    with_labels: labels: Labels;
});

impl NetworkSpec {
    /// Makes the description of a network of this name; the runtime chooses all else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a range of addresses, in CIDR form or with its gateway.
    ///
    /// ```
    /// use runtide_core::manager::{NetworkSpec, Subnet};
    ///
    /// let lan = Subnet::new("10.89.7.0/24").with_gateway("10.89.7.254".parse().unwrap());
    /// let spec = NetworkSpec::named("lan").with_subnet(lan).with_ipv6().with_subnet("fd00:89::/64");
    /// assert_eq!(spec.subnets.len(), 2);
    /// ```
    #[must_use]
    pub fn with_subnet(mut self, subnet: impl Into<Subnet>) -> Self {
        self.subnets.push(subnet.into());
        self
    }

    /// Sets the driver's own options, by their keys.
    #[must_use]
    pub fn with_options(mut self, options: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.options = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }
}

/// A range of a network's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Subnet {
    /// The range in CIDR form, as `10.89.7.0/24`.
    pub range: String,
    /// Address of the host in this range; the runtime picks one if `None`.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

impl Subnet {
    /// Makes a range whose gateway the runtime picks.
    pub fn new(range: impl Into<String>) -> Self {
        Self { range: range.into(), gateway: None }
    }

    /// Sets the address of the host.
    #[must_use]
    pub fn with_gateway(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// The range as its first address and the length of its prefix in bits. `None` if the text is no range, or has bits behind its
    /// prefix, as `10.0.0.1/8`.
    ///
    /// ```
    /// use runtide_core::manager::Subnet;
    ///
    /// assert_eq!(Subnet::new("10.0.0.0/8").parsed(), Some(("10.0.0.0".parse().unwrap(), 8)));
    /// assert_eq!(Subnet::new("10.0.0.1/8").parsed(), None);
    /// ```
    pub fn parsed(&self) -> Option<(IpAddr, u32)> {
        let (ip, prefix) = self.range.split_once('/')?;
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (ip, prefix): (IpAddr, u32) = (ip.parse().ok()?, prefix.parse().ok()?);
        let (bits, width) = bits(ip);
        let behind = width.checked_sub(prefix)?;
        (bits.trailing_zeros() >= behind).then_some((ip, prefix))
    }

    /// `true` if the address lies in the range; also for its first and its last one, which no instance can have.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Some((first, prefix)) = self.parsed() else { return false };
        let ((first, width), (address, other)) = (bits(first), bits(address));
        let behind = width.saturating_sub(prefix);
        width == other && (behind >= 128 || first >> behind == address >> behind)
    }
}

impl From<&str> for Subnet {
    fn from(range: &str) -> Self {
        Self::new(range)
    }
}

impl From<String> for Subnet {
    fn from(range: String) -> Self {
        Self::new(range)
    }
}

/// An address as a number, and its width in bits.
fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (ip.to_bits().into(), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
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
    /// Network driver.
    #[serde(default)]
    pub driver: Option<String>,
    /// True for a network without a route out of the host.
    #[serde(default)]
    pub internal: Option<bool>,
    /// True for a network with IPv6 addresses.
    #[serde(default)]
    pub ipv6: Option<bool>,
    /// Ranges of addresses, with the addresses of the host in them.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Address of the host in this network: the gateway of the first range that has one.
    pub gateway: Option<IpAddr>,
    /// Connected instances, as the runtime lists them now, also those that do not run.
    pub members: Vec<InstanceId>,
    /// Labels that the user gave the network.
    pub labels: Labels,
    /// The driver's own options, by their keys.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl NetworkInfo {
    /// Makes the information of a network of which only id and name are known.
    pub fn new(id: impl Into<NetworkId>, name: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            driver: None,
            internal: None,
            ipv6: None,
            subnets: Vec::new(),
            gateway: None,
            members: Vec::new(),
            labels: Labels::default(),
            options: BTreeMap::new(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_without_bits_behind_its_prefix_is_read() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "fd00::/64", "::/0", "fd00::1/128"] {
            assert!(Subnet::new(text).parsed().is_some(), "{text}");
        }
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.1/24",
            "fd00::/129",
            "fd00::1/64",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "a/8",
        ] {
            assert_eq!(Subnet::new(text).parsed(), None, "{text}");
        }
    }

    #[test]
    fn an_address_lies_in_the_range_of_its_own_family() {
        let within = |range: &str, ip: &str| Subnet::new(range).contains(ip.parse().unwrap());
        assert!(within("10.1.0.0/16", "10.1.255.255") && !within("10.1.0.0/16", "10.2.0.0"));
        assert!(within("0.0.0.0/0", "8.8.8.8") && !within("0.0.0.0/0", "::1") && within("::/0", "::1"));
        assert!(within("fd00::/64", "fd00::7") && !within("fd00::/64", "fd00:0:0:1::7"));
        assert!(within("10.0.0.7/32", "10.0.0.7") && !within("10.0.0.7/32", "10.0.0.6"));
        assert!(!within("10.0.0.1/8", "10.0.0.1"), "no range at all");
    }
}
