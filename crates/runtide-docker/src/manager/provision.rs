//! [`Provision`]: create a container from a spec.

use async_trait::async_trait;
use bollard::{
    models::NetworkConnectRequest,
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{InstanceSpec, ProvisionManager},
};

use super::{
    container::{Call, is_status, speaks},
    spec::{Invalid, Request},
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
        let request = Request::new(spec).map_err(|Invalid { field, message }| {
            Error::new(ErrorKind::InvalidInput, OPERATION, format!("{field}: {message}"))
                .with_context("backend", self.client.id())
                .with_context("field", field)
        })?;
        let site = self.client.site(OPERATION);
        let made = Box::pin(create(&self.client, request));
        self.client.within(site, self.client.deadline(), made).await
    }
}

async fn create(client: &Client, mut request: Request) -> Result<InstanceId> {
    let docker = Box::pin(client.bollard()).await?;
    must_exist(client, "network", "networks", &request.networks).await?;
    must_exist(client, "volume", "volumes", &request.volumes).await?;
    let later = request.join(speaks(&docker, NETWORKS_SINCE));
    let limits = request.body.host_config.clone().unwrap_or_default();
    let named = request.name.is_some();
    let options = CreateContainerOptions { name: request.name, platform: String::new() };
    let made = docker.create_container(Some(options), request.body).await.map_err(|refusal| {
        let taken = named && is_status(&refusal, 409);
        let error = client.error(OPERATION, refusal);
        if taken { error_as(client, ErrorKind::AlreadyExists, &error) } else { error }
    })?;
    // The container exists from here on, and only this call knows its id.
    let guard = CreateGuard::new(client.site(OPERATION), &made.id, client.deadline(), {
        let (client, id) = (client.clone(), made.id.clone());
        move || {
            let (client, id) = (client.clone(), id.clone());
            async move { remove(&client, &id).await }
        }
    });
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
                let reason = made.warnings.join("; ");
                return Err(call
                    .error(ErrorKind::Unsupported, format!("this server cannot limit {field}"))
                    .with_context("feature", field)
                    .with_context("reason", reason));
            }
        }
        for network in later {
            let body = NetworkConnectRequest { container: made.id.clone(), endpoint_config: None };
            docker.connect_network(&network, body).await.map_err(|refusal| call.refused(refusal))?;
        }
        Ok(())
    };
    guard.settle(finished.await).await.map(|()| InstanceId::from(made.id))
}

fn error_as(client: &Client, kind: ErrorKind, error: &Error) -> Error {
    client.site(OPERATION).error(kind, error.message())
}

/// Fails unless each of these exists; the ids are checked already.
async fn must_exist(client: &Client, what: &'static str, path: &str, ids: &[String]) -> Result<()> {
    for id in ids {
        let path = format!("/{path}/{id}");
        Box::pin(client.call(OPERATION, runtide_engine::Request::get(path), client.deadline()))
            .await
            .map_err(|error| error.with_context(what, id))?;
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
