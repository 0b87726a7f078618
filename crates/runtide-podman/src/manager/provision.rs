//! [`Provision`]: create a container from a spec.

mod references;

use async_trait::async_trait;
use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{InstanceSpec, ProvisionManager},
};
use runtide_engine::{Request, create::Creation, late::LATEST_ANSWER, segment};
use serde::Deserialize;

use super::{
    container::is_taken,
    objects::CONTAINERS,
    spec::{self, Refused},
};
use crate::client::{Client, is_answer};

const OPERATION: &str = "podman.create";

/// The [`ProvisionManager`] of one service.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    client: Client,
}

impl Provision {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[async_trait]
impl ProvisionManager for Provision {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        let request = spec::Request::new(spec).map_err(|Refused { kind, field, message }| {
            let error =
                Error::new(kind, OPERATION, format!("{field}: {message}")).with_context("backend", self.client.id());
            match kind {
                ErrorKind::Unsupported => error.with_context("feature", field).with_context("reason", message),
                _ => error.with_context("field", field),
            }
        })?;
        let site = self.client.site(OPERATION);
        let made = Box::pin(create(&self.client, request));
        self.client.within(site, self.client.deadline(), made).await
    }
}

async fn create(client: &Client, mut request: spec::Request) -> Result<InstanceId> {
    references::resolve(client, &mut request).await?;
    for volume in &request.volumes {
        if !exists(client, "volumes", volume).await? {
            let error = client.site(OPERATION).error(ErrorKind::NotFound, "there is no such volume");
            return Err(error.with_context("volume", volume));
        }
    }
    if let Some(name) = &request.name
        && is_taken(client, OPERATION, name).await?
    {
        return Err(taken(client, name));
    }
    let name = request.name.as_deref().unwrap_or("a container without a name");
    let creation = Creation::new(client, OPERATION, name, &[CONTAINERS]);
    request.label(creation.label());
    let sent = Request::post("/containers/create").with_json(&request.body);
    let made = match creation.run(make(client.clone(), sent)).await {
        Ok((made, guard)) => {
            guard.keep();
            made
        }
        Err(refusal) => {
            let answered = is_answer(&refusal);
            if let (true, Some(name)) = (answered, &request.name)
                && is_taken(client, OPERATION, name).await?
            {
                return Err(taken(client, name));
            }
            // Podman 4 has no status for it either.
            if answered && !exists(client, "images", &segment(&request.image).to_string()).await? {
                let error = client.site(OPERATION).error(ErrorKind::NotFound, "there is no such image here: pull it");
                return Err(error.with_context("image", request.image));
            }
            return Err(refusal);
        }
    };
    let warnings = made.warnings.unwrap_or_default();
    if !warnings.is_empty() {
        tracing::warn!(backend = %client.id(), instance = made.id, ?warnings, "created, with warnings");
    }
    Ok(InstanceId::from(made.id))
}

/// Makes the container.
async fn make(client: Client, request: Request) -> Result<(Created, CreateGuard)> {
    let made = client.call(OPERATION, request, LATEST_ANSWER).await?;
    let made: Created = serde_json::from_slice(&made).map_err(|error| client.site(OPERATION).undecodable(error))?;
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

fn taken(client: &Client, name: &str) -> Error {
    client.site(OPERATION).error(ErrorKind::AlreadyExists, "another container has this name").with_context("name", name)
}

async fn call(client: &Client, request: Request) -> Result<Bytes> {
    Box::pin(client.call(OPERATION, request, client.deadline())).await
}

/// For what Podman finds by its whole name alone, and for images.
async fn exists(client: &Client, kind: &str, name: &str) -> Result<bool> {
    match call(client, Request::get(format!("/{kind}/{name}/exists"))).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the container and its anonymous volumes; a missing one is no error.
async fn remove(client: &Client, id: &str) -> Result<()> {
    let request = Request::delete(format!("/containers/{id}"));
    let request = request.with_query("force", true).with_query("volumes", true).with_query("timeout", 0);
    match call(client, request).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
