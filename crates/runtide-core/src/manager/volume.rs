//! Volumes: create, remove, export, import.

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf, time::SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    labels::Labels,
    manager::{ByteReader, Effect},
    names::{names, setters},
};

names! {
    /// Name of a volume.
    VolumeId;
}

/// Manages volumes. Contents are transferred as tar streams that keep the files' owners.
#[async_trait]
pub trait VolumeManager: Debug + Send + Sync {
    /// Creates a volume.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, even if the runtime itself would hand out the volume that is there; `Conflict`
    /// instead of it if that volume has another driver, other options or other labels than this one would have.
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId>;

    /// Removes a volume; `Unchanged` if it is already gone.
    ///
    /// A volume of Docker or Podman has no id but its name: it is the one that has the name when the runtime carries the removal out, which
    /// is another one if another client removed it and made it again in the meantime.
    ///
    /// # Errors
    /// `Conflict` while instances use it.
    async fn remove(&self, volume: &VolumeId) -> Result<Effect>;

    /// Lists every volume that the runtime has.
    async fn list(&self) -> Result<Vec<VolumeInfo>>;

    /// Returns one volume, as the runtime reports it now.
    ///
    /// # Errors
    /// `NotFound` if there is no such volume.
    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo>;

    /// Returns the contents of a volume as a tar stream. The names in it are relative to the volume (`./data/a`), owners are
    /// numbers, and modes, symbolic links and hard links are kept.
    ///
    /// The stream ends without an error only if the archive is complete. Dropping it ends the export.
    ///
    /// # Errors
    /// `NotFound` if there is no such volume.
    async fn export(&self, volume: &VolumeId) -> Result<ByteReader>;

    /// Adds the contents of a tar stream to a volume: a file of the same name is replaced, others stay. Owners are kept as numbers.
    /// It returns once the contents are there; a failure or a drop may leave a part of them.
    ///
    /// # Errors
    /// `NotFound` if there is no such volume; `InvalidInput` for a stream that is no tar archive, or breaks off.
    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()>;
}

/// Description of a volume to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VolumeSpec {
    /// Name of the volume; the runtime picks one if `None`.
    pub name: Option<String>,
    /// Volume driver; the runtime's default if `None`.
    pub driver: Option<String>,
    /// The driver's own options by their keys, passed through.
    pub options: BTreeMap<String, String>,
    /// Labels that the user gives the volume.
    pub labels: Labels,
}

setters!(VolumeSpec {
    /// Sets the driver.
    with_driver: driver = String;
    /// Sets the user's labels.
    with_labels: labels: Labels;
});

impl VolumeSpec {
    /// Makes the description of a volume of this name; the runtime chooses all else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Sets the driver's own options, by their keys.
    #[must_use]
    pub fn with_options(mut self, options: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.options = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }
}

/// One volume, as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Name of the volume.
    pub id: VolumeId,
    /// Driver that stores it.
    pub driver: Option<String>,
    /// The driver's own options, by their keys.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Path of the contents on the runtime's host, where the driver has one.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Labels that the user gave the volume.
    pub labels: Labels,
    /// Time at which it was created.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
}

impl VolumeInfo {
    /// Makes the information of a volume whose name alone is known.
    pub fn new(id: impl Into<VolumeId>) -> Self {
        Self {
            id: id.into(),
            driver: None,
            options: BTreeMap::new(),
            path: None,
            labels: Labels::default(),
            created_at: None,
        }
    }
}
