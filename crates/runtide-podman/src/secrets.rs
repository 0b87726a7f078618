//! [`Secrets`]: what Podman keeps for its containers, without the values.

use std::{collections::BTreeMap, time::SystemTime};

use runtide_core::{Labels, Result};
use runtide_engine::{Request, lenient, log_left_out, time};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::Client;

/// The secrets of one service, listed. Their values are never asked for.
///
/// ```no_run
/// # async fn example(podman: &runtide_podman::PodmanBackend) -> runtide_core::Result<()> {
/// for secret in podman.secrets().list().await? {
///     println!("{} ({})", secret.name, secret.driver);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Secrets {
    client: Client,
}

/// One secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secret {
    /// Podman's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of the driver that keeps its value: `file`, `pass` or `shell`.
    pub driver: String,
    /// Its labels; `None`: the service does not report them, as versions before 4.7 do not.
    pub labels: Option<Labels>,
    /// Time of its creation.
    pub created_at: Option<SystemTime>,
    /// Time of the last change.
    pub updated_at: Option<SystemTime>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Item {
    #[serde(rename = "ID")]
    id: String,
    created_at: String,
    updated_at: String,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Spec {
    name: String,
    driver: Driver,
    labels: Option<BTreeMap<String, String>>,
}

/// The driver. Its options, as the command lines of `shell`, are left alone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Driver {
    name: String,
}

impl Secrets {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Every secret.
    ///
    /// # Errors
    /// Those of a call; `Protocol` for an answer that cannot be read. One secret that cannot be read is left out, and named in the log.
    ///
    /// # Cancel safety
    /// A dropped future changes nothing.
    pub async fn list(&self) -> Result<Vec<Secret>> {
        const OPERATION: &str = "podman.secret_list";
        let client = &self.client;
        let body = client.call(OPERATION, Request::get("/secrets/json"), client.deadline()).await?;
        let items: Option<Vec<&RawValue>> =
            serde_json::from_slice(&body).map_err(|error| client.site(OPERATION).undecodable(error))?;
        let read = |item: &RawValue| {
            let (item, left_out): (Item, _) = lenient(item.get(), |json| serde_json::from_str(json))
                .inspect_err(
                    |_| tracing::warn!(backend = %client.id(), "a secret is left out of the list: it cannot be read"),
                )
                .ok()?;
            log_left_out(client.id(), "a secret in the list", &left_out);
            (!item.id.is_empty()).then(|| Secret {
                id: item.id,
                name: item.spec.name,
                driver: item.spec.driver.name,
                labels: item.spec.labels.map(|labels| labels.into_iter().collect()),
                created_at: time(&item.created_at),
                updated_at: time(&item.updated_at),
            })
        };
        Ok(items.into_iter().flatten().filter_map(read).collect())
    }
}
