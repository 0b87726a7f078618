//! The managers that operations are composed of, and a composition, broken in one way.

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    Health, Instance, InstanceId, Labels, Result, RuntimeBackend, RuntimeBackendExt,
    manager::{
        ConnectOptions, Effect, NetworkId, NetworkInfo, NetworkManager, NetworkSpec, RemoveOptions, Sidecar,
        SidecarManager, SidecarSpec,
    },
};
use runtide_memory::MemoryBackend;

use super::table::Mutant;

#[derive(Debug)]
pub(crate) struct Composed {
    how: Mutant,
    inner: Arc<MemoryBackend>,
}

impl Composed {
    pub(crate) fn new(how: Mutant, inner: Arc<MemoryBackend>) -> Self {
        Self { how, inner }
    }

    fn networks(&self) -> &dyn NetworkManager {
        self.inner.networks().expect("the memory runtime has networks")
    }
}

#[async_trait]
impl NetworkManager for Composed {
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        let mut spec = spec.clone();
        if self.how == Mutant::NetworksWithoutLabels {
            spec.labels = Labels::new();
        }
        self.networks().create(&spec).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<Effect> {
        self.networks().remove(network).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        self.networks().list().await
    }

    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo> {
        self.networks().inspect(network).await
    }

    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect> {
        self.networks().connect(network, instance, options).await
    }

    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect> {
        self.networks().disconnect(network, instance).await
    }
}

/// Runs one step after the other, and stops at the first error.
#[async_trait]
impl SidecarManager for Composed {
    async fn start_sidecar(&self, spec: &SidecarSpec) -> Result<Sidecar> {
        let mut instance = spec.instance.clone();
        let mut network = None;
        if let Some(wanted) = &spec.network {
            let made = self.networks().create(wanted).await?;
            instance.networks.push(made.clone().into());
            network = Some(made);
        }
        let id = self.inner.provision().expect("the memory runtime creates").create(&instance).await?;
        self.inner.lifecycle().expect("the memory runtime has verbs").start(&id).await?;
        self.inner.wait_for(&id, |now| now.health == Some(Health::Healthy), spec.deadline).await?;
        Ok(Sidecar::new(id, network, "mutant".into()))
    }

    async fn inspect(&self, sidecar: &Sidecar) -> Result<Arc<Instance>> {
        self.inner.inspect(&sidecar.id).await
    }

    async fn stop(&self, sidecar: &Sidecar) -> Result<Effect> {
        let lifecycle = self.inner.lifecycle().expect("the memory runtime has verbs");
        lifecycle.remove(&sidecar.id, RemoveOptions::default().with_kill()).await
    }
}
