//! Exceptions from a proxy, as `NO_PROXY` lists them for Go's programs.

use std::net::IpAddr;

/// `true` if the address is reached without the proxy. This machine's own addresses always are.
pub(crate) fn is_excepted(server: &str, except: &str) -> bool {
    let Ok(uri) = server.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let ip = host.parse::<IpAddr>().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    except.split(',').map(|one| one.trim().to_ascii_lowercase()).filter(|one| !one.is_empty()).any(|one| {
        if one == "*" {
            return true;
        }
        if let (Some(ip), Some((network, bits))) = (ip, one.split_once('/')) {
            return network.parse().is_ok_and(|network| bits.parse().is_ok_and(|bits| is_within(ip, network, bits)));
        }
        let (name, wanted_port) = match one.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
            _ => (one.as_str(), None),
        };
        if wanted_port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = name.trim_matches(['[', ']']);
        if let (Some(ip), Ok(name)) = (ip, name.parse::<IpAddr>()) {
            return ip == name;
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        let suffix = name.strip_prefix('.');
        suffix.is_none() && host == name
            || host.strip_suffix(suffix.unwrap_or(name)).is_some_and(|rest| rest.ends_with('.'))
    })
}

/// `true` if the first `bits` of both are the same.
fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            bits <= 32 && (u32::from(ip) ^ u32::from(network)).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            bits <= 128 && (u128::from(ip) ^ u128::from(network)).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_excepted;

    #[test]
    fn exceptions_are_names_suffixes_addresses_networks_and_ports() {
        for (server, except, excepted) in [
            ("https://a.example.com", "example.com", true),
            ("https://example.com", "example.com", true),
            ("https://example.com", ".example.com", false),
            ("https://a.example.com", " .example.com ,x", true),
            ("https://a.example.com", "*.example.com", true),
            ("https://badexample.com", "example.com", false),
            ("https://a.example.com:6443", "example.com:6443", true),
            ("https://a.example.com:6443", "example.com:443", false),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://11.1.2.3", "10.0.0.0/8", false),
            ("https://11.1.2.3", "10.0.0.0/0", true),
            ("https://11.1.2.3", "10.0.0.0/99", false),
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://[fd00::1]:6443", "fd00::/8", true),
            ("https://[fd00::1]:6443", "fd00::1", true),
            ("https://x", "*", true),
            ("https://x", "", false),
            ("https://127.0.0.1:6443", "", true),
            ("https://localhost", "", true),
        ] {
            assert_eq!(is_excepted(server, except), excepted, "{server} {except:?}");
        }
    }
}
