//! Volumes: what a daemon reports of one, what a description may be, and the transfer of contents.

mod transfer;

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use runtide_core::{
    ErrorKind,
    manager::{VolumeInfo, VolumeSpec},
};
use serde::Deserialize;

pub use self::transfer::Transfer;
use crate::{
    create::users_labels,
    names::{is_name, is_word, shown},
};

/// Why a name is refused.
pub const NO_NAME: &str =
    "not the name of a volume: expected letters, digits, '_', '.', '-', the first a letter or digit";

/// Checks the description of a volume that is to be created.
///
/// # Errors
/// The reason why it makes no sense.
pub fn check(spec: &VolumeSpec) -> Result<(), String> {
    if spec.name.as_deref().is_some_and(|name| name.len() < 2 || !is_name(name)) {
        return Err(format!("{NO_NAME}, and two of them or more"));
    }
    match spec.driver.as_deref().filter(|driver| !is_word(driver)) {
        Some(driver) => Err(format!("'{}' is not a driver's name", shown(driver))),
        None => Ok(()),
    }
}

/// A volume, listed or inspected.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: Option<String>,
    /// The driver's options.
    pub options: Option<BTreeMap<String, String>>,
    /// Its labels, that of its create among them.
    pub labels: Option<BTreeMap<String, String>>,
    /// Path of the contents on the daemon's host.
    pub mountpoint: Option<PathBuf>,
    /// Time of its create, in the daemon's words.
    pub created_at: Option<String>,
    /// Containers for which it is mounted now; Podman alone reports it.
    pub mount_count: u64,
}

impl Volume {
    /// `true` if it is the volume that the spec describes.
    pub fn is_as(&self, spec: &VolumeSpec) -> bool {
        spec.driver.as_ref().is_none_or(|driver| self.driver.as_ref() == Some(driver))
            && self.options.iter().flatten().eq(&spec.options)
            && users_labels(self.labels.iter().flatten()) == users_labels(spec.labels.iter())
    }

    /// `true` if it has this label.
    pub fn has_label(&self, (key, value): (&str, &str)) -> bool {
        self.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
    }

    /// `true` if it is still the volume that was inspected before, under the same name. A daemon may have made a missing one again.
    pub fn is_still(&self, before: &Self) -> bool {
        self.created_at == before.created_at && self.labels == before.labels
    }

    /// The reason for which a volume of this spec cannot be created beside this one.
    pub fn taken(&self, spec: &VolumeSpec) -> (ErrorKind, &'static str) {
        if self.is_as(spec) {
            return (ErrorKind::AlreadyExists, "this name is taken");
        }
        let message = "this name is taken, by a volume with another driver, other options or other labels";
        (ErrorKind::Conflict, message)
    }

    /// The public view of it; `time` reads the daemon's times.
    pub fn info(self, time: impl FnOnce(&str) -> Option<SystemTime>) -> VolumeInfo {
        let mut info = VolumeInfo::new(self.name);
        info.driver = self.driver.filter(|driver| !driver.is_empty());
        info.options = self.options.unwrap_or_default();
        info.path = self.mountpoint.filter(|path| !path.as_os_str().is_empty());
        info.labels = users_labels(self.labels.into_iter().flatten());
        info.created_at = self.created_at.as_deref().and_then(time);
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(json: &str) -> Volume {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_volume_is_read_with_its_options() {
        let json = r#"{"CreatedAt":"then","Driver":"local","Labels":{"a":"b","runtide.create":"1"},"Mountpoint":"/v/_data",
            "Name":"v","Options":{"type":"tmpfs"},"Scope":"local"}"#;
        let info = volume(json).info(|text| (text == "then").then_some(SystemTime::UNIX_EPOCH));
        assert_eq!((info.id.as_str(), info.driver.as_deref()), ("v", Some("local")));
        assert_eq!((info.labels.get("a"), info.labels.len(), info.options["type"].as_str()), (Some("b"), 1, "tmpfs"));
        assert_eq!((info.path, info.created_at), (Some("/v/_data".into()), Some(SystemTime::UNIX_EPOCH)));
        let bare = volume(r#"{"Name":"v","Labels":null,"Options":null,"Mountpoint":"","CreatedAt":""}"#).info(|_| None);
        assert_eq!((bare.path, bare.created_at, bare.labels.is_empty()), (None, None, true));
    }

    #[test]
    fn another_volume_of_the_name_is_told_from_the_same_one() {
        let there = volume(r#"{"Name":"v","Driver":"local","Options":null,"Labels":{"a":"b","runtide.create":"1"}}"#);
        let same = VolumeSpec::named("v").with_label("a", "b");
        assert!(there.is_as(&same) && there.is_as(&same.clone().with_driver("local")));
        assert!(!there.is_as(&same.clone().with_driver("nfs")));
        assert!(!there.is_as(&same.clone().with_options([("type", "tmpfs")])));
        assert!(!there.is_as(&same.with_label("c", "d")) && !there.is_as(&VolumeSpec::named("v")));
        assert!(there.has_label(("runtide.create", "1")) && !there.has_label(("runtide.create", "2")));
    }

    #[test]
    fn hostile_words_are_refused() {
        for name in ["", "a", "..", "../v", "a/b", "a b", "a\0", "é", "-ab"] {
            assert!(check(&VolumeSpec::named(name)).is_err(), "{name:?}");
        }
        assert!(check(&VolumeSpec::named("ab").with_driver("a b")).is_err());
        assert!(check(&VolumeSpec::default()).is_ok(), "the daemon picks a name");
    }
}
