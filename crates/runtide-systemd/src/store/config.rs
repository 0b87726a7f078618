//! Which folder of unit files a store is, and how it looks after it.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result, backend::setters};

use crate::config::Config;

const CONFIG: &str = "systemd.store.config";

/// Use of `systemd-analyze verify` on what is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Where it can: the program is here, and the manager's file system is this one (`root` is `/`), since it looks for the
    /// commands that a unit names. A key that systemd does not know is refused too, of which it would only warn. Elsewhere, what the manager itself refuses to load is refused.
    #[default]
    Auto,
    /// Never: only what the manager itself refuses to load is refused.
    Off,
}

/// Which folder of unit files a [`UnitStore`](super::UnitStore) is, and how it looks after it.
///
/// ```
/// use runtide_systemd::{Config, UnitStoreConfig};
///
/// // Only units called `shop-…` are the store's; what else lies in the folder is left alone.
/// let config = UnitStoreConfig::new(Config::system(), "/etc/systemd/system").with_prefix("shop-");
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnitStoreConfig {
    /// The manager. Its `root` says where its file system is seen from here.
    pub systemd: Config,
    /// The folder, as the manager sees it, as `/etc/systemd/system`; one of those in which it looks for units.
    pub directory: PathBuf,
    /// Only units whose names begin with it are the store's; all if empty. Two stores with a folder in common need prefixes of
    /// which neither begins with the other.
    pub prefix: String,
    /// The folder for the store's own record, as it is seen from here. `None`: beside the units' own,
    /// `/etc/systemd/system.runtide/units-` and the prefix.
    pub state: Option<PathBuf>,
    /// Use of `systemd-analyze verify` on what is applied.
    pub verify: Verify,
    /// How often the folder is looked at for changes that nobody told of; 2 s.
    pub poll: Duration,
}

setters!(UnitStoreConfig {
    /// Only units whose names begin with it are the store's.
    with_prefix: prefix: String;
    /// The folder for the store's own record.
    with_state: state: Option<PathBuf>;
    /// Use of `systemd-analyze verify` on what is applied.
    with_verify: verify: Verify;
    /// How often the folder is looked at.
    with_poll: poll: Duration;
});

impl UnitStoreConfig {
    /// The most bytes of a document: 1 MiB. systemd takes no longer line, and nobody writes such units.
    pub const LARGEST: usize = 1 << 20;

    /// The unit files of this folder, as the manager sees it.
    pub fn new(systemd: Config, directory: impl Into<PathBuf>) -> Self {
        Self {
            systemd,
            directory: directory.into(),
            prefix: String::new(),
            state: None,
            verify: Verify::default(),
            poll: Duration::from_secs(2),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let error = |kind, key: &'static str, why: &str| Err(Error::new(kind, CONFIG, why).with_context("key", key));
        let plain =
            |path: &Path| path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !self.directory.is_absolute() || !plain(&self.directory) || self.directory.file_name().is_none() {
            return error(ErrorKind::InvalidInput, "directory", "it is an absolute path, without . and ..");
        }
        if self.systemd.root.is_none() {
            let why = "the manager's file system cannot be seen from here, so that no unit file can be written";
            return error(ErrorKind::Unsupported, "root", why);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if !self.prefix.bytes().all(allowed) || self.prefix.len() > 128 || self.prefix.starts_with('.') {
            let why = "a prefix is of at most 128 letters, digits and : - _ . \\ @, and does not begin with a dot";
            return error(ErrorKind::InvalidInput, "prefix", why);
        }
        if self.poll < Duration::from_millis(10) {
            return error(ErrorKind::InvalidInput, "poll", "less than 10 ms would be all that the store does");
        }
        Ok(())
    }

    /// The folder, as it is seen from here.
    pub(super) fn folder(&self) -> PathBuf {
        let root = self.systemd.root.as_deref().unwrap_or(Path::new("/"));
        root.join(self.directory.strip_prefix("/").unwrap_or(&self.directory))
    }

    /// The folder of the record.
    pub(super) fn record(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut beside = self.folder().into_os_string();
            beside.push(".runtide");
            PathBuf::from(beside).join(format!("units-{}", self.prefix))
        })
    }

    /// True if nothing that is enabled here outlives a reboot.
    pub(super) fn is_runtime(&self) -> bool {
        self.directory.starts_with("/run")
    }

    /// True if what this process sees is what the manager sees.
    pub(super) fn is_here(&self) -> bool {
        self.systemd.root.as_deref() == Some(Path::new("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_store_is_refused() {
        let units = |directory: &str| UnitStoreConfig::new(Config::system(), directory);
        assert!(units("/etc/systemd/system").with_prefix("shop-").validate().is_ok());
        for (config, key) in [
            (units("etc/systemd"), "directory"),
            (units("/"), "directory"),
            (units("/etc/../systemd"), "directory"),
            (units("/etc/systemd/system").with_prefix("a/b"), "prefix"),
            (units("/etc/systemd/system").with_prefix(".."), "prefix"),
            (units("/etc/systemd/system").with_poll(Duration::ZERO), "poll"),
            (UnitStoreConfig::new(Config::system().with_root(None), "/etc/systemd/system"), "root"),
        ] {
            let error = config.validate().unwrap_err();
            assert_eq!(error.context(), [("key", key.to_owned())], "{error}");
        }
    }

    #[test]
    fn the_folder_is_seen_below_the_root() {
        let config = Config::system().with_root(PathBuf::from("/mnt/other"));
        let config = UnitStoreConfig::new(config, "/etc/systemd/system").with_prefix("shop-");
        assert_eq!(config.folder(), Path::new("/mnt/other/etc/systemd/system"));
        assert_eq!(config.record(), Path::new("/mnt/other/etc/systemd/system.runtide/units-shop-"));
        assert!(!config.is_here() && !config.is_runtime());
    }
}
