//! The ports on which an instance listens: by the sockets of its processes, and by the socket units that start it.
//!
//! No event reports a new socket, so this is an inspection, and as old as that. It is of the machine that the root
//! belongs to: the processes are those of the unit's control group, and their sockets are matched by inode with the
//! table of their network namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use runtide_core::{ErrorKind, Port, Protocol, Result};
use rustix::io::Errno;
use zbus::{DeserializeDict, Type};

use crate::{cgroup, client::Client};

const OPERATION: &str = "systemd.ports";

const SOCKET: &str = "org.freedesktop.systemd1.Socket";

/// Limit of the open files of an instance that are read.
const MOST_FILES: usize = 65_536;

/// Limit of the bytes that are read of a namespace's table.
const MOST_TABLE: u64 = 32 * 1024 * 1024;

/// A listening port, and its address.
type Listener = (NonZeroU16, Protocol, SocketAddr);

/// The ports of a unit: of its processes, and of the socket units (`TriggeredBy`) that listen for it. `None`: the
/// sockets of its processes are not visible from here, so that an empty list would be a guess.
pub(crate) async fn ports(client: &Client, control_group: &str, triggers: &[String]) -> Option<Vec<Port>> {
    let mut listeners = if control_group.is_empty() {
        // The unit has no processes.
        BTreeSet::new()
    } else {
        let root = client.config().root.clone()?;
        let control_group = control_group.to_owned();
        let listeners_of_processes = tokio::task::spawn_blocking(move || of_processes(&root, &control_group)).await;
        listeners_of_processes.ok().flatten()?
    };
    for unit in triggers.iter().filter(|unit| unit.ends_with(".socket")) {
        match of_unit(client, unit).await {
            Ok(more) => listeners.extend(more),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::debug!(backend = %client.id(), unit, %error, "a socket unit has no readable address");
                return None;
            }
        }
    }
    Some(gathered(listeners))
}

/// Combines listeners into ports, sorted by number and protocol.
fn gathered(listeners: impl IntoIterator<Item = Listener>) -> Vec<Port> {
    let mut ports: BTreeMap<(NonZeroU16, Protocol), Port> = BTreeMap::new();
    for (number, protocol, address) in listeners {
        let port = ports.remove(&(number, protocol)).unwrap_or_else(|| Port::new(number, protocol));
        ports.insert((number, protocol), port.published_at(address));
    }
    ports.into_values().collect()
}

#[derive(Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct SocketProperties {
    listen: Option<Vec<(String, String)>>,
}

async fn of_unit(client: &Client, unit: &str) -> Result<Vec<Listener>> {
    let path = client.get_unit(OPERATION, unit).await?;
    let answer = client.get_all(OPERATION, path.as_str(), SOCKET).await?;
    let properties: SocketProperties = client.read(OPERATION, &answer)?;
    let listen = properties.listen.unwrap_or_default();
    Ok(listen.iter().filter_map(|(kind, address)| listener(kind, address)).collect())
}

/// The port of one `Listen` entry of a socket unit; `None`: it is not a port.
fn listener(kind: &str, address: &str) -> Option<Listener> {
    let protocol = match kind {
        "Stream" => Protocol::Tcp,
        "Datagram" => Protocol::Udp,
        _ => return None,
    };
    let address: SocketAddr = address.parse().ok()?;
    Some((NonZeroU16::new(address.port())?, protocol, address))
}

/// The listeners of a group's processes; `None`: they cannot be read.
fn of_processes(root: &Path, control_group: &str) -> Option<BTreeSet<Listener>> {
    let folder = cgroup::folder(root, control_group)?;
    let mut left = MOST_FILES;
    let mut spaces: HashMap<Vec<u8>, Vec<(u64, Listener)>> = HashMap::new();
    let mut listeners = BTreeSet::new();
    for process in cgroup::processes(&folder)? {
        let process = Path::new("/proc").join(process.to_string());
        match of_process(&process, &mut left, &mut spaces) {
            Ok(more) => listeners.extend(more),
            // The process ended in the meantime.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(_) => return None,
        }
    }
    Some(listeners)
}

fn of_process(
    process: &Path,
    left: &mut usize,
    spaces: &mut HashMap<Vec<u8>, Vec<(u64, Listener)>>,
) -> io::Result<Vec<Listener>> {
    let mut inodes = HashSet::new();
    for file in fs::read_dir(process.join("fd"))? {
        *left = left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
        // The file was closed in the meantime.
        if let Ok(target) = fs::read_link(file?.path())
            && let Some(inode) = inode(target.as_os_str().as_bytes())
        {
            inodes.insert(inode);
        }
    }
    if inodes.is_empty() {
        return Ok(Vec::new());
    }
    let space = fs::read_link(process.join("ns/net"))?.as_os_str().as_bytes().to_vec();
    let known = match spaces.get(&space) {
        Some(known) => known,
        None => spaces.entry(space).or_insert(namespace(process)?),
    };
    Ok(known.iter().filter(|(inode, _)| inodes.contains(inode)).map(|(_, listener)| *listener).collect())
}

