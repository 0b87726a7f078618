//! The machine as it was before a daemon came, kept in a file until the daemon is taken down.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::network::{self, Network, Owner};
use super::places;
use crate::failure::{Doing, Failure, Outcome};

/// Files and folders outside its own that Docker or containerd make; removed again if they were not there, and folders
/// only when they are empty. Inner ones first.
const OF_DOCKER: [&str; 13] = [
    "/etc/docker/key.json",
    "/etc/docker",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/opt/containerd",
    "/run/containerd/s",
    "/run/containerd/fifo",
    "/run/containerd",
    "/run/docker/plugins",
    "/run/docker/libnetwork",
    "/run/docker",
    "/var/lib/docker",
    "/var/lib/containerd",
];

/// The same of Podman and runc.
const OF_PODMAN: [&str; 13] = [
    "/dev/shm/libpod_lock",
    "/run/containers/networks/ipam.db",
    "/run/containers/networks/aardvark.lock",
    "/run/containers/networks/aardvark-dns/aardvark.pid",
    "/run/containers/networks/aardvark-dns",
    "/run/containers/networks",
    "/run/containers",
    "/run/runc",
    "/var/cache/containers/short-name-aliases.conf.lock",
    "/var/cache/containers",
    "/var/lib/containers/cache/blob-info-cache-v1.boltdb",
    "/var/lib/containers/cache",
    "/var/lib/containers",
];

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Before {
    /// Id of the machine's boot; the record is valid for that boot only.
    boot: String,
    /// The network namespace that it describes.
    #[serde(default)]
    namespace: PathBuf,
    #[serde(default)]
    owner: Owner,
    /// The daemon's folder.
    #[serde(default)]
    folder: PathBuf,
    network: Network,
    absent: Vec<PathBuf>,
}

impl Before {
    /// Records the machine's state, unless it was recorded since the machine booted.
    pub(super) fn take(file: &Path, folder: &Path, owner: Owner) -> Outcome<()> {
        if Self::read(file)?.is_some() {
            return Ok(());
        }
        let traces = match owner {
            Owner::Docker => OF_DOCKER.as_slice(),
            Owner::Podman => OF_PODMAN.as_slice(),
        };
        let absent = traces.iter().map(PathBuf::from).filter(|path| !path.exists()).collect();
        let now = Self { folder: folder.to_owned(), network: Network::now()?, absent, ..Self::unknown(owner) };
        let text = serde_json::to_string_pretty(&now.since(Self::others(folder)))
            .doing("cannot write down how the machine is")?;
        fs::write(file, text).doing(format_args!("cannot write {}", file.display()))?;
        network::pass_bridged();
        Ok(())
    }

    /// Daemons of testbeds that run already have changed the machine: the earlier state is in their records.
    fn since(self, others: Vec<Self>) -> Self {
        let mut now = self;
        for other in others {
            if other.owner == now.owner {
                now.network = other.network;
                now.absent = other.absent;
            } else {
                now.network = now.network.with_switches_of(&other.network);
            }
        }
        now
    }

    /// The state of a machine without the engine, if none was recorded.
    pub(super) fn unknown(owner: Owner) -> Self {
        Self {
            boot: boot(),
            namespace: namespace(),
            owner,
            folder: PathBuf::new(),
            network: Network::default(),
            absent: Vec::new(),
        }
    }

    /// Records of other checkouts whose testbed was killed with its daemon: no other process restores the machine.
    pub(super) fn of_the_dead(is_alive: impl Fn(&Path) -> bool) -> Vec<(PathBuf, Self)> {
        Self::all().into_iter().filter(|(_, before)| !is_alive(&before.folder)).collect()
    }

    /// The records of all daemons in this network, with their files.
    fn all() -> Vec<(PathBuf, Self)> {
        let files = fs::read_dir("/run").into_iter().flatten().flatten().map(|entry| entry.path());
        let records = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let ours = places::PREFIX.as_bytes();
        let named = records.filter(|path| path.as_os_str().as_bytes().starts_with(ours));
        let read = named.filter_map(|path| Some((Self::read(&path).ok()??, path)));
        read.filter(|(before, _)| before.namespace == namespace()).map(|(before, path)| (path, before)).collect()
    }

    fn others(folder: &Path) -> Vec<Self> {
        Self::all().into_iter().map(|(_, before)| before).filter(|before| before.folder != folder).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The record, if there is one of this boot.
    pub(super) fn read(file: &Path) -> Outcome<Option<Self>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::failed(format_args!("cannot read {}: {error}", file.display()))),
        };
        let before: Self = serde_json::from_str(&text).doing(format_args!("cannot read {}", file.display()))?;
        Ok((before.boot == boot()).then_some(before))
    }

    pub(super) fn forget(file: &Path) -> Outcome<()> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::failed(format_args!("cannot remove {}: {error}", file.display())))
            }
            _ => Ok(()),
        }
    }

    /// Restores the machine, and returns what could not be restored, one line each. What another testbed still uses is left to
    /// the last of them, whose record has it.
    pub(super) fn restore(&self) -> Vec<String> {
        let others = Self::others(&self.folder);
        let mut left = Vec::new();
        if !others.iter().any(|other| other.owner == self.owner) {
            left.extend(self.network.restore(self.owner));
            left.extend(self.remove_traces());
        }
        if others.is_empty() {
            left.extend(self.network.restore_switches());
        }
        left
    }

    fn remove_traces(&self) -> Vec<String> {
        let mut left = Vec::new();
        for trace in &self.absent {
            remove_dead_sockets(trace);
            let removed = if trace.is_dir() { fs::remove_dir(trace) } else { fs::remove_file(trace) };
            match removed {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound) => {
                    left.push(format!("{}: {error}", trace.display()));
                }
                _ => {}
            }
        }
        left
    }
}

/// Killed shims leave their sockets behind; a socket with a listener is not theirs.
fn remove_dead_sockets(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let refused = || UnixStream::connect(entry.path()).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        if is_socket && refused() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn namespace() -> PathBuf {
    fs::read_link("/proc/self/ns/net").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_without_a_listener_are_removed() {
        let folder = std::env::temp_dir().join(format!("xtask-sockets-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let heard = UnixListener::bind(folder.join("heard")).unwrap();
        drop(UnixListener::bind(folder.join("dead")).unwrap());
        fs::write(folder.join("file"), "").unwrap();
        remove_dead_sockets(&folder);
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        drop(heard);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["file", "heard"]);
    }

    #[test]
    fn a_second_daemon_restores_what_the_first_one_found() {
        let record = |owner, rules: &str, forwards: &str, absent: &[&str]| {
            let network = serde_json::json!({
                "rules": { "iptables": rules }, "switches": { "net/ipv4/ip_forward": forwards }, "links": [],
            });
            Before {
                network: serde_json::from_value(network).unwrap(),
                absent: absent.iter().map(PathBuf::from).collect(),
                ..Before::unknown(owner)
            }
        };
        let shown = |before: &Before| serde_json::to_value(before).unwrap();
        let docker = || record(Owner::Docker, "before", "0", &["/etc/docker"]);
        let podman = record(Owner::Podman, "with docker", "1", &["/run/runc"]);
        let found = podman.since(vec![docker()]);
        assert_eq!(shown(&found), shown(&record(Owner::Podman, "with docker", "0", &["/run/runc"])));
        let second = record(Owner::Docker, "with docker", "1", &[]).since(vec![docker()]);
        assert_eq!(shown(&second), shown(&docker()));
    }
}
