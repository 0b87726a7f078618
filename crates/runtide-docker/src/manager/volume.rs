//! [`Volumes`]: the daemon's volumes, and their contents.

mod helper;
mod transfer;

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Result,
    manager::{ByteReader, Effect, VolumeId, VolumeInfo, VolumeManager, VolumeSpec},
};
use runtide_engine::Request;
use serde::{Deserialize, Serialize};

use super::{container::is_name, item, items, spec::shown};
use crate::{client::Client, normalize::time};

/// The [`VolumeManager`] of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    client: Client,
}

impl Volumes {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn on<'a>(&'a self, operation: &'static str, volume: &'a VolumeId) -> Result<On<'a>> {
        let on = On { client: &self.client, operation, name: volume.as_str() };
        if is_name(on.name) { Ok(on) } else { Err(on.error(ErrorKind::InvalidInput, NO_NAME)) }
    }
}

/// Why a name is refused.
const NO_NAME: &str = "not the name of a volume: expected letters, digits, '_', '.', '-', the first a letter or digit";

#[async_trait]
impl VolumeManager for Volumes {
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId> {
        const OPERATION: &str = "docker.create_volume";
        let on = On { client: &self.client, operation: OPERATION, name: spec.name.as_deref().unwrap_or_default() };
        if spec.name.is_some() && (on.name.len() < 2 || !is_name(on.name)) {
            return Err(on.error(ErrorKind::InvalidInput, format!("{NO_NAME}, and two of them or more")));
        }
        let is_word = |driver: &String| !driver.is_empty() && driver.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(driver) = spec.driver.as_ref().filter(|driver| !is_word(driver)) {
            return Err(on.error(ErrorKind::InvalidInput, format!("'{}' is not a driver's name", shown(driver))));
        }
        on.bounded(create(on, spec)).await
    }

    async fn remove(&self, volume: &VolumeId) -> Result<Effect> {
        let on = self.on("docker.remove_volume", volume)?;
        let request = Request::delete(format!("/volumes/{}", on.name));
        match self.client.call(on.operation, request, self.client.deadline()).await {
            Ok(_) => Ok(Effect::Changed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
            Err(error) => Err(on.located(error)),
        }
    }

    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        const OPERATION: &str = "docker.list_volumes";
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed<'a> {
            #[serde(borrow)]
            volumes: Option<&'a serde_json::value::RawValue>,
            #[serde(default)]
            warnings: Option<Vec<String>>,
        }
        let listed = self.client.call(OPERATION, Request::get("/volumes"), self.client.deadline()).await?;
        let undecodable = |error| self.client.site(OPERATION).undecodable(error);
        let listed: Listed<'_> = serde_json::from_slice(&listed).map_err(undecodable)?;
        for warning in listed.warnings.iter().flatten() {
            // A driver that does not answer: its volumes are missing in the list.
            tracing::warn!(backend = %self.client.id(), warning, "the list of volumes is not complete");
        }
        let volumes = listed.volumes.map_or("null", |volumes| volumes.get());
        let volumes: Vec<Volume> = items(&self.client, OPERATION, volumes.as_bytes())?;
        Ok(volumes.into_iter().filter(|volume| !volume.name.is_empty()).map(Volume::info).collect())
    }

    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo> {
        let on = self.on("docker.inspect_volume", volume)?;
        Ok(on.volume().await?.info())
    }

    async fn export(&self, volume: &VolumeId) -> Result<ByteReader> {
        transfer::export(self.on("docker.export_volume", volume)?).await
    }

    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()> {
        transfer::import(self.on("docker.import_volume", volume)?, archive).await
    }
}

/// One call on one volume.
#[derive(Debug, Clone, Copy)]
struct On<'a> {
    client: &'a Client,
    operation: &'static str,
    name: &'a str,
}

impl On<'_> {
    fn bounded<T>(self, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        self.client.within(self.client.site(self.operation), self.client.deadline(), work)
    }

    fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    fn located(self, error: Error) -> Error {
        if self.name.is_empty() { error } else { error.with_context("volume", shown(self.name)) }
    }

    /// The volume, inspected now.
    async fn volume(self) -> Result<Volume> {
        let request = Request::get(format!("/volumes/{}", self.name));
        let found = self.client.call(self.operation, request, self.client.deadline()).await;
        item(self.client, self.operation, &found.map_err(|error| self.located(error))?)
    }
}

