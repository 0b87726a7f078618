//! [`Volumes`]: the daemon's volumes, and their contents.

mod helper;
mod transfer;

use std::collections::BTreeMap;

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Result,
    manager::{ByteReader, Effect, VolumeId, VolumeInfo, VolumeManager, VolumeSpec},
};
use runtide_engine::{
    Request,
    create::Creation,
    is_name,
    late::LATEST_ANSWER,
    shown,
    volume::{NO_NAME, Transfer, Volume, check},
};
use serde::{Deserialize, Serialize};

use super::{item, items, objects::VOLUMES};
use crate::{
    client::{Client, Docker},
    normalize::time,
};

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

#[async_trait]
impl VolumeManager for Volumes {
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId> {
        const OPERATION: &str = "docker.create_volume";
        let on = On { client: &self.client, operation: OPERATION, name: spec.name.as_deref().unwrap_or_default() };
        check(spec).map_err(|why| on.error(ErrorKind::InvalidInput, why))?;
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
        Ok(volumes.into_iter().filter(|volume| !volume.name.is_empty()).map(|volume| volume.info(time)).collect())
    }

    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo> {
        let on = self.on("docker.inspect_volume", volume)?;
        Ok(on.volume().await?.info(time))
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

    fn taken(self, there: &Volume, spec: &VolumeSpec) -> Error {
        let (kind, message) = there.taken(spec);
        self.error(kind, message)
    }

    fn transfer(self) -> Transfer<Docker> {
        Transfer::new(self.client, self.operation, self.name)
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

/// Asked for a name that is taken, the daemon answers 201 with the volume that is there, whatever its options and labels are. The label of
/// this create says if it made it: of two clients that create the same volume at the same moment, one is told that the name is taken.
async fn create(on: On<'_>, spec: &VolumeSpec) -> Result<VolumeId> {
    if spec.name.is_some() {
        match on.volume().await {
            Ok(there) => return Err(on.taken(&there, spec)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let creation = Creation::new(on.client, on.operation, on.name, &[VOLUMES]);
    let mut labels: BTreeMap<&str, &str> = spec.labels.iter().collect();
    labels.extend([creation.label()]);
    let body = Body { name: spec.name.as_deref(), driver: spec.driver.as_deref(), driver_opts: &spec.options, labels };
    let request = Request::post("/volumes/create").with_json(&body);
    let (client, operation, this) = (on.client.clone(), on.operation, creation.clone());
    let creating = async move {
        let made = client.call(operation, request, LATEST_ANSWER).await?;
        // Dropped with the call, it removes the volume if it has the label, and no other client's.
        let guard = this.guard();
        Ok((item::<Volume>(&client, operation, &made)?, guard))
    };
    let (made, guard) = creation.run(creating).await.map_err(|error| on.located(error))?;
    guard.keep();
    if made.has_label(creation.label()) {
        return Ok(VolumeId::from(made.name));
    }
    Err(on.taken(&made, spec))
}