/// All listeners in a process's network namespace.
fn namespace(process: &Path) -> io::Result<Vec<(u64, Listener)>> {
    let mut listeners = Vec::new();
    for (table, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        let text = match fs::File::open(process.join("net").join(table)) {
            Ok(file) => {
                let mut text = String::new();
                let read = io::Read::read_to_string(&mut io::Read::take(file, MOST_TABLE), &mut text)?;
                if read as u64 == MOST_TABLE {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                text
            }
            // The kernel has no IPv6; or the process ended, which its own folder shows.
            Err(error) if error.kind() == io::ErrorKind::NotFound && process.exists() => continue,
            Err(error) => return Err(error),
        };
        listeners.extend(text.lines().skip(1).filter_map(|line| entry(line, protocol)));
    }
    Ok(listeners)
}

/// Parses `socket:[12345]`.
fn inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Parses a line of `/proc/net/tcp` and its like (proc(5)): number, local address, remote address, state, …, inode.
/// `None`: no process listens there.
fn entry(line: &str, protocol: Protocol) -> Option<(u64, Listener)> {
    /// State `TCP_LISTEN`; and `TCP_CLOSE`, the state of a UDP socket that is not connected.
    const LISTENS: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut fields = line.split_ascii_whitespace();
    let (local, _remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let expected = if protocol == Protocol::Tcp { LISTENS } else { UNCONNECTED };
    if state != expected {
        return None;
    }
    let address = address(local)?;
    let inode = fields.nth(5)?.parse().ok().filter(|inode| *inode != 0)?;
    Some((inode, (NonZeroU16::new(address.port())?, protocol, address)))
}

/// Parses `0100007F:0050`: words of 32 bits in the byte order of memory, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let [a, b, c, d] = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip([a, b, c, d].iter().flatten()) {
                *to = *from;
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:1F91 0100007F:D431 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0000000000000000
";
    const UDP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  10: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 444 2 0000000000000000 0
";

    fn table(text: &str, protocol: Protocol) -> Vec<(u64, String)> {
        let entries = text.lines().skip(1).filter_map(|line| entry(line, protocol));
        entries.map(|(inode, (_, _, address))| (inode, address.to_string())).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn who_listens_is_read_and_who_is_connected_left_out() {
        assert_eq!(table(TCP, Protocol::Tcp), [(111, "127.0.0.1:8080".to_owned()), (222, "0.0.0.0:80".to_owned())]);
        assert_eq!(table(UDP6, Protocol::Udp), [(444, "[::1]:53".to_owned())]);
    }

    #[test]
    fn a_malformed_line_is_left_out() {
        for line in
            ["", "0:", "0: zz:zz 0:0 0A", "0: 0100007F:1F90 00000000:0000 0A 0 0 0", "0: 01:1 0:0 0A 1 1 1 1 1 9"]
        {
            assert_eq!(entry(line, Protocol::Tcp), None, "{line}");
        }
        assert_eq!(inode(b"socket:[17]"), Some(17));
        assert_eq!(inode(b"pipe:[17]"), None);
        assert_eq!(inode(b"socket:[x]"), None);
    }

    #[test]
    fn a_socket_unit_listens_on_ports_and_on_other_addresses() {
        let shown = |kind, address| listener(kind, address).map(|(port, protocol, _)| (port.get(), protocol));
        assert_eq!(shown("Stream", "[::]:80"), Some((80, Protocol::Tcp)));
        assert_eq!(shown("Datagram", "127.0.0.1:53"), Some((53, Protocol::Udp)));
        for (kind, address) in [("Stream", "/run/a"), ("FIFO", "/run/b"), ("Stream", "@a"), ("Netlink", "route 1")] {
            assert_eq!(shown(kind, address), None);
        }
    }

    #[test]
    fn the_same_port_at_two_addresses_is_one() {
        let one = |address: &str| listener("Stream", address).unwrap();
        let ports = gathered([one("[::]:443"), one("0.0.0.0:443"), one("127.0.0.1:80")]);
        let shown: Vec<_> = ports.iter().map(|port| (port.number.get(), port.published.len())).collect();
        assert_eq!(shown, [(80, 1), (443, 2)]);
    }

    #[test]
    fn this_process_is_seen_to_listen() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = of_process(Path::new("/proc/self"), &mut MOST_FILES.clone(), &mut HashMap::new()).unwrap();
        for (protocol, address) in
            [(Protocol::Tcp, listening.local_addr().unwrap()), (Protocol::Udp, bound.local_addr().unwrap())]
        {
            assert!(seen.contains(&(NonZeroU16::new(address.port()).unwrap(), protocol, address)), "{seen:?}");
        }
    }
}
