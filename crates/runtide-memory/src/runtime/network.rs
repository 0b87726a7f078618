//! The runtime's networks. An instance is a member of those of its addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use runtide_core::{
    Address, Error, ErrorKind, InstanceId, Labels, Result,
    manager::{Effect, NetworkAttachment, NetworkId, NetworkInfo, NetworkSpec},
};

use super::{State, check_labels, check_name, conflict};
use crate::fault::Call;

#[derive(Debug, Default)]
pub(super) struct Networks {
    by_name: BTreeMap<String, Network>,
    made: u32,
}

#[derive(Clone, Debug)]
struct Network {
    id: NetworkId,
    subnet: Subnet,
    labels: Labels,
}

/// An IPv4 range; its first address is the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet {
    base: u32,
    prefix: u32,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/')?;
        let (ip, prefix): (Ipv4Addr, u32) = (ip.parse().ok()?, prefix.parse().ok()?);
        let subnet = Self { base: ip.to_bits(), prefix };
        ((8..=30).contains(&prefix) && subnet.base & (subnet.size() - 1) == 0).then_some(subnet)
    }

    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// Neither the range's name, nor its gateway, nor its broadcast address.
    fn hosts(self) -> impl Iterator<Item = IpAddr> {
        (2..self.size() - 1).map(move |host| self.at(host))
    }

    fn at(self, host: u32) -> IpAddr {
        Ipv4Addr::from_bits(self.base + host).into()
    }

    fn has_host(self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.to_bits().checked_sub(self.base).is_some_and(|host| host >= 2 && host < self.size() - 1))
    }
}

impl State {
    fn network(&self, wanted: &NetworkId) -> Option<(&String, &Network)> {
        let found = |(name, network): &(&String, &Network)| name.as_str() == wanted.as_str() || network.id == *wanted;
        self.networks.by_name.iter().find(found)
    }

