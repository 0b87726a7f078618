//! From a [`NetworkSpec`] to libpod's request: pure.

use std::{collections::BTreeMap, net::IpAddr};

use runtide_core::manager::{NetworkSpec, Subnet};
use runtide_engine::subnets;
use serde::Serialize;

/// Body of the create request.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    internal: bool,
    ipv6_enabled: bool,
    /// As the command has it by default: without it no container finds another by its name.
    dns_enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subnets: Vec<Range>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: &'a BTreeMap<String, String>,
    pub(super) labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
struct Range {
    subnet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl<'a> Body<'a> {
    /// The body, or the reason why the spec makes no sense.
    pub(super) fn new(spec: &'a NetworkSpec) -> Result<Self, String> {
        let ranges = subnets::checked(spec)?;
        let ranges = ranges.into_iter().map(|Subnet { range, gateway, .. }| Range { subnet: range, gateway });
        Ok(Self {
            name: &spec.name,
            driver: spec.driver.as_deref(),
            internal: spec.internal,
            ipv6_enabled: spec.ipv6,
            dns_enabled: true,
            subnets: ranges.collect(),
            options: &spec.options,
            labels: spec.labels.iter().collect(),
        })
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
            .with_options([("mtu", "1400")])
            .with_label("a", "b");
        let expected = json!({
            "name": "lan",
            "driver": "bridge",
            "internal": true,
            "ipv6_enabled": true,
            "dns_enabled": true,
            "subnets": [{"subnet": "10.1.2.0/24", "gateway": "10.1.2.9"}, {"subnet": "fd00::/64", "gateway": "fd00::1"}],
            "options": {"mtu": "1400"},
            "labels": {"a": "b"},
        });
        assert_eq!(serde_json::to_value(Body::new(&spec).unwrap()).unwrap(), expected);
        let plain = serde_json::to_value(Body::new(&NetworkSpec::named("lan")).unwrap()).unwrap();
        assert_eq!((plain.get("subnets"), plain.get("driver")), (None, None), "the service's defaults");
    }
}
