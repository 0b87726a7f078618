//! Credentials for a registry: given by the caller, or stored by the `podman` command.

use std::collections::BTreeMap;

use runtide_core::{
    ErrorKind, Result,
    manager::{Credentials, Secret},
};
use runtide_engine::image::{ClientConfig, Name, RegistryAuth, config_header};

use crate::{client::Client, environment::Environment};

/// The header of a pull. Without one the service takes what it has stored itself; with none in it, that file of its own is not read.
pub(super) async fn of_pull(
    client: &Client,
    operation: &'static str,
    reference: &str,
    name: &Name,
    given: Credentials,
) -> Result<Option<Secret>> {
    let site = client.site(operation);
    match given {
        Credentials::Anonymous => Ok(Some(config_header(&BTreeMap::new()))),
        Credentials::User { name: user, password } => {
            Ok(Some(RegistryAuth::password(name.registry(), user, password).header()))
        }
        Credentials::IdentityToken(token) => Ok(Some(RegistryAuth::identity_token(name.registry(), token).header())),
        Credentials::Stored if is_short(reference, name) => {
            // The registry is the service's to find, so that it gets those of each, as from the command.
            let all = of_every_registry(client, operation).await;
            Ok((!all.is_empty()).then(|| config_header(&all)))
        }
        Credentials::Stored => {
            for config in stored(client, operation).await? {
                if let Some(auth) = config.auth_of_repository(site, &name.repository()).await? {
                    return Ok(Some(auth.header()));
                }
            }
            Ok(None)
        }
        _ => Err(site.error(ErrorKind::Unsupported, "this kind of credentials is not known here")),
    }
}

/// No registry is named.
fn is_short(reference: &str, name: &Name) -> bool {
    name.registry() == "docker.io" && !["docker.io/", "index.docker.io/"].iter().any(|host| reference.starts_with(host))
}

/// Those of every registry that the command knows. What cannot be read is left out, and named in the log; so is what the service would
/// refuse the whole request for.
pub(super) async fn of_every_registry(client: &Client, operation: &'static str) -> BTreeMap<String, RegistryAuth> {
    let site = client.site(operation);
    let mut all = match stored(client, operation).await {
        Ok(stored) => ClientConfig::all(site, &stored).await,
        Err(error) => {
            tracing::warn!(%error, "the request is without the stored credentials");
            BTreeMap::new()
        }
    };
    all.retain(|registry, _| {
        let is_key = is_key(registry);
        if !is_key {
            tracing::warn!(%registry, "its credentials are left out: it is no registry");
        }
        is_key
    });
    all
}

/// A registry or a namespace in one, as the service takes it.
fn is_key(registry: &str) -> bool {
    let bare = registry.trim_start_matches("http://").trim_start_matches("https://");
    // Of an address with a scheme the host alone counts.
    let key = if bare.len() == registry.len() { bare } else { bare.split('/').next().unwrap_or_default() };
    let path = key.split_once('/').map_or("", |(_, path)| path);
    !key.is_empty() && !key.contains('@') && !path.contains(':')
}

/// The command's files, in its order. A file that was named is all there is.
async fn stored(client: &Client, operation: &'static str) -> Result<Vec<ClientConfig>> {
    let site = client.site(operation);
    let files = match &client.config().auth_file {
        Some(file) => vec![file.clone()],
        None => Environment::of_process().auth_files(),
    };
    let mut found = Vec::new();
    for file in files {
        found.push(ClientConfig::read_file(site, &file).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_the_service_refuses_are_none() {
        for (key, is) in [
            ("quay.io", true),
            ("localhost:5000", true),
            ("quay.io/a/b", true),
            ("https://index.docker.io/v1/", true),
            ("http://h:5000/v2/a:b", true),
            ("a@b", false),
            ("h/a:1", false),
            ("https://u@h/", false),
            ("", false),
        ] {
            assert_eq!(is_key(key), is, "{key}");
        }
    }

    #[test]
    fn a_name_without_a_registry_is_short() {
        for (text, short) in [
            ("busybox:1", true),
            ("a/b:1", true),
            ("docker.io/a/b:1", false),
            ("localhost/a:1", false),
            ("h:5000/a:1", false),
        ] {
            assert_eq!(is_short(text, &Name::parse(text).unwrap()), short, "{text}");
        }
    }
}
