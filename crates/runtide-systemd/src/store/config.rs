//! The folder of unit files that a store manages, and its options.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result, backend::setters};

use crate::config::Config;

const CONFIG: &str = "systemd.store.config";

/// Use of `systemd-analyze verify` on applied units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Verify if possible: the program is installed, and the manager's file system is this one (`root` is `/`), since
    /// it checks that the commands of a unit exist. A key that systemd does not know is refused too, which would only
    /// be a warning. Otherwise only a unit that the manager itself refuses to load is refused.
    #[default]
    Auto,
    /// Never verify: only a unit that the manager itself refuses to load is refused.
    Off,
}

/// The folder of unit files that a [`UnitStore`](super::UnitStore) manages, and its options.
///
/// ```
/// use runtide_systemd::{Config, UnitStoreConfig};
///
/// // Only units called `shop-…` belong to the store; other files in the folder are left alone.
/// let config = UnitStoreConfig::new(Config::system(), "/etc/systemd/system").with_prefix("shop-");
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnitStoreConfig {
    /// The manager. Its `root` is the root of its file system as seen from this process.
    pub systemd: Config,
    /// The folder as the manager sees it, as `/etc/systemd/system`; it must be in the manager's unit path.
    pub directory: PathBuf,
    /// Prefix of the names of the store's units; all units if empty. Two stores that share a folder need prefixes of
    /// which neither begins with the other.
    pub prefix: String,
    /// The folder for the store's own record, as seen from this process. `None`: next to the folder of units,
    /// `/etc/systemd/system.runtide/units-` and the prefix.
    pub state: Option<PathBuf>,
    /// Use of `systemd-analyze verify` on applied units.
    pub verify: Verify,
    /// Interval at which the folder is scanned for changes that no signal reported; 2 s.
    pub poll: Duration,
}

setters!(UnitStoreConfig {
    /// Sets the prefix of the names of the store's units.
    with_prefix: prefix: String;
    /// Sets the folder for the store's own record.
    with_state: state: Option<PathBuf>;
    /// Sets the use of `systemd-analyze verify` on applied units.
    with_verify: verify: Verify;
    /// Sets the interval at which the folder is scanned.
    with_poll: poll: Duration;
});

impl UnitStoreConfig {
    /// Largest document, in bytes: 1 MiB. systemd reads no longer line, and real units are far smaller.
    pub const LARGEST: usize = 1 << 20;

    /// A configuration for the unit files of this folder, as the manager sees it.
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

    /// The folder, as seen from this process.
    pub(super) fn folder(&self) -> PathBuf {
        let root = self.systemd.root.as_deref().unwrap_or(Path::new("/"));
        root.join(self.directory.strip_prefix("/").unwrap_or(&self.directory))
    }

    /// The folder of the record, as seen from this process.
    pub(super) fn record(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut sibling = self.folder().into_os_string();
            sibling.push(".runtide");
            PathBuf::from(sibling).join(format!("units-{}", self.prefix))
        })
    }

    /// True if units enabled here do not stay enabled after a reboot.
    pub(super) fn is_runtime(&self) -> bool {
        self.directory.starts_with("/run")
    }

    /// True if this process sees the same file system as the manager.
    pub(super) fn is_here(&self) -> bool {
        self.systemd.root.as_deref() == Some(Path::new("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_store_is_refused() {
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
            assert_eq!(error.context(), [("key".into(), key.to_owned())], "{error}");
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
