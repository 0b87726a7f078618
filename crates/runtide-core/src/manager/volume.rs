//! Volumes: create, remove, export, import.

use std::{fmt::Debug, time::SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    labels::Labels,
    manager::{ByteReader, Effect},
    names::names,
};

names! {
    /// A volume by its name.
    VolumeId;
}

/// Volumes. Contents travel as tar streams with ownership kept.
#[async_trait]
pub trait VolumeManager: Debug + Send + Sync {
    /// Creates one.
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId>;

    /// Removes one; what is gone already is `Unchanged`.
    ///
    /// # Errors
    /// `Conflict` while instances use it.
    async fn remove(&self, volume: &VolumeId) -> Result<Effect>;

    /// Every volume that is there.
    async fn list(&self) -> Result<Vec<VolumeInfo>>;

    /// One of them.
    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo>;

    /// Its contents.
    async fn export(&self, volume: &VolumeId) -> Result<ByteReader>;

    /// Adds an archive's contents to it.
    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()>;
}

/// Specification of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VolumeSpec {
    /// No name: the runtime picks one.
    pub name: Option<String>,
    /// `None`: the runtime's default.
    pub driver: Option<String>,
    /// The user's labels.
    pub labels: Labels,
}

impl VolumeSpec {
    /// A volume of this name, everything else the runtime's choice.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub id: VolumeId,
    /// Driver that keeps it.
    pub driver: Option<String>,
    /// The user's labels.
    pub labels: Labels,
    /// When it was made.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
}

impl VolumeInfo {
    /// A volume of which nothing more is known.
    pub fn new(id: impl Into<VolumeId>) -> Self {
        Self { id: id.into(), driver: None, labels: Labels::default(), created_at: None }
    }
}
