//! Ports on loopback for daemons: free when a daemon first gets them, the same after it was restarted.

use std::fs;
use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::failure::{Doing, Outcome};

/// The daemon's file with its ports.
const FILE: &str = "ports";

/// The ports that [`take`] wrote into this folder; `None` before, and if the file has others than so many numbers.
pub(super) fn read<const N: usize>(folder: &Path) -> Option<[u16; N]> {
    parse(&fs::read_to_string(folder.join(FILE)).ok()?)
}

/// Finds ports without a listener, and writes them into this folder.
pub(super) fn take<const N: usize>(folder: &Path) -> Outcome<[u16; N]> {
    let ports: [u16; N] = free().doing("cannot find free ports")?;
    let path = folder.join(FILE);
    fs::write(&path, written(&ports)).doing(format_args!("cannot write {}", path.display()))?;
    Ok(ports)
}

fn free<const N: usize>() -> Result<[u16; N], Error> {
    // Below the system's ephemeral ports: one of these, given to any connection while a daemon is down, would keep the daemon
    // from coming back.
    let begin = std::process::id().wrapping_mul(397);
    let mut candidates = (0..12_000).filter_map(|n| u16::try_from(20_000 + begin.wrapping_add(n) % 12_000).ok());
    let mut ports = [0; N];
    for port in &mut ports {
        let is_free = |candidate: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *candidate)).is_ok();
        *port =
            candidates.find(is_free).ok_or_else(|| Error::new(ErrorKind::AddrInUse, "none of 12,000 ports is free"))?;
    }
    Ok(ports)
}

fn written(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join("\n")
}

fn parse<const N: usize>(text: &str) -> Option<[u16; N]> {
    let numbers: Vec<u16> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_back() {
        let ports: [u16; 4] = free().unwrap();
        assert_eq!(parse(&written(&ports)), Some(ports));
        assert_eq!(parse::<4>("1 2\n3"), None);
        assert_eq!(parse::<3>("1 2 many"), None);
    }
}