    fn network_or_missing(&self, wanted: &NetworkId, call: Call) -> Result<(String, Network)> {
        self.network(wanted).map(|(name, network)| (name.clone(), network.clone())).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, call.operation(), "there is no such network")
                .with_context("network", wanted)
        })
    }

    pub(crate) fn create_network(&mut self, spec: &NetworkSpec) -> Result<NetworkId> {
        let error = |kind, message: &str| Error::new(kind, Call::Networks.operation(), message);
        check_name(&spec.name)?;
        check_labels(&spec.labels)?;
        if spec.driver.as_ref().is_some_and(|driver| driver != "memory") {
            return Err(error(ErrorKind::Unsupported, "the only driver is 'memory'"));
        }
        if self.networks.by_name.contains_key(&spec.name) {
            return Err(error(ErrorKind::AlreadyExists, "this name is taken").with_context("network", &spec.name));
        }
        if spec.ipv6 || !spec.options.is_empty() {
            return Err(error(ErrorKind::Unsupported, "a network in memory has no IPv6 and no options"));
        }
        let (range, gateway) = match spec.subnets.as_slice() {
            [] => {
                let made = self.networks.made;
                (format!("10.{}.{}.0/24", 128 + (made >> 8) % 128, made % 256), None)
            }
            [subnet] => (subnet.range.clone(), subnet.gateway),
            _ => return Err(error(ErrorKind::Unsupported, "a network in memory has one range")),
        };
        let wrong = "a subnet is an IPv4 range as 10.1.2.0/24, with a prefix from 8 to 30";
        let subnet = Subnet::parse(&range).ok_or_else(|| error(ErrorKind::InvalidInput, wrong))?;
        if gateway.is_some_and(|gateway| gateway != subnet.at(1)) {
            return Err(error(ErrorKind::Unsupported, "the gateway of a network in memory is its first address"));
        }
        self.networks.made += 1;
        let id = NetworkId::from(self.boot.id("net", self.networks.made.into()));
        let network = Network { id: id.clone(), subnet, labels: spec.labels.clone() };
        self.networks.by_name.insert(spec.name.clone(), network);
        Ok(id)
    }

    pub(crate) fn remove_network(&mut self, network: &NetworkId) -> Result<Effect> {
        let Some(name) = self.network(network).map(|(name, _)| name.clone()) else { return Ok(Effect::Unchanged) };
        if !self.members(&name).is_empty() {
            let used = Error::new(ErrorKind::Conflict, Call::Networks.operation(), "instances are connected to it");
            return Err(used.with_context("network", network));
        }
        self.networks.by_name.remove(&name);
        Ok(Effect::Changed)
    }

    pub(crate) fn list_networks(&self) -> Vec<NetworkInfo> {
        self.networks.by_name.iter().map(|(name, network)| self.network_info(name, network)).collect()
    }

    pub(crate) fn inspect_network(&self, network: &NetworkId) -> Result<NetworkInfo> {
        let (name, network) = self.network_or_missing(network, Call::Networks)?;
        Ok(self.network_info(&name, &network))
    }

    fn network_info(&self, name: &str, network: &Network) -> NetworkInfo {
        let mut info = NetworkInfo::new(network.id.clone(), name);
        let Subnet { base, prefix } = network.subnet;
        let range = format!("{}/{prefix}", Ipv4Addr::from_bits(base));
        info.subnets = vec![runtide_core::manager::Subnet::new(range).with_gateway(network.subnet.at(1))];
        info.driver = Some("memory".to_owned());
        info.gateway = Some(network.subnet.at(1));
        info.members = self.members(name);
        info.labels = network.labels.clone();
        info
    }

    fn members(&self, name: &str) -> Vec<InstanceId> {
        let member = |address: &Address| address.network.as_deref() == Some(name);
        let of = self.records.values().filter(|record| record.design.addresses.iter().any(member));
        of.map(|record| record.id.clone()).collect()
    }

    pub(crate) fn connect_network(
        &mut self,
        network: &NetworkId,
        id: &InstanceId,
        address: Option<IpAddr>,
    ) -> Result<Effect> {
        let (name, Network { subnet, .. }) = self.network_or_missing(network, Call::Links)?;
        self.record(id, Call::Links)?;
        if self.members(&name).contains(id) {
            return Ok(Effect::Unchanged);
        }
        let taken = |ip: &IpAddr| {
            let mut addresses = self.records.values().flat_map(|record| &record.design.addresses);
            addresses.any(|address| address.ip == *ip && address.network.as_ref() == Some(&name))
        };
        let ip = match address {
            Some(ip) if !subnet.has_host(ip) => {
                let outside = "the address does not lie in the network's range";
                return Err(Error::new(ErrorKind::InvalidInput, Call::Links.operation(), outside));
            }
            Some(ip) if taken(&ip) => return Err(conflict(id, Call::Links, "the address is taken")),
            Some(ip) => ip,
            None => subnet
                .hosts()
                .find(|ip| !taken(ip))
                .ok_or_else(|| conflict(id, Call::Links, "no address of the network is free"))?,
        };
        self.edit(id, "addresses", |design| design.addresses.push(Address::new(ip, name)))?;
        Ok(Effect::Changed)
    }

    /// Disconnects an instance; `Unchanged` if the network or the connection is gone.
    pub(crate) fn disconnect_network(&mut self, network: &NetworkId, id: &InstanceId) -> Result<Effect> {
        let Some(name) = self.network(network).map(|(name, _)| name.clone()) else { return Ok(Effect::Unchanged) };
        if !self.members(&name).contains(id) {
            return Ok(Effect::Unchanged);
        }
        let stays = |address: &Address| address.network.as_ref() != Some(&name);
        self.edit(id, "addresses", |design| design.addresses.retain(stays))?;
        Ok(Effect::Changed)
    }

    /// Fails unless all of them exist.
    pub(super) fn check_networks(&self, wanted: &[NetworkAttachment]) -> Result<()> {
        wanted.iter().try_for_each(|attachment| self.network_or_missing(&attachment.network, Call::Create).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_range_is_a_subnet() {
        for text in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/4", "fd00::/64", "10.0.0.0/24 "] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
        let subnet = Subnet::parse("10.0.0.0/30").unwrap();
        assert_eq!(subnet.hosts().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.0.0.2"]);
        assert!(subnet.has_host("10.0.0.2".parse().unwrap()) && !subnet.has_host("10.0.0.3".parse().unwrap()));
    }
}
