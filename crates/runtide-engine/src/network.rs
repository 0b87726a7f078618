//! Ports and addresses, from a list's form and from that of an inspection, which is the same on both engines.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
};

use runtide_core::{Address, Port, Protocol};
use serde::Deserialize;

use crate::{lenient::number, text::Text};

/// The owner of a container's network stack: the container itself, the host, or another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The container's own.
    Own,
    /// The host's.
    Host,
    /// Another container's, or one that was given by a path.
    Shared,
}

impl Stack {
    /// The owner for a network mode of an inspection.
    pub fn of(mode: &str) -> Self {
        match mode {
            "host" => Self::Host,
            mode if mode.starts_with("container:") || mode.starts_with("ns:") => Self::Shared,
            _ => Self::Own,
        }
    }
}

/// Attachments by the network's name.
pub type Networks<'a> = BTreeMap<Text<'a>, Option<Attachment<'a>>>;

/// One attachment to a network.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attachment<'a> {
    #[serde(borrow, rename = "IPAddress")]
    v4: Text<'a>,
    #[serde(borrow, rename = "GlobalIPv6Address")]
    v6: Text<'a>,
}

/// The addresses; `None`: they are another container's or the host's, or the daemon did not report them.
pub fn addresses(stack: Stack, networks: Option<&Networks<'_>>) -> Option<Vec<Address>> {
    let mut found: Vec<Address> = networks?
        .iter()
        .filter_map(|(name, attachment)| Some((name, attachment.as_ref()?)))
        .flat_map(|(name, attachment)| {
            [&attachment.v4, &attachment.v6]
                .into_iter()
                .filter_map(|text| text.parse::<IpAddr>().ok())
                .map(|ip| Address::new(ip, name.0.clone().into_owned()))
        })
        .collect();
    if found.is_empty() && stack != Stack::Own {
        return None;
    }
    found.sort();
    found.dedup();
    Some(found)
}

/// A port in Docker's list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListedPort<'a> {
    #[serde(borrow, rename = "IP")]
    ip: Text<'a>,
    private_port: u16,
    public_port: Option<u16>,
    #[serde(borrow)]
    r#type: Text<'a>,
}

/// The list's ports; `None` on the host's or another container's network, where the list has none.
pub fn listed_ports(stack: Stack, ports: Option<&[ListedPort<'_>]>) -> Option<Vec<Port>> {
    if stack != Stack::Own {
        return None;
    }
    let mut table = Table::default();
    for port in ports? {
        table.add(port.private_port, &port.r#type, port.public_port.and_then(|public| published(&port.ip, public)));
    }
    Some(table.into_ports())
}

/// A published address of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Binding<'a> {
    #[serde(borrow)]
    host_ip: Text<'a>,
    #[serde(borrow)]
    host_port: Text<'a>,
}

/// Published addresses by `80/tcp`.
pub type Bindings<'a> = BTreeMap<Text<'a>, Option<Vec<Binding<'a>>>>;

/// The inspection's ports: `80/tcp` and its published addresses.
pub fn inspected_ports(bindings: &Bindings<'_>) -> Vec<Port> {
    let mut table = Table::default();
    for (key, bindings) in bindings {
        let Some((inside, protocol)) = port_key(key) else { continue };
        table.add(inside, protocol, None);
        for binding in bindings.iter().flatten() {
            let public = Some(&*binding.host_port).filter(|port| !port.is_empty());
            let public = public.and_then(|port| number(port, "HostPort"));
            table.add(inside, protocol, public.and_then(|public| published(&binding.host_ip, public)));
        }
    }
    table.into_ports()
}

/// The ports on the host's network: an exposed port answers on the host, under its own number.
pub fn host_ports<'a>(exposed: impl IntoIterator<Item = &'a str>) -> Vec<Port> {
    let mut table = Table::default();
    for (port, protocol) in exposed.into_iter().filter_map(port_key) {
        table.add(port, protocol, published("", port));
    }
    table.into_ports()
}

fn port_key(key: &str) -> Option<(u16, &str)> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    Some((number(port, "Ports")?, protocol))
}

/// The published address; an empty one means all addresses.
pub fn published(ip: &str, port: u16) -> Option<SocketAddr> {
    let ip = if ip.is_empty() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ip.parse().ok()? };
    (port != 0).then_some(SocketAddr::new(ip, port))
}

/// Ports in order of number and protocol, each host address once.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(NonZeroU16, Protocol), Vec<SocketAddr>>);

impl Table {
    /// Adds a port, or another published address of it. One without a number, or of an unknown protocol, is left out.
    pub fn add(&mut self, number: u16, protocol: &str, published: Option<SocketAddr>) {
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return,
        };
        if let Some(number) = NonZeroU16::new(number) {
            self.0.entry((number, protocol)).or_default().extend(published);
        }
    }

    /// All of them.
    pub fn into_ports(self) -> Vec<Port> {
        self.0
            .into_iter()
            .map(|((number, protocol), hosts)| hosts.into_iter().fold(Port::new(number, protocol), Port::published_at))
            .collect()
    }
}
