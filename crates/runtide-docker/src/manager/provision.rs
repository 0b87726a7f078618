//! [`Provision`]: create a container from a spec.

use async_trait::async_trait;
use bollard::{
    models::{ContainerCreateBody, ContainerCreateResponse, HostConfig},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{InstanceSpec, NetworkAttachment, ProvisionManager},
};
use runtide_engine::{Request as Asked, create::Creation, late::LATEST_ANSWER};
use serde::Deserialize;

use super::{
    container::{Call, is_status, speaks},
    network::{self, Network},
    objects::CONTAINERS,
    spec::{Refused, Request},
};
use crate::client::Client;

const OPERATION: &str = "docker.create";

/// Minor of the first API version whose create takes several networks.
const NETWORKS_SINCE: usize = 44;

/// The [`ProvisionManager`] of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    client: Client,
}

impl Provision {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl ProvisionManager for Provision {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        let request = Request::new(spec).map_err(|Refused { kind, field, message }| match kind {
            ErrorKind::Unsupported => unsupported(&self.client, field, message),
            kind => Error::new(kind, OPERATION, format!("{field}: {message}"))
                .with_context("backend", self.client.id())
                .with_context("field", field),
        })?;
        let site = self.client.site(OPERATION);
        let made = Box::pin(create(&self.client, request));
        self.client.within(site, self.client.deadline(), made).await
    }
}

async fn create(client: &Client, mut request: Request) -> Result<InstanceId> {
    let docker = Box::pin(client.bollard()).await?;
    if let Some((field, minor)) = request.since.filter(|(_, minor)| !speaks(&docker, *minor)) {
        return Err(unsupported(client, field, format!("this server drops it in silence: API 1.{minor} has it")));
    }
    let limits = request.body.host_config.clone().unwrap_or_default();
    has_limits(client, &limits).await?;
    let networks = networks(client, &request.networks).await?;
    volumes(client, &request.volumes).await?;
    let later = request.join(speaks(&docker, NETWORKS_SINCE));
    let named = request.name.is_some();
    let name = request.name.as_deref().unwrap_or("a container without a name");
    let creation = Creation::new(client, OPERATION, name, &[CONTAINERS]);
    let (key, value) = creation.label();
    request.body.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    let options = CreateContainerOptions { name: request.name, platform: String::new() };
    let making = make(client.clone(), docker, options, request.body, named);
    let (made, guard) = Box::pin(creation.run(making)).await?;
    let finished = async {
        let call = Call { client, operation: OPERATION, id: &made.id };
        if !made.warnings.is_empty() {
            tracing::warn!(backend = %client.id(), instance = made.id, warnings = ?made.warnings, "created, with warnings");
            let got = call.inspect().await?.host_config;
            let asked = [
                ("memory_bytes", limits.memory, got.memory),
                ("milli_cpus", limits.nano_cpus, got.nano_cpus),
                ("pids", limits.pids_limit, got.pids_limit),
            ];
            if let Some((field, ..)) = asked.iter().find(|(_, asked, got)| asked.is_some() && asked != got) {
                let error = unsupported(client, field, made.warnings.join("; "));
                return Err(error.with_context("instance", &made.id));
            }
        }
        // The daemon looks at an address when the container is started, unless it is connected: which changes nothing here, since it
        // is connected already.
        for (joined, there) in networks.iter().filter(|(joined, _)| joined.address.is_some() && !later.contains(joined))
        {
            match network::attach(client, OPERATION, &there.id, &made.id, joined).await {
                Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(call.located(error)),
                _ => {}
            }
        }
        for joined in &later {
            let there = networks.iter().find(|(wanted, _)| wanted == joined).map(|(_, network)| network.id.as_str());
            let network = there.unwrap_or(joined.network.as_str());
            let attached = network::attach(client, OPERATION, network, &made.id, joined);
            attached.await.map_err(|error| call.located(error))?;
        }
        Ok(())
    };
    guard.settle(finished.await).await.map(|()| InstanceId::from(made.id))
}

