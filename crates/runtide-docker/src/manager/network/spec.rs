//! From a [`NetworkSpec`] to the Engine's request: pure, and the only place that refuses an invalid spec.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use runtide_core::manager::{NetworkSpec, Subnet};
use serde::Serialize;

use crate::manager::{container::is_name, spec::shown};

/// Body of the create request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Body<'a> {
    name: &'a str,
    /// Before API 1.44 the daemon makes a second network of one name unless it is asked to compare.
    check_duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    internal: bool,
    #[serde(rename = "EnableIPv6")]
    ipv6: bool,
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
    options: &'a BTreeMap<String, String>,
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam<'a> {
    config: Vec<Range<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Range<'a> {
    subnet: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl<'a> Body<'a> {
    /// The body, or the reason why the spec makes no sense.
    pub(super) fn new(spec: &'a NetworkSpec) -> Result<Self, String> {
        if !is_name(&spec.name) {
            let expected = "expected letters, digits, '_', '.', '-', the first a letter or digit";
            return Err(format!("'{}' is not a network's name: {expected}", shown(&spec.name)));
        }
        let driver = spec.driver.as_deref();
        if driver.is_some_and(|driver| driver.is_empty() || !driver.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(format!("'{}' is not a driver's name", shown(driver.unwrap_or_default())));
        }
        let ranges = spec.subnets.iter().map(|subnet| range(subnet, spec.ipv6)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: &spec.name,
            check_duplicate: true,
            driver,
            internal: spec.internal,
            ipv6: spec.ipv6,
            ipam: (!ranges.is_empty()).then_some(Ipam { config: ranges }),
            options: &spec.options,
            labels: spec.labels.iter().collect(),
        })
    }

    pub(super) fn name(&self) -> &'a str {
        self.name
    }
}

fn range(subnet: &Subnet, ipv6: bool) -> Result<Range<'_>, String> {
    let Some((first, _)) = subnet.parsed() else {
        return Err(format!("'{}' is not a range of addresses as 10.1.2.0/24", shown(&subnet.range)));
    };
    if first.is_ipv6() && !ipv6 {
        return Err(format!("{} is a range of IPv6, which the network would not have: ask for it", subnet.range));
    }
    if let Some(gateway) = subnet.gateway.filter(|gateway| !subnet.contains(*gateway) || *gateway == first) {
        return Err(format!("{gateway} cannot be the gateway of {}", subnet.range));
    }
    // The daemon takes the first address as well, but shows a gateway only if it was given one.
    let gateway = subnet.gateway.or_else(|| next(first).filter(|gateway| subnet.contains(*gateway)));
    Ok(Range { subnet: &subnet.range, gateway })
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_reaches_the_request() {
        let spec = NetworkSpec::named("lan")
            .with_driver("bridge")
            .with_internal()
            .with_ipv6()
            .with_subnet(Subnet::new("10.1.2.0/24").with_gateway("10.1.2.9".parse().unwrap()))
            .with_subnet("fd00::/64")
            .with_options([("com.docker.network.bridge.name", "br-lan")])
            .with_label("a", "b");
        let body = serde_json::to_value(Body::new(&spec).unwrap()).unwrap();
        let expected = json!({
            "Name": "lan",
            "CheckDuplicate": true,
            "Driver": "bridge",
            "Internal": true,
            "EnableIPv6": true,
            "IPAM": {"Config": [{"Subnet": "10.1.2.0/24", "Gateway": "10.1.2.9"}, {"Subnet": "fd00::/64", "Gateway": "fd00::1"}]},
            "Options": {"com.docker.network.bridge.name": "br-lan"},
            "Labels": {"a": "b"},
        });
        assert_eq!(body, expected);
        let plain = serde_json::to_value(Body::new(&NetworkSpec::named("lan")).unwrap()).unwrap();
        assert_eq!((plain.get("IPAM"), plain.get("Driver")), (None, None), "the daemon's defaults");
    }

    #[test]
    fn hostile_words_are_refused() {
        for name in ["", "..", "../a", "a b", "a/b", "a\0", "a\n", "é", "-a", &"a".repeat(300)] {
            assert!(Body::new(&NetworkSpec::named(name)).is_err(), "{name:?}");
        }
        let lan = || NetworkSpec::named("lan");
        for range in ["", "10.1.2.3", "10.1.2.3/24", "10.1.2.0/33", "fd00::/64", "a"] {
            assert!(Body::new(&lan().with_subnet(range)).is_err(), "{range:?}");
        }
        for gateway in ["10.1.3.1", "10.1.2.0", "fd00::1"] {
            let subnet = Subnet::new("10.1.2.0/24").with_gateway(gateway.parse().unwrap());
            assert!(Body::new(&lan().with_subnet(subnet)).is_err(), "{gateway}");
        }
        for driver in ["", "a b", "a\0"] {
            assert!(Body::new(&lan().with_driver(driver)).is_err(), "{driver:?}");
        }
    }
}