/// Body of the create request.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    driver_opts: &'a BTreeMap<String, String>,
    labels: BTreeMap<&'a str, &'a str>,
}

/// Asked for a name that is taken, the daemon answers 201 with the volume that is there, whatever its options and labels are. So of two
/// clients that create the same volume at the same moment both may be told that they did: the daemon keeps nothing to tell them apart.
async fn create(on: On<'_>, spec: &VolumeSpec) -> Result<VolumeId> {
    if spec.name.is_some() {
        match on.volume().await {
            Ok(there) => return Err(there.is_taken(on, spec)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let body = Body {
        name: spec.name.as_deref(),
        driver: spec.driver.as_deref(),
        driver_opts: &spec.options,
        labels: spec.labels.iter().collect(),
    };
    let request = Request::post("/volumes/create").with_json(&body);
    let made = on.client.call(on.operation, request, on.client.deadline()).await;
    let made: Volume = item(on.client, on.operation, &made.map_err(|error| on.located(error))?)?;
    // Another client made it this moment, and otherwise.
    if spec.name.is_some() && !made.is_as(spec) {
        return Err(made.is_taken(on, spec));
    }
    Ok(VolumeId::from(made.name))
}

/// A volume, listed or inspected.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    name: String,
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: Option<PathBuf>,
    created_at: Option<String>,
}

impl Volume {
    /// `true` if it is the volume that the spec describes.
    fn is_as(&self, spec: &VolumeSpec) -> bool {
        let labels = self.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
        spec.driver.as_ref().is_none_or(|driver| self.driver.as_ref() == Some(driver))
            && self.options.iter().flatten().eq(&spec.options)
            && labels.eq(spec.labels.iter())
    }

    fn is_taken(&self, on: On<'_>, spec: &VolumeSpec) -> Error {
        if self.is_as(spec) {
            return on.error(ErrorKind::AlreadyExists, "this name is taken");
        }
        let message = "this name is taken, by a volume with another driver, other options or other labels";
        on.error(ErrorKind::Conflict, message)
    }

    fn info(self) -> VolumeInfo {
        let mut info = VolumeInfo::new(self.name);
        info.driver = self.driver.filter(|driver| !driver.is_empty());
        info.options = self.options.unwrap_or_default();
        info.path = self.mountpoint.filter(|path| !path.as_os_str().is_empty());
        info.labels = self.labels.into_iter().flatten().collect();
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
        let json = r#"{"CreatedAt":"2024-01-01T01:00:00+01:00","Driver":"local","Labels":{"a":"b"},"Mountpoint":"/v/_data",
            "Name":"v","Options":{"type":"tmpfs"},"Scope":"local"}"#;
        let info = volume(json).info();
        assert_eq!((info.id.as_str(), info.driver.as_deref()), ("v", Some("local")));
        assert_eq!((info.labels.get("a"), info.options["type"].as_str()), (Some("b"), "tmpfs"));
        assert_eq!((info.path, info.created_at), (Some("/v/_data".into()), time("2024-01-01T00:00:00Z")));
        let bare = volume(r#"{"Name":"v","Labels":null,"Options":null,"Mountpoint":"","CreatedAt":""}"#).info();
        assert_eq!((bare.path, bare.created_at, bare.labels.is_empty()), (None, None, true));
    }

    #[test]
    fn another_volume_of_the_name_is_told_from_the_same_one() {
        let there = volume(r#"{"Name":"v","Driver":"local","Options":null,"Labels":{"a":"b"}}"#);
        let same = VolumeSpec::named("v").with_label("a", "b");
        assert!(there.is_as(&same) && there.is_as(&same.clone().with_driver("local")));
        assert!(!there.is_as(&same.clone().with_driver("nfs")));
        assert!(!there.is_as(&same.clone().with_options([("type", "tmpfs")])));
        assert!(!there.is_as(&same.with_label("c", "d")) && !there.is_as(&VolumeSpec::named("v")));
    }
}
