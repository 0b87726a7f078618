//! [`Address`] of a store: the option `--store`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use runtide_core::store::{Revision, StoreBackend};
use runtide_examples::{Stop, Systemd, note};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::{MemoryStore, StoreOptions};
use runtide_systemd::{UnitStore, UnitStoreConfig};

/// Help of `--store`: what this build has.
#[cfg(feature = "etcd")]
pub(crate) const HELP: &str = "The store: memory, dir:PATH (a folder, created if it is missing), etcd:HOST:PORT or \
    systemd:PATH (the unit files of a folder, as systemd sees it)";
#[cfg(not(feature = "etcd"))]
pub(crate) const HELP: &str = "The store: memory, dir:PATH (a folder, created if it is missing) or systemd:PATH (the unit \
    files of a folder, as systemd sees it)";

#[cfg(feature = "etcd")]
const EXPECTED: &str = "expected memory, dir:PATH, etcd:HOST:PORT or systemd:PATH";
#[cfg(not(feature = "etcd"))]
const EXPECTED: &str = "expected memory, dir:PATH or systemd:PATH";

/// The store to use.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// In memory, until this process ends.
    Memory,
    /// A write-ahead log in this folder.
    Dir(PathBuf),
    /// These members of etcd.
    #[cfg(feature = "etcd")]
    Etcd(Vec<String>),
    /// The unit files in this folder, as systemd sees it.
    Systemd(PathBuf),
}

/// The unit files to use.
#[derive(Args, Debug)]
pub(crate) struct Units {
    #[command(flatten)]
    systemd: Systemd,
    /// Only units whose names begin with it are in a store of systemd; else all that lie in its folder
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            #[cfg(feature = "etcd")]
            Some(("etcd", members)) if !members.is_empty() => {
                Ok(Self::Etcd(members.split(',').map(str::to_owned).collect()))
            }
            #[cfg(not(feature = "etcd"))]
            Some(("etcd", _)) => Err("a store on etcd needs the feature `etcd` of these examples".to_owned()),
            Some(("systemd", path)) if path.starts_with('/') => Ok(Self::Systemd(path.into())),
            Some(("systemd", _)) => {
                Err("expected the folder as systemd sees it, as systemd:/etc/systemd/system".to_owned())
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

impl Address {
    /// Opens the store.
    pub(crate) async fn open(&self, units: &Units) -> Result<Box<dyn StoreBackend>, Stop> {
        if !matches!(self, Self::Systemd(_)) && (units.systemd.is_given() || units.prefix.is_some()) {
            return Err(Stop::refused("--bus, --root and --prefix are for --store systemd:PATH"));
        }
        match self {
            Self::Memory => Ok(Box::new(MemoryStore::with_options(small()))),
            Self::Dir(path) => {
                let path = path.clone();
                // Opening reads the folder and waits for the disk.
                let opening =
                    move || JournaledStore::open(&path, MemoryStore::with_options(small()), JournalOptions::default());
                let store = tokio::task::spawn_blocking(opening).await.map_err(Stop::refused)??;
                if let Some(repair) = store.repaired() {
                    note(format_args!("an unfinished end was cut off; a copy lies in {}", repair.copy.display()));
                }
                Ok(Box::new(store))
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(members) => etcd(members),
            Self::Systemd(path) => {
                let config = units.systemd.answering().await?;
                // The store would create a mistyped folder, and show an empty store.
                let seen = config.root.as_deref().map(|root| root.join(path.strip_prefix("/").unwrap_or(path)));
                if let Some(seen) = seen.filter(|seen| !seen.is_dir()) {
                    return Err(Stop::refused(format_args!("{}: there is no such folder", seen.display())));
                }
                let config = UnitStoreConfig::new(config, path).with_prefix(units.prefix.clone().unwrap_or_default());
                let store = UnitStore::new(config, MemoryStore::with_options(small()))?;
                for (file, why) in store.skipped().await? {
                    note(format_args!("skipped: {file}: {why}"));
                }
                Ok(Box::new(store))
            }
        }
    }
}

/// Small revisions for people. They need not differ from an earlier run's: the store has none, or it continues in the folder.
fn small() -> StoreOptions {
    StoreOptions::default().with_first(Revision(0))
}

#[cfg(feature = "etcd")]
fn etcd(members: &[String]) -> Result<Box<dyn StoreBackend>, Stop> {
    // Credentials and certificates come from the environment, as for etcdctl.
    let config = runtide_etcd::Config::from_env()?.with_endpoints(members);
    Ok(Box::new(runtide_etcd::EtcdStore::new(config)?))
}
