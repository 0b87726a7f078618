//! [`Volumes`]: the service's volumes, and their contents.
//!
//! A volume is found by its whole name: a removal would also take the beginning of one for it.

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
    is_name, item, items,
    late::LATEST_ANSWER,
    shown,
    volume::{NO_NAME, Transfer, Volume, check},
};
use serde::Serialize;

use super::objects::VOLUMES;
use crate::{
    client::{Client, Podman, is_answer},
    normalize::time,
};

/// Options that Podman adds for its own use, out of what it reads in the option `o`.
const DERIVED: [&str; 5] = ["GID", "INODES", "NOQUOTA", "SIZE", "UID"];

/// Parts of the option `o` whose value Podman 4 reads without a look if there is one.
const WITH_VALUE: [&str; 2] = ["size", "inodes"];

/// The [`VolumeManager`] of one service.
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
        const OPERATION: &str = "podman.create_volume";
        let on = On { client: &self.client, operation: OPERATION, name: spec.name.as_deref().unwrap_or_default() };
        check(spec).map_err(|why| on.error(ErrorKind::InvalidInput, why))?;
        let mut parts = spec.options.get("o").into_iter().flat_map(|options| options.split(','));
        if let Some(part) = parts.find(|part| WITH_VALUE.contains(&part.to_ascii_lowercase().as_str())) {
            return Err(on.error(ErrorKind::InvalidInput, format!("the option '{part}' needs a value: {part}=…")));
        }
        on.bounded(create(on, spec)).await
    }

    async fn remove(&self, volume: &VolumeId) -> Result<Effect> {
        let on = self.on("podman.remove_volume", volume)?;
        on.bounded(remove(on)).await
    }

    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        const OPERATION: &str = "podman.list_volumes";
        let listed = self.client.call(OPERATION, Request::get("/volumes/json"), self.client.deadline()).await?;
        let volumes: Vec<Volume> = items(&self.client, OPERATION, &listed)?;
        let named = volumes.into_iter().filter(|volume| !volume.name.is_empty());
        Ok(named.map(|volume| without_derived(volume).info(time)).collect())
    }

    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo> {
        let on = self.on("podman.inspect_volume", volume)?;
        Ok(on.volume().await?.info(time))
    }

    async fn export(&self, volume: &VolumeId) -> Result<ByteReader> {
        transfer::export(self.on("podman.export_volume", volume)?).await
    }

    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()> {
        transfer::import(self.on("podman.import_volume", volume)?, archive).await
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

    async fn send(self, request: Request) -> Result<bytes::Bytes> {
        let sent = Box::pin(self.client.call(self.operation, request, self.client.deadline())).await;
        sent.map_err(|error| self.located(error))
    }

    fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    fn unsupported(self, feature: &'static str, reason: &str) -> Error {
        let error = self.error(ErrorKind::Unsupported, reason);
        error.with_context("feature", feature).with_context("reason", reason)
    }

    fn located(self, error: Error) -> Error {
        if self.name.is_empty() { error } else { error.with_context("volume", shown(self.name)) }
    }

    fn taken(self, there: &Volume, spec: &VolumeSpec) -> Error {
        let (kind, message) = there.taken(spec);
        self.error(kind, message)
    }

    fn transfer(self) -> Transfer<Podman> {
        Transfer::new(self.client, self.operation, self.name)
    }

    /// The volume, inspected now.
    async fn volume(self) -> Result<Volume> {
        let found = self.send(Request::get(format!("/volumes/{}/json", self.name))).await?;
        let volume: Volume = item(self.client, self.operation, &found)?;
        if volume.name == self.name {
            return Ok(without_derived(volume));
        }
        Err(self.error(ErrorKind::NotFound, "there is no such volume"))
    }

    async fn volume_if_present(self) -> Result<Option<Volume>> {
        match self.volume().await {
            Ok(volume) => Ok(Some(volume)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The volume with the options that were given for it.
fn without_derived(mut volume: Volume) -> Volume {
    if let Some(options) = &mut volume.options {
        options.retain(|key, _| !DERIVED.contains(&key.as_str()));
    }
    volume
}

/// Body of the create request.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    options: &'a BTreeMap<String, String>,
    labels: BTreeMap<&'a str, &'a str>,
}

/// Podman refuses a name that is taken, and has no status for it.
async fn create(on: On<'_>, spec: &VolumeSpec) -> Result<VolumeId> {
    let there = async || if spec.name.is_some() { on.volume_if_present().await } else { Ok(None) };
    if let Some(there) = there().await? {
        return Err(on.taken(&there, spec));
    }
    let creation = Creation::new(on.client, on.operation, on.name, &[VOLUMES]);
    let mut labels: BTreeMap<&str, &str> = spec.labels.iter().collect();
    labels.extend([creation.label()]);
    let body = Body { name: spec.name.as_deref(), driver: spec.driver.as_deref(), options: &spec.options, labels };
    let request = Request::post("/volumes/create").with_json(&body);
    let (client, operation, this) = (on.client.clone(), on.operation, creation.clone());
    let creating = async move {
        let made = client.call(operation, request, LATEST_ANSWER).await?;
        let guard = this.guard();
        Ok((item::<Volume>(&client, operation, &made)?, guard))
    };
    match creation.run(creating).await {
        Ok((made, guard)) => {
            guard.keep();
            Ok(VolumeId::from(made.name))
        }
        Err(refusal) if is_answer(&refusal) => match there().await? {
            Some(there) => Err(on.taken(&there, spec)),
            None => Err(refused(on, refusal)),
        },
        Err(error) => Err(on.located(error)),
    }
}

/// A refusal by its meaning: Podman has no status for any.
fn refused(on: On<'_>, refusal: Error) -> Error {
    let message = refusal.message();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["required plugin missing"]) {
        return on.error(ErrorKind::NotFound, message);
    }
    if has(&["not supported"]) {
        return on.unsupported("volumes_manage", message);
    }
    if has(&["invalid argument", "invalid volume option", "cannot convert", "must provide", "cannot be negative"]) {
        return on.error(ErrorKind::InvalidInput, message);
    }
    on.located(refusal)
}

async fn remove(on: On<'_>) -> Result<Effect> {
    if on.volume_if_present().await?.is_none() {
        return Ok(Effect::Unchanged);
    }
    match on.send(Request::delete(format!("/volumes/{}", on.name))).await {
        Ok(_) => Ok(Effect::Changed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
        Err(error) => Err(error),
    }
}
