//! Which store: `--store`.

use std::{path::PathBuf, str::FromStr};

use runtide_core::{JournaledStore, Revision, StoreBackend, journal::JournalOptions};
use runtide_examples::{Stop, note};
use runtide_memory::{MemoryStore, StoreOptions};

/// Which store.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In this process, and as long as it lives.
    Memory,
    /// In this folder, on a write-ahead log.
    Dir(PathBuf),
    /// On these members of etcd.
    Etcd(Vec<String>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            Some(("etcd", members)) if !members.is_empty() => {
                Ok(Self::Etcd(members.split(',').map(str::to_owned).collect()))
            }
            _ => Err("expected memory, dir:PATH or etcd:HOST:PORT".to_owned()),
        }
    }
}

impl Place {
    /// Opens it.
    pub(crate) async fn open(&self) -> Result<Box<dyn StoreBackend>, Stop> {
        match self {
            Self::Memory => Ok(Box::new(MemoryStore::with_options(small()))),
            Self::Dir(path) => {
                let path = path.clone();
                // It reads what is in the folder, and waits for the disk.
                let opening =
                    move || JournaledStore::open(&path, MemoryStore::with_options(small()), JournalOptions::default());
                let store = tokio::task::spawn_blocking(opening).await.map_err(Stop::refused)??;
                if let Some(repair) = store.repaired() {
                    note(format_args!("an unfinished end was cut off; a copy lies in {}", repair.copy.display()));
                }
                Ok(Box::new(store))
            }
            Self::Etcd(members) => etcd(members),
        }
    }
}

/// Revisions that people can read: this store has no earlier life to be told from, or it lies in the folder.
fn small() -> StoreOptions {
    StoreOptions::default().with_first(Revision(0))
}

#[cfg(feature = "etcd")]
fn etcd(members: &[String]) -> Result<Box<dyn StoreBackend>, Stop> {
    // Who to be, and whose certificates to believe, the environment says as it does to etcdctl.
    let config = runtide_etcd::Config::from_env()?.with_endpoints(members);
    Ok(Box::new(runtide_etcd::EtcdStore::new(config)?))
}

#[cfg(not(feature = "etcd"))]
fn etcd(members: &[String]) -> Result<Box<dyn StoreBackend>, Stop> {
    Err(Stop::refused(format_args!(
        "etcd at {} needs the feature `etcd` of these examples, and `protoc` to build it (Debian: protobuf-compiler)",
        members.join(", ")
    )))
}
