//! Reaching a port of an instance, from where this process is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use runtide_core::{Instance, Protocol};

/// For one address.
const CONNECT: Duration = Duration::from_secs(1);

/// A port that accepted, and what to call it.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) host: SocketAddr,
}

/// Connects. The instance's own addresses count first: what a host publishes may accept before anybody listens inside, so it
/// is tried only where no address of the instance's own can be reached at all.
pub(super) async fn connect(instance: &Instance, port: NonZeroU16) -> Option<Reached> {
    let mut answered = false;
    for host in own(instance, port) {
        match timeout(CONNECT, TcpStream::connect(host)).await {
            Ok(Ok(stream)) => return Some(Reached { stream, host }),
            // It is there, and does not listen yet.
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

/// What listens everywhere listens here.
fn near(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
