//! Names that a spec gives to addresses, and how it has others resolved.

use runtide_core::manager::{HostAddress, InstanceSpec};
use serde_json::{Map, Value, json};

use super::{Refused, invalid, is_host_name, shown, unsupported};

pub(super) fn apply(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<(), Refused> {
    let mut hosts = Vec::with_capacity(spec.extra_hosts.len());
    for extra in &spec.extra_hosts {
        if !is_host_name(&extra.name) {
            return invalid("extra_hosts", format!("'{}' is not a host name", shown(&extra.name)));
        }
        hosts.push(match extra.address {
            HostAddress::Ip(ip) => format!("{}:{ip}", extra.name),
            HostAddress::Gateway => {
                let why =
                    "Podman 4 has no word for its gateway: use host.containers.internal, which every container knows";
                return unsupported("extra_hosts", why);
            }
            _ => return unsupported("extra_hosts", "Podman has no such address"),
        });
    }
    let dns = &spec.dns;
    let is_word =
        |word: &String| !word.is_empty() && !word.contains(|one: char| one.is_whitespace() || one.is_control());
    if let Some(word) = dns.search.iter().chain(&dns.options).find(|word| !is_word(word)) {
        return invalid("dns", format!("'{}' is not one word", shown(word)));
    }
    for (key, value, is_empty) in [
        ("hostadd", json!(hosts), hosts.is_empty()),
        ("dns_server", json!(dns.servers), dns.servers.is_empty()),
        ("dns_search", json!(dns.search), dns.search.is_empty()),
        ("dns_option", json!(dns.options), dns.options.is_empty()),
    ] {
        if !is_empty {
            body.insert(key.to_owned(), value);
        }
    }
    Ok(())
}
