//! [`Address`] of a store: the option `--store`.

use std::{ops::Deref, path::PathBuf, str::FromStr};

use clap::Args;
#[cfg(feature = "k8s")]
use runtide_core::ErrorKind;
use runtide_core::store::{Document, ResourceRef, Revision, StoreBackend};
use runtide_examples::{Stop, Systemd, note};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::{MemoryStore, StoreOptions};
use runtide_systemd::{UnitStore, UnitStoreConfig};

/// The stores that this build has.
const FORMS: &[&str] = &[
    "memory",
    "dir:PATH (a folder, created if it is missing)",
    #[cfg(feature = "etcd")]
    "etcd:HOST:PORT",
    #[cfg(feature = "k8s")]
    "k8s: (the objects of the cluster that kubectl would use, or k8s:CONTEXT)",
    "systemd:PATH (the unit files of a folder, as systemd sees it)",
];

/// Help of `--store`.
pub(crate) fn help() -> String {
    format!("The store: {}", FORMS.join(", or "))
}

fn expected() -> String {
    let forms: Vec<_> = FORMS.iter().map(|form| form.split(" (").next().unwrap_or(form)).collect();
    format!("expected {}", forms.join(", "))
}

/// Longest time until a kind is served that was defined just now.
#[cfg(feature = "k8s")]
const SERVED: std::time::Duration = std::time::Duration::from_secs(20);

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
    /// The objects of the cluster of this context; `None`: of the current one.
    #[cfg(feature = "k8s")]
    K8s(Option<String>),
    /// The unit files in this folder, as systemd sees it.
    Systemd(PathBuf),
}

/// An open store.
pub(crate) struct Store {
    store: Box<dyn StoreBackend>,
    /// The same, where it is a cluster's: it knows which kinds are in namespaces.
    #[cfg(feature = "k8s")]
    cluster: Option<runtide_k8s::KubeStore>,
}

impl Deref for Store {
    type Target = dyn StoreBackend;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Store {
    fn new(store: impl StoreBackend + 'static) -> Self {
        Self {
            store: Box::new(store),
            #[cfg(feature = "k8s")]
            cluster: None,
        }
    }

    /// The reference of a document with the namespace that it does not name, if the store has one by default. A kind that an earlier
    /// document defined is served a moment later.
    #[cfg_attr(not(feature = "k8s"), expect(clippy::unused_async, reason = "a cluster is asked"))]
    pub(crate) async fn complete(
        &self,
        reference: ResourceRef,
        document: &Document,
        defined: bool,
    ) -> Result<ResourceRef, Stop> {
        #[cfg(feature = "k8s")]
        if let Some(cluster) = &self.cluster {
            let end = tokio::time::Instant::now() + SERVED;
            loop {
                match cluster.reference(document).await {
                    Err(error)
                        if error.kind() == ErrorKind::NotFound && defined && tokio::time::Instant::now() < end =>
                    {
                        tokio::time::sleep(SERVED / 50).await;
                    }
                    found if reference.namespace().is_none() => return Ok(found?),
                    _ => break,
                }
            }
        }
        let _ = (document, defined);
        Ok(reference)
    }
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
            #[cfg(feature = "k8s")]
            Some(("k8s", context)) => Ok(Self::K8s(Some(context.to_owned()).filter(|context| !context.is_empty()))),
            #[cfg(not(feature = "k8s"))]
            Some(("k8s", _)) => Err("a store on Kubernetes needs the feature `k8s` of these examples".to_owned()),
            Some(("systemd", path)) if path.starts_with('/') => Ok(Self::Systemd(path.into())),
            Some(("systemd", _)) => {
                Err("expected the folder as systemd sees it, as systemd:/etc/systemd/system".to_owned())
            }
            _ => Err(expected()),
        }
    }
}

impl Address {
    /// Opens the store.
    pub(crate) async fn open(&self, units: &Units) -> Result<Store, Stop> {
        if !matches!(self, Self::Systemd(_)) && (units.systemd.is_given() || units.prefix.is_some()) {
            return Err(Stop::refused("--bus, --root and --prefix are for --store systemd:PATH"));
        }
        match self {
            Self::Memory => Ok(Store::new(MemoryStore::with_options(small()))),
            Self::Dir(path) => {
                let path = path.clone();
                // Opening reads the folder and waits for the disk.
                let opening =
                    move || JournaledStore::open(&path, MemoryStore::with_options(small()), JournalOptions::default());
                let store = tokio::task::spawn_blocking(opening).await.map_err(Stop::refused)??;
                if let Some(repair) = store.repaired() {
                    note(format_args!("an unfinished end was cut off; a copy lies in {}", repair.copy.display()));
                }
                Ok(Store::new(store))
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(members) => etcd(members),
            #[cfg(feature = "k8s")]
            Self::K8s(context) => k8s(context.as_deref()),
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
                Ok(Store::new(store))
            }
        }
    }
}

/// Small revisions for people. They need not differ from an earlier run's: the store has none, or it continues in the folder.
fn small() -> StoreOptions {
    StoreOptions::default().with_first(Revision(0))
}

#[cfg(feature = "etcd")]
fn etcd(members: &[String]) -> Result<Store, Stop> {
    // Credentials and certificates come from the environment, as for etcdctl.
    let config = runtide_etcd::Config::from_env()?.with_endpoints(members);
    Ok(Store::new(runtide_etcd::EtcdStore::new(config)?))
}

#[cfg(feature = "k8s")]
fn k8s(context: Option<&str>) -> Result<Store, Stop> {
    use runtide_k8s::{Config, KubeStore, KubeStoreOptions, Selection};

    let selection = context.map_or_else(Selection::default, |context| Selection::default().with_context(context));
    let options = KubeStoreOptions::default().with_field_manager("runtide-example");
    let cluster = KubeStore::new(Config::from_env_with(&selection)?, options)?;
    Ok(Store { store: Box::new(cluster.clone()), cluster: Some(cluster) })
}
