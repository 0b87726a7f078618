//! [`DockerBackend`]: one daemon as a [`RuntimeBackend`](runtide_core::RuntimeBackend).

use runtide_core::Result;

use crate::{client::Client, config::Config, manager};

/// One Docker daemon.
#[derive(Debug)]
pub struct DockerBackend {
    client: Client,
    lifecycle: manager::Lifecycle,
    provision: manager::Provision,
    logs: manager::Logs,
}

impl DockerBackend {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidInput` for an impossible configuration or TLS files that cannot be read.
    pub fn new(config: Config) -> Result<Self> {
        let client = Client::new(config)?;
        Ok(Self {
            lifecycle: manager::Lifecycle::new(client.clone()),
            provision: manager::Provision::new(client.clone()),
            logs: manager::Logs::new(client.clone()),
            client,
        })
    }
}
