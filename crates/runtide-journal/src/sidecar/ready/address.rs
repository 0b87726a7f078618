//! Connecting to a port of an instance from this process.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use runtide_core::{Instance, Protocol};

/// Deadline of the connection to one address.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection, and the address that accepted it.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) host: SocketAddr,
}

/// Connects to the instance's own addresses first: the host's published port may accept before the process inside listens, so
/// it is tried only if no own address can be reached at all.
pub(super) async fn connect(instance: &Instance, port: NonZeroU16) -> Option<Reached> {
    let mut answered = false;
    for host in own(instance, port) {
        match timeout(CONNECT, TcpStream::connect(host)).await {
            Ok(Ok(stream)) => return Some(Reached { stream, host }),
            // The host is reachable, and the port does not listen yet.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => answered = true,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    if answered {
        return None;
    }
    for host in published(instance, port) {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(host)).await {
            return Some(Reached { stream, host });
        }
    }
    None
}

fn own(instance: &Instance, port: NonZeroU16) -> Vec<SocketAddr> {
    let addresses = instance.addresses.iter().flatten();
    addresses.map(|address| SocketAddr::new(address.ip, port.get())).collect()
}

fn published(instance: &Instance, port: NonZeroU16) -> Vec<SocketAddr> {
    let ports = instance.ports.iter().flatten();
    let wanted = ports.filter(|is| is.number == port && is.protocol == Protocol::Tcp);
    wanted.flat_map(|port| &port.published).map(|host| SocketAddr::new(near(host.ip()), host.port())).collect()
}

/// The loopback address for an unspecified one: a port published on all addresses listens there too.
fn near(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
