//! The service's words for a network, and for the containers in it: pure.

use std::{collections::BTreeMap, net::IpAddr};

use runtide_core::{
    InstanceId,
    manager::{NetworkInfo, Subnet},
};
use runtide_engine::{create::users_labels, is_named};
use serde::Deserialize;

/// A network, listed or inspected.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Network {
    pub(super) id: String,
    pub(super) name: String,
    driver: Option<String>,
    internal: Option<bool>,
    ipv6_enabled: Option<bool>,
    /// Containers find each other by their names and aliases.
    pub(super) dns_enabled: Option<bool>,
    subnets: Option<Vec<Range>>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    subnet: String,
    gateway: String,
}

/// A container with its networks, as the list has them. Those of a pod have none: its infra container has theirs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Member {
    id: String,
    is_infra: bool,
    pod: Option<String>,
    networks: Option<Vec<String>>,
}

impl Network {
    /// `true` if these words name this network, and no other one by accident: Podman takes the beginning of an id as well.
    pub(super) fn is_named(&self, words: &str) -> bool {
        is_named(words, &self.id, &self.name)
    }

    pub(super) fn subnets(&self) -> Vec<Subnet> {
        let ranges = self.subnets.iter().flatten().filter(|range| !range.subnet.is_empty());
        let subnets = ranges.map(|range| {
            let mut subnet = Subnet::new(range.subnet.as_str());
            subnet.gateway = range.gateway.parse().ok();
            subnet
        });
        subnets.collect()
    }

    /// Those in the network, also those that share the network of a pod's infra container.
    pub(super) fn members(&self, all: &[Member]) -> Vec<InstanceId> {
        let joined = |member: &Member| member.networks.iter().flatten().any(|name| *name == self.name);
        let pods: Vec<&str> =
            all.iter().filter(|member| member.is_infra && joined(member)).filter_map(Member::pod).collect();
        let is_member = |member: &&Member| {
            !member.is_infra && (joined(member) || member.pod().is_some_and(|pod| pods.contains(&pod)))
        };
        all.iter().filter(is_member).map(|member| InstanceId::from(member.id.as_str())).collect()
    }

    /// Ids of the pods in the network, which keep it in use though they have no container yet.
    pub(super) fn pods<'a>(&self, all: &'a [Member]) -> Vec<&'a str> {
        let joined = |member: &&Member| member.networks.iter().flatten().any(|name| *name == self.name);
        all.iter().filter(|member| member.is_infra).filter(joined).filter_map(Member::pod).collect()
    }

    pub(super) fn info(self, all: &[Member]) -> NetworkInfo {
        let mut info = NetworkInfo::new(self.id.as_str(), self.name.as_str());
        info.subnets = self.subnets();
        info.gateway = info.subnets.iter().find_map(|subnet| subnet.gateway);
        info.members = self.members(all);
        info.driver = self.driver.filter(|driver| !driver.is_empty());
        (info.internal, info.ipv6) = (self.internal, self.ipv6_enabled);
        info.labels = users_labels(self.labels.into_iter().flatten());
        info.options = self.options.unwrap_or_default();
        info
    }
}

impl Member {
    fn pod(&self) -> Option<&str> {
        self.pod.as_deref().filter(|pod| !pod.is_empty())
    }
}

/// A container's side of a network, as its inspection shows it. One that does not run shows its aliases alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::manager) struct Endpoint {
    pub(super) aliases: Option<Vec<String>>,
    #[serde(rename = "IPAddress")]
    ip: String,
    #[serde(rename = "GlobalIPv6Address")]
    ipv6: String,
    #[serde(rename = "SecondaryIPAddresses")]
    more: Option<Vec<Address>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    more_ipv6: Option<Vec<Address>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "Addr", alias = "addr")]
    address: String,
}

impl Endpoint {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let more = [&self.more, &self.more_ipv6].into_iter().flatten().flatten().map(|more| &more.address);
        [&self.ip, &self.ipv6].into_iter().chain(more).any(|text| text.parse() == Ok(address))
    }
}

