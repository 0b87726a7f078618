//! Networks: create, remove, connect, disconnect.

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{ConnectOptions, Effect, NetworkId, NetworkInfo, NetworkManager, NetworkSpec},
};

use crate::{client::Client, fault::Call};

#[async_trait]
impl NetworkManager for Client {
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        self.ask(Call::Networks, |state| state.create_network(spec)).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<Effect> {
        self.ask(Call::Networks, |state| state.remove_network(network)).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        self.ask(Call::Networks, |state| Ok(state.list_networks())).await
    }

    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo> {
        self.ask(Call::Networks, |state| state.inspect_network(network)).await
    }

    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect> {
        if !options.aliases.is_empty() {
            let cannot = "nothing in memory resolves names: aliases are not supported";
            return Err(Error::new(ErrorKind::Unsupported, Call::Links.operation(), cannot)
                .with_context("backend", &self.config.id));
        }
        self.ask(Call::Links, |state| state.connect_network(network, instance, options.address)).await
    }

    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect> {
        self.ask(Call::Links, |state| state.disconnect_network(network, instance)).await
    }
}
