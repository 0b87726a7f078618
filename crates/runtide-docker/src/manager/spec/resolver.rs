//! Name servers and extra hosts, in the Engine's form.

use bollard::models::ContainerCreateBody;
use runtide_core::manager::{HostAddress, InstanceSpec};

use super::{Refused, host, invalid, is_host_name, shown, unsupported};

pub(super) fn apply(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Refused> {
    let mut hosts = Vec::with_capacity(spec.extra_hosts.len());
    for extra in &spec.extra_hosts {
        if !is_host_name(&extra.name) {
            return invalid("extra_hosts", format!("'{}' is not a host name", shown(&extra.name)));
        }
        hosts.push(match extra.address {
            HostAddress::Ip(ip) => format!("{}:{ip}", extra.name),
            HostAddress::Gateway => format!("{}:host-gateway", extra.name),
            _ => return unsupported("extra_hosts", "Docker has no such address"),
        });
    }
    if !hosts.is_empty() {
        host(body).extra_hosts = Some(hosts);
    }
    // Each becomes a word of a line in resolv.conf.
    let is_word =
        |word: &String| !word.is_empty() && !word.contains(|one: char| one.is_whitespace() || one.is_control());
    if let Some(word) = spec.dns.search.iter().chain(&spec.dns.options).find(|word| !is_word(word)) {
        return invalid("dns", format!("'{}' is not one word", shown(word)));
    }
    let dns = &spec.dns;
    if !dns.servers.is_empty() {
        host(body).dns = Some(dns.servers.iter().map(ToString::to_string).collect());
    }
    if !dns.search.is_empty() {
        host(body).dns_search = Some(dns.search.clone());
    }
    if !dns.options.is_empty() {
        host(body).dns_options = Some(dns.options.clone());
    }
    Ok(())
}
