//! Faults of a network's description, or of an address in a network, found before anything is asked of the daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use runtide_core::{
    ErrorKind,
    manager::{NetworkSpec, Subnet},
};

use crate::names::{is_name, is_word, shown};

/// The ranges of a network that is to be created, each with its gateway: the first address of the range, where none was given.
///
/// # Errors
/// The reason why the description makes no sense.
pub fn checked(spec: &NetworkSpec) -> Result<Vec<Subnet>, String> {
    if !is_name(&spec.name) {
        let expected = "expected letters, digits, '_', '.', '-', the first a letter or digit";
        return Err(format!("'{}' is not a network's name: {expected}", shown(&spec.name)));
    }
    if let Some(driver) = spec.driver.as_deref().filter(|driver| !is_word(driver)) {
        return Err(format!("'{}' is not a driver's name", shown(driver)));
    }
    spec.subnets.iter().map(|subnet| range(subnet, spec.ipv6)).collect()
}

fn range(subnet: &Subnet, ipv6: bool) -> Result<Subnet, String> {
    let Some((first, _)) = subnet.parsed() else {
        return Err(format!("'{}' is not a range of addresses as 10.1.2.0/24", shown(&subnet.range)));
    };
    if first.is_ipv6() && !ipv6 {
        return Err(format!("{} is a range of IPv6, which the network would not have: ask for it", subnet.range));
    }
    if let Some(gateway) = subnet.gateway.filter(|gateway| !subnet.contains(*gateway) || *gateway == first) {
        return Err(format!("{gateway} cannot be the gateway of {}", subnet.range));
    }
    // The daemons take the first address as well, but Docker shows a gateway only if it was given one.
    let gateway = subnet.gateway.or_else(|| next(first).filter(|gateway| subnet.contains(*gateway)));
    let mut range = Subnet::new(subnet.range.as_str());
    range.gateway = gateway;
    Ok(range)
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// Why no instance can have this address in a network of these ranges.
pub fn refused(ranges: &[Subnet], address: IpAddr) -> Option<(ErrorKind, String)> {
    if ranges.iter().any(|range| range.gateway == Some(address)) {
        return Some((ErrorKind::Conflict, format!("{address} is the network's gateway")));
    }
    let is_outside = !ranges.is_empty() && !ranges.iter().any(|range| range.contains(address));
    is_outside.then(|| {
        let ranges: Vec<_> = ranges.iter().map(|range| range.range.as_str()).collect();
        (ErrorKind::InvalidInput, format!("{address} does not lie in the network's {}", ranges.join(", ")))
    })
}

/// Why a network with so many members is not removed.
pub fn in_use(members: usize) -> String {
    match members {
        1 => "a container is connected to it, running or not".to_owned(),
        more => format!("{more} containers are connected to it, running or not"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gets_its_first_address_as_the_gateway() {
        let spec = NetworkSpec::named("lan")
            .with_ipv6()
            .with_subnet(Subnet::new("10.1.2.0/24").with_gateway("10.1.2.9".parse().unwrap()))
            .with_subnet("fd00::/64")
            .with_subnet("10.1.3.7/32");
        let gateways: Vec<_> = checked(&spec).unwrap().into_iter().map(|range| range.gateway).collect();
        assert_eq!(gateways, ["10.1.2.9".parse().ok(), "fd00::1".parse().ok(), None]);
    }

    #[test]
    fn hostile_words_are_refused() {
        for name in ["", "..", "../a", "a b", "a/b", "a\0", "a\n", "é", "-a", &"a".repeat(300)] {
            assert!(checked(&NetworkSpec::named(name)).is_err(), "{name:?}");
        }
        let lan = || NetworkSpec::named("lan");
        for range in ["", "10.1.2.3", "10.1.2.3/24", "10.1.2.0/33", "fd00::/64", "a"] {
            assert!(checked(&lan().with_subnet(range)).is_err(), "{range:?}");
        }
        for gateway in ["10.1.3.1", "10.1.2.0", "fd00::1"] {
            let subnet = Subnet::new("10.1.2.0/24").with_gateway(gateway.parse().unwrap());
            assert!(checked(&lan().with_subnet(subnet)).is_err(), "{gateway}");
        }
        for driver in ["", "a b", "a\0"] {
            assert!(checked(&lan().with_driver(driver)).is_err(), "{driver:?}");
        }
    }

    #[test]
    fn an_address_must_lie_in_a_range_and_not_be_the_gateway() {
        let ranges = [Subnet::new("10.1.2.0/24").with_gateway("10.1.2.1".parse().unwrap())];
        let kind = |address: &str| refused(&ranges, address.parse().unwrap()).map(|(kind, _)| kind);
        assert_eq!(kind("10.1.2.1"), Some(ErrorKind::Conflict));
        assert_eq!(kind("10.1.3.7"), Some(ErrorKind::InvalidInput));
        assert_eq!((kind("10.1.2.7"), refused(&[], "10.1.2.7".parse().unwrap())), (None, None));
    }
}
