//! [`Provision`]: create a container from a spec.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{InstanceSpec, ProvisionManager},
};
use runtide_engine::{Request, segment};
use serde::Deserialize;
use uuid::Uuid;

use super::spec::{self, Refused};
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

/// The annotation by which a container is known as the one of a request that got no answer.
const MARK: &str = "runtide.create";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Marked {
    id: String,
    config: MarkedConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MarkedConfig {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
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
    must_exist(client, "network", "networks", &request.networks).await?;
    must_exist(client, "volume", "volumes", &request.volumes).await?;
    if let Some(name) = &request.name
        && exists(client, "containers", name).await?
    {
        return Err(taken(client, name));
    }
    // A request without an answer may have been carried out. Without a name there is nothing to remove it by; and what has the name
    // may be another client's, so that the mark decides.
    let mark = Uuid::new_v4().to_string();
    let is_marked = request.mark(MARK, &mark);
    let guard = request.name.clone().filter(|_| is_marked).map(|name| {
        let owner = client.clone();
        CreateGuard::new(client.site(OPERATION), name.clone(), client.deadline(), move || {
            let (client, name, mark) = (owner.clone(), name.clone(), mark.clone());
            async move { remove(&client, &name, &mark).await }
        })
    });
    let sent = call(client, Request::post("/containers/create").with_json(&request.body)).await;
    let made = match (sent, guard) {
        (Ok(body), guard) => {
            let made = serde_json::from_slice::<Created>(&body);
            match (guard, &made) {
                (Some(guard), Ok(_)) => guard.keep(),
                (Some(guard), Err(_)) => guard.undo().await,
                (None, _) => {}
            }
            made.map_err(|error| client.site(OPERATION).undecodable(error))?
        }
        (Err(refusal), guard) => {
            let answered = is_answer(&refusal);
            if let Some(guard) = guard {
                // An answer says that nothing was created: what has this name is another's.
                if answered { guard.keep() } else { guard.undo().await }
            }
            if let (true, Some(name)) = (answered, &request.name)
                && exists(client, "containers", name).await?
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

fn taken(client: &Client, name: &str) -> Error {
    client.site(OPERATION).error(ErrorKind::AlreadyExists, "another container has this name").with_context("name", name)
}

async fn call(client: &Client, request: Request) -> Result<Bytes> {
    Box::pin(client.call(OPERATION, request, client.deadline())).await
}

/// Fails unless each of these exists; the names are checked already.
async fn must_exist(client: &Client, what: &'static str, kind: &str, names: &[String]) -> Result<()> {
    for name in names {
        if !exists(client, kind, name).await? {
            let error = client.site(OPERATION).error(ErrorKind::NotFound, format!("there is no such {what}"));
            return Err(error.with_context(what, name));
        }
    }
    Ok(())
}

async fn exists(client: &Client, kind: &str, name: &str) -> Result<bool> {
    match call(client, Request::get(format!("/{kind}/{name}/exists"))).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the container of this name and its anonymous volumes, if it has this mark; a missing one is no error.
async fn remove(client: &Client, name: &str, mark: &str) -> Result<()> {
    let body = match call(client, Request::get(format!("/containers/{name}/json"))).await {
        Ok(body) => body,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let there: Marked = serde_json::from_slice(&body).map_err(|error| client.site(OPERATION).undecodable(error))?;
    if there.config.annotations.and_then(|mut all| all.remove(MARK)).is_none_or(|found| found != mark) {
        return Ok(());
    }
    let path = format!("/containers/{}", there.id);
    let request = Request::delete(path).with_query("force", true).with_query("volumes", true);
    match call(client, request.with_query("timeout", 0)).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
