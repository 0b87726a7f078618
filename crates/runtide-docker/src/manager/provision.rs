//! [`Provision`]: create a container from a spec.

use async_trait::async_trait;
use bollard::{models::NetworkConnectRequest, query_parameters::CreateContainerOptions};
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
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
    // From here on it is there, and nobody knows its id but this call.
    let made_one = HalfMade { client: client.clone(), id: Some(made.id.clone()) };
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
    match finished.await {
        Ok(()) => {
            made_one.keep();
            Ok(InstanceId::from(made.id))
        }
        Err(error) => {
            made_one.undo().await;
            Err(error)
        }
    }
}

fn error_as(client: &Client, kind: ErrorKind, error: &Error) -> Error {
    client.site(OPERATION).error(kind, error.message())
}

/// Fails unless each of these exists; the ids are checked already.
async fn must_exist(client: &Client, what: &'static str, path: &str, ids: &[String]) -> Result<()> {
    for id in ids {
        let path = format!("/{path}/{id}");
        Box::pin(client.get_bytes(OPERATION, &path, client.deadline()))
            .await
            .map_err(|error| error.with_context(what, id))?;
    }
    Ok(())
}

/// A container that is not yet what was asked for: removed when the call fails, and also when it is dropped.
struct HalfMade {
    client: Client,
    id: Option<String>,
}

impl HalfMade {
    fn keep(mut self) {
        self.id = None;
    }

    async fn undo(mut self) {
        if let Some(id) = &self.id {
            remove(&self.client, id).await;
        }
        // After the await: dropped inside it, the removal is begun anew.
        self.id = None;
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            let client = self.client.clone();
            runtime.spawn(async move {
                let removed = tokio::time::timeout(client.deadline(), remove(&client, &id)).await;
                if removed.is_err() {
                    tracing::warn!(backend = %client.id(), instance = id, "half made, and could not be removed in time");
                }
            });
        }
    }
}

async fn remove(client: &Client, id: &str) {
    let options = bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false };
    let removed = match Box::pin(client.bollard()).await {
        Ok(docker) => match docker.remove_container(id, Some(options)).await {
            Err(refusal) if is_status(&refusal, 404) => Ok(()),
            Err(refusal) => Err(client.error(OPERATION, refusal)),
            Ok(()) => Ok(()),
        },
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(backend = %client.id(), instance = id, %error, "half made, and could not be removed");
    }
}
