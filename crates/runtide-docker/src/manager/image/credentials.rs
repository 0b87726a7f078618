//! Credentials for a registry: given by the caller, or stored by the `docker` command.

use std::collections::BTreeMap;

use runtide_core::{ErrorKind, Result, manager::Credentials};
use runtide_engine::image::{ClientConfig, RegistryAuth};

use crate::{client::Client, environment::Environment};

const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

pub(super) async fn of_registry(
    client: &Client,
    operation: &'static str,
    registry: &str,
    given: Credentials,
) -> Result<Option<RegistryAuth>> {
    let site = client.site(operation);
    match given {
        Credentials::Anonymous => Ok(None),
        Credentials::User { name, password } => Ok(Some(RegistryAuth::password(registry, name, password))),
        Credentials::IdentityToken(token) => Ok(Some(RegistryAuth::identity_token(registry, token))),
        Credentials::Stored => {
            for config in stored(client, operation).await? {
                if let Some(auth) = config.auth(site, registry).await? {
                    return Ok(Some(auth));
                }
            }
            Ok(None)
        }
        _ => Err(site.error(ErrorKind::Unsupported, "this kind of credentials is not known here")),
    }
}

/// Those of every registry that the command knows, for a build. What cannot be read is left out, and named in the log.
pub(super) async fn of_every_registry(client: &Client, operation: &'static str) -> BTreeMap<String, RegistryAuth> {
    let site = client.site(operation);
    match stored(client, operation).await {
        Ok(stored) => ClientConfig::all(site, &stored).await,
        Err(error) => {
            tracing::warn!(%error, "the build is without the stored credentials");
            BTreeMap::new()
        }
    }
}

/// The command's configuration, the variable first. A folder that was named is all there is.
async fn stored(client: &Client, operation: &'static str) -> Result<Vec<ClientConfig>> {
    let site = client.site(operation);
    if let Some(folder) = &client.config().client_folder {
        return Ok(vec![ClientConfig::read(site, folder).await?]);
    }
    let environment = Environment::of_process();
    let mut found = Vec::new();
    if let Some(value) = environment.text(VARIABLE)? {
        found.push(ClientConfig::of_variable(site, &value)?);
    }
    if let Some(folder) = environment.docker_folder() {
        found.push(ClientConfig::read(site, &folder).await?);
    }
    Ok(found)
}
