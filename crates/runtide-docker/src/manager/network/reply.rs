//! The daemon's words for a network: pure.

use std::{collections::BTreeMap, net::IpAddr};

use runtide_core::{
    InstanceId,
    manager::{NetworkInfo, Subnet},
};
use runtide_engine::{create::users_labels, is_named};
use serde::Deserialize;

use super::{Endpoint, Endpoints};

/// A network, listed or inspected.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::manager) struct Network {
    pub(in crate::manager) id: String,
    pub(in crate::manager) name: String,
    driver: Option<String>,
    internal: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    /// Of the containers that run, by their ids.
    containers: Option<BTreeMap<String, Live>>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    config: Option<Vec<Range>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    subnet: String,
    gateway: String,
}

/// The addresses of a container that runs, with their prefixes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Live {
    #[serde(rename = "IPv4Address")]
    ipv4: String,
    #[serde(rename = "IPv6Address")]
    ipv6: String,
}

/// A container with its networks, as the list has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Member {
    id: String,
    state: String,
    network_settings: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::manager) struct Settings {
    pub(in crate::manager) networks: Endpoints,
}

impl Network {
    /// `true` if these words name this network, and no other one by accident.
    pub(super) fn is_named(&self, words: &str) -> bool {
        is_named(words, &self.id, &self.name)
    }

    pub(super) fn subnets(&self) -> Vec<Subnet> {
        let ranges = self.ipam.config.iter().flatten().filter(|range| !range.subnet.is_empty());
        let subnets = ranges.map(|range| {
            let mut subnet = Subnet::new(range.subnet.as_str());
            subnet.gateway = without_prefix(&range.gateway);
            subnet
        });
        subnets.collect()
    }

    /// `true` if a container that runs has this address.
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        let live = self.containers.iter().flatten().flat_map(|(_, live)| [&live.ipv4, &live.ipv6]);
        live.into_iter().any(|text| without_prefix(text) == Some(address))
    }

    /// The side of this network among a container's networks. A container that never ran has the network's name alone.
    pub(super) fn endpoint_of<'a>(&self, endpoints: &'a Endpoints, is_running: bool) -> Option<&'a Endpoint> {
        let of_this = |(name, endpoint): &(&String, &Endpoint)| match endpoint.network_id.as_str() {
            // An entry that a failed connection left in a running container is none.
            _ if is_running && endpoint.id.is_empty() => false,
            "" => **name == self.name || **name == self.id,
            id => id == self.id,
        };
        endpoints.iter().find(of_this).map(|(_, endpoint)| endpoint)
    }

    fn joined<'a>(&self, all: &'a [Member]) -> impl Iterator<Item = (&'a Member, &'a Endpoint)> {
        all.iter().filter_map(|member| {
            let is_running = matches!(member.state.as_str(), "running" | "paused");
            Some((member, self.endpoint_of(&member.network_settings.networks, is_running)?))
        })
    }

    pub(super) fn members(&self, all: &[Member]) -> Vec<InstanceId> {
        self.joined(all).map(|(member, _)| InstanceId::from(member.id.as_str())).collect()
    }

    pub(super) fn info(self, all: &[Member]) -> NetworkInfo {
        let mut info = NetworkInfo::new(self.id.as_str(), self.name.as_str());
        info.subnets = self.subnets();
        // The daemon shows a gateway that it picked in the range that it was given only to those who joined.
        let shown_to = |(_, endpoint): (&Member, &Endpoint)| endpoint.gateway.parse().ok();
        let configured = info.subnets.iter().find_map(|subnet| subnet.gateway);
        info.gateway = configured.or_else(|| self.joined(all).find_map(shown_to));
        info.members = self.members(all);
        info.driver = self.driver.filter(|driver| !driver.is_empty());
        (info.internal, info.ipv6) = (self.internal, self.ipv6);
        info.labels = users_labels(self.labels.into_iter().flatten());
        info.options = self.options.unwrap_or_default();
        info
    }
}

/// The address in `10.1.2.3/24`, which may be without its prefix.
fn without_prefix(text: &str) -> Option<IpAddr> {
    text.split('/').next().unwrap_or_default().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Network {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_network_is_read_with_its_ranges() {
        let json = r#"{"Name":"lan","Id":"5e8b0f6fd7d1aa","Driver":"bridge","EnableIPv6":true,"Internal":false,"Options":null,
            "IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"10.1.2.0/24","Gateway":"10.1.2.1"},{"Subnet":"fd00::/64","Gateway":"fd00::1/64"},{}]},
            "Labels":{"a":"b","runtide.create":"1"},"Containers":{}}"#;
        let info = network(json).info(&[]);
        assert_eq!(info.gateway, "10.1.2.1".parse().ok());
        assert_eq!(info.subnets[1].gateway, "fd00::1".parse().ok());
        assert_eq!((info.subnets.len(), info.ipv6, info.internal), (2, Some(true), Some(false)));
        assert_eq!((info.driver.as_deref(), info.labels.get("a")), (Some("bridge"), Some("b")));
        assert_eq!(info.labels.len(), 1, "the create's own label is not the user's");
        let none = network(r#"{"Name":"none","Id":"0","IPAM":{"Config":null}}"#).info(&[]);
        assert_eq!((none.gateway, none.ipv6), (None, None));
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another_id() {
        let cafe = network(r#"{"Name":"lan","Id":"cafe0f6fd7d1aa00"}"#);
        assert!(cafe.is_named("lan") && cafe.is_named("cafe0f6fd7d1aa00") && cafe.is_named("cafe0f6fd7d1"));
        assert!(!cafe.is_named("cafe") && !cafe.is_named("la") && !cafe.is_named(""));
    }

    #[test]
    fn members_are_those_that_ran_and_those_that_never_did() {
        let all: Vec<Member> = serde_json::from_str(
            r#"[{"Id":"runs","State":"running","NetworkSettings":{"Networks":{"lan":{"NetworkID":"1","EndpointID":"e","Gateway":"10.1.2.1"}}}},
                {"Id":"failed-to-join","State":"running","NetworkSettings":{"Networks":{"lan":{"NetworkID":"1","EndpointID":""}}}},
                {"Id":"created","NetworkSettings":{"Networks":{"lan":{"NetworkID":""}}}},
                {"Id":"by-id","NetworkSettings":{"Networks":{"1":{}}}},
                {"Id":"of-a-former-lan","NetworkSettings":{"Networks":{"lan":{"NetworkID":"0"}}}},
                {"Id":"elsewhere","NetworkSettings":{"Networks":{"bridge":{"NetworkID":"2"}}}},
                {"Id":"nowhere"}]"#,
        )
        .unwrap();
        let lan =
            network(r#"{"Name":"lan","Id":"1","Containers":{"runs":{"IPv4Address":"10.1.2.3/24","IPv6Address":""}}}"#);
        assert_eq!(lan.members(&all), ["runs", "created", "by-id"].map(InstanceId::from));
        assert!(lan.is_taken("10.1.2.3".parse().unwrap()) && !lan.is_taken("10.1.2.4".parse().unwrap()));
        assert_eq!(lan.info(&all).gateway, "10.1.2.1".parse().ok());
    }
}