/// The networks of a container by their names.
pub(in crate::manager) type Endpoints = BTreeMap<String, Option<Endpoint>>;

/// The outcome of a removal that was answered with success: Podman reports a refusal there as well.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Removed {
    err: Option<serde_json::Value>,
}

impl Removed {
    /// The reason why the network is still there.
    pub(super) fn refusal(self) -> Option<String> {
        match self.err {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text),
            Some(other) => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Network {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_network_is_read_with_its_ranges() {
        let json = r#"{"name":"lan","id":"5e8b0f6fd7d1aa","driver":"bridge","network_interface":"podman1","ipv6_enabled":true,
            "internal":false,"dns_enabled":true,"subnets":[{"subnet":"10.1.2.0/24","gateway":"10.1.2.1"},{"subnet":"fd00::/64"}],
            "labels":{"a":"b","runtide.create":"1"},"options":{"mtu":"1400"},"ipam_options":{"driver":"host-local"}}"#;
        let info = network(json).info(&[]);
        assert_eq!((info.gateway, info.subnets.len()), ("10.1.2.1".parse().ok(), 2));
        assert_eq!((info.ipv6, info.internal, info.driver.as_deref()), (Some(true), Some(false), Some("bridge")));
        assert_eq!((info.labels.get("a"), info.labels.len()), (Some("b"), 1));
        assert_eq!(info.options["mtu"], "1400");
        let none = network(r#"{"name":"none","id":"0","subnets":null}"#).info(&[]);
        assert_eq!((none.gateway, none.ipv6), (None, None));
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another_id() {
        let cafe = network(r#"{"name":"lan","id":"cafe0f6fd7d1aa00"}"#);
        assert!(cafe.is_named("lan") && cafe.is_named("cafe0f6fd7d1aa00") && cafe.is_named("cafe0f6fd7d1"));
        assert!(!cafe.is_named("cafe") && !cafe.is_named("la") && !cafe.is_named(""));
    }

    #[test]
    fn members_are_those_of_the_network_and_of_its_pods() {
        let all: Vec<Member> = serde_json::from_str(
            r#"[{"Id":"runs","Networks":["lan","other"]},{"Id":"elsewhere","Networks":["other"]},{"Id":"nowhere","Networks":null},
                {"Id":"infra","IsInfra":true,"Pod":"p","Networks":["lan"]},{"Id":"of-the-pod","Pod":"p","Networks":[]},
                {"Id":"of-another-pod","Pod":"q","Networks":[]},{"Id":"no-pod","Pod":""}]"#,
        )
        .unwrap();
        let lan = network(r#"{"name":"lan","id":"1"}"#);
        assert_eq!(lan.members(&all), ["runs", "of-the-pod"].map(InstanceId::from));
        assert_eq!(lan.pods(&all), ["p"]);
    }

    #[test]
    fn a_refusal_within_a_success_is_found() {
        let refusal = |json: &str| serde_json::from_str::<Removed>(json).unwrap().refusal();
        assert_eq!(refusal(r#"{"Name":"lan","Err":null}"#), None);
        assert_eq!(refusal(r#"{"Name":"podman","Err":"default network"}"#).as_deref(), Some("default network"));
        assert!(refusal(r#"{"Name":"podman","Err":{}}"#).is_some());
    }

    #[test]
    fn every_address_of_an_endpoint_counts() {
        let endpoint: Endpoint = serde_json::from_str(
            r#"{"IPAddress":"10.1.2.3","GlobalIPv6Address":"","SecondaryIPAddresses":[{"Addr":"10.1.2.4","PrefixLength":24}],"Aliases":null}"#,
        )
        .unwrap();
        assert!(endpoint.has("10.1.2.3".parse().unwrap()) && endpoint.has("10.1.2.4".parse().unwrap()));
        assert!(!endpoint.has("10.1.2.5".parse().unwrap()));
    }
}