/// Makes the container.
async fn make(
    client: Client,
    docker: bollard::Docker,
    options: CreateContainerOptions,
    body: ContainerCreateBody,
    named: bool,
) -> Result<(ContainerCreateResponse, CreateGuard)> {
    let made = tokio::time::timeout(LATEST_ANSWER, docker.create_container(Some(options), body)).await;
    let made = made.map_err(|_| client.site(OPERATION).timeout(LATEST_ANSWER))?.map_err(|refusal| {
        let taken = named && is_status(&refusal, 409);
        let error = client.error(OPERATION, refusal);
        if taken { error_as(&client, ErrorKind::AlreadyExists, &error) } else { error }
    })?;
    // The container exists from here on, and only this call knows its id.
    let guard = CreateGuard::new(client.site(OPERATION), &made.id, client.deadline(), {
        let (client, id) = (client.undoing(), made.id.clone());
        move || {
            let (client, id) = (client.clone(), id.clone());
            async move { remove(&client, &id).await }
        }
    });
    Ok((made, guard))
}

fn error_as(client: &Client, kind: ErrorKind, error: &Error) -> Error {
    client.site(OPERATION).error(kind, error.message())
}

/// A field that this server cannot carry out.
fn unsupported(client: &Client, field: &'static str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    let error = client.site(OPERATION).error(ErrorKind::Unsupported, format!("{field} is not supported: {reason}"));
    error.with_context("feature", field).with_context("reason", reason)
}

/// The limits that the server's kernel can enforce; a field that it does not report is not known.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Abilities {
    memory_limit: Option<bool>,
    cpu_cfs_quota: Option<bool>,
    pids_limit: Option<bool>,
}

/// Refuses a limit that the server would discard with a warning.
async fn has_limits(client: &Client, asked: &HostConfig) -> Result<()> {
    if asked.memory.is_none() && asked.nano_cpus.is_none() && asked.pids_limit.is_none() {
        return Ok(());
    }
    let info = Box::pin(client.call(OPERATION, Asked::get("/info"), client.deadline())).await?;
    let can: Abilities = super::item(client, OPERATION, &info)?;
    for (field, asked, can) in [
        ("memory_bytes", asked.memory, can.memory_limit),
        ("milli_cpus", asked.nano_cpus, can.cpu_cfs_quota),
        ("pids", asked.pids_limit, can.pids_limit),
    ] {
        if asked.is_some() && can == Some(false) {
            return Err(unsupported(client, field, "the server's control groups have no controller for it"));
        }
    }
    Ok(())
}

/// The networks to join. Each must exist, and take the container with the aliases and the address that it is to have there.
async fn networks(client: &Client, joined: &[NetworkAttachment]) -> Result<Vec<(NetworkAttachment, Network)>> {
    let mut found = Vec::with_capacity(joined.len());
    for joined in joined {
        let located = |error: Error| error.with_context("network", &joined.network);
        let network = Box::pin(network::find(client, OPERATION, joined.network.as_str())).await.map_err(located)?;
        if let Some(refused) = network::refused(&network, joined) {
            return Err(located(network::refused_at(client.site(OPERATION), refused)));
        }
        found.push((joined.clone(), network));
    }
    Ok(found)
}

/// Fails unless each of these volumes exists; their names are checked already.
async fn volumes(client: &Client, names: &[String]) -> Result<()> {
    for name in names {
        let request = Asked::get(format!("/volumes/{name}"));
        let there = Box::pin(client.call(OPERATION, request, client.deadline())).await;
        there.map_err(|error| error.with_context("volume", name))?;
    }
    Ok(())
}

/// Removes the container and its anonymous volumes; a missing one is no error.
async fn remove(client: &Client, id: &str) -> Result<()> {
    let options = RemoveContainerOptions { force: true, v: true, link: false };
    match Box::pin(client.bollard()).await?.remove_container(id, Some(options)).await {
        Err(refusal) if !is_status(&refusal, 404) => Err(client.error(OPERATION, refusal)),
        _ => Ok(()),
    }
}
