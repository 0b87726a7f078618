//! From a [`NetworkSpec`] to the Engine's request: pure.

use std::{collections::BTreeMap, net::IpAddr};

use runtide_core::manager::{NetworkSpec, Subnet};
use runtide_engine::subnets;
use serde::Serialize;

/// Body of the create request.
#[derive(Debug, Clone, Serialize)]
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
    ipam: Option<Ipam>,
    options: &'a BTreeMap<String, String>,
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    config: Vec<Range>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    subnet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl<'a> Body<'a> {
    /// The body, or the reason why the spec makes no sense.
    pub(super) fn new(spec: &'a NetworkSpec) -> Result<Self, String> {
        let ranges =
            subnets::checked(spec)?.into_iter().map(|Subnet { range, gateway, .. }| Range { subnet: range, gateway });
        let ranges: Vec<_> = ranges.collect();
        Ok(Self {
            name: &spec.name,
            check_duplicate: true,
            driver: spec.driver.as_deref(),
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

    /// The same with one more label.
    pub(super) fn with_label<'b>(&self, (key, value): (&'b str, &'b str)) -> Body<'b>
    where
        'a: 'b,
    {
        let mut body: Body<'b> = self.clone();
        body.labels.insert(key, value);
        body
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
        let body = serde_json::to_value(Body::new(&spec).unwrap().with_label(("runtide.create", "1"))).unwrap();
        let expected = json!({
            "Name": "lan",
            "CheckDuplicate": true,
            "Driver": "bridge",
            "Internal": true,
            "EnableIPv6": true,
            "IPAM": {"Config": [{"Subnet": "10.1.2.0/24", "Gateway": "10.1.2.9"}, {"Subnet": "fd00::/64", "Gateway": "fd00::1"}]},
            "Options": {"com.docker.network.bridge.name": "br-lan"},
            "Labels": {"a": "b", "runtide.create": "1"},
        });
        assert_eq!(body, expected);
        let plain = serde_json::to_value(Body::new(&NetworkSpec::named("lan")).unwrap()).unwrap();
        assert_eq!((plain.get("IPAM"), plain.get("Driver")), (None, None), "the daemon's defaults");
    }
}
