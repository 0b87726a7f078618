//! The objects that a spec names, by what leads to no other: Podman takes the beginning of an id for the id.

use runtide_core::{Error, ErrorKind, Result};
use runtide_engine::{Request, is_name, is_named, item, shown};
use serde::Deserialize;
use serde_json::Value;

use super::{OPERATION, call};
use crate::{
    client::Client,
    manager::{network, spec},
};

/// Names the networks as they are called, the pod and the secrets by their ids.
pub(super) async fn resolve(client: &Client, request: &mut spec::Request) -> Result<()> {
    networks(client, request).await?;
    if let Some(pod) = request.body.get_mut("pod") {
        id_of(client, "pod", pod).await?;
    }
    for secret in request.body.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        // Go reads the member in any case.
        let members = secret.as_object_mut().into_iter().flatten();
        for (_, source) in members.filter(|(key, _)| key.eq_ignore_ascii_case("source")) {
            id_of(client, "secret", source).await?;
        }
    }
    Ok(())
}

async fn networks(client: &Client, request: &mut spec::Request) -> Result<()> {
    for given in &request.networks {
        let name = network::name_of(client, OPERATION, given).await?;
        let Some(joined) = request.body.get_mut("networks").and_then(Value::as_object_mut) else { continue };
        if let Some(endpoint) = joined.remove(given)
            && joined.insert(name, endpoint).is_some()
        {
            let error = client.site(OPERATION).error(ErrorKind::InvalidInput, "networks: this one is joined twice");
            return Err(error.with_context("network", given).with_context("field", "networks"));
        }
    }
    Ok(())
}

/// The answer to an inspection of a pod, or of a secret.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Found {
    #[serde(alias = "ID")]
    id: String,
    name: String,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Spec {
    name: String,
}

/// Replaces a name of an object of this kind with its id. What is no text is left for the service to refuse.
async fn id_of(client: &Client, kind: &'static str, value: &mut Value) -> Result<()> {
    let Some(given) = value.as_str() else { return Ok(()) };
    let site = client.site(OPERATION);
    let located = |error: Error| error.with_context(kind, shown(given)).with_context("field", "native");
    let missing = || located(site.error(ErrorKind::NotFound, format!("there is no such {kind}")));
    if !is_name(given) {
        return Err(located(site.error(ErrorKind::InvalidInput, format!("not the id or name of a {kind}"))));
    }
    let found = call(client, Request::get(format!("/{kind}s/{given}/json"))).await;
    let found = found.map_err(|error| if error.kind() == ErrorKind::NotFound { missing() } else { located(error) })?;
    let found: Found = item(client, OPERATION, &found)?;
    let name = if found.name.is_empty() { &found.spec.name } else { &found.name };
    if !is_name(&found.id) || !is_named(given, &found.id, name) {
        return Err(missing());
    }
    *value = Value::from(found.id);
    Ok(())
}
