//! [`TemplateBackend`]: the backend, as a user of Runtide holds it.

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Error, ErrorKind, EventStream, Instance, InstanceId, ListOptions, Listing, Result,
    RuntimeBackend, RuntimeInfo, RuntimeKind, WatchOptions,
    manager::LifecycleManager,
    watch::{Driver, Inspector},
};

use crate::{
    client::{Client, INSPECT},
    config::Config,
    normalize,
    source::TemplateSource,
};

/// A [`RuntimeBackend`]. Every manager that it has is the client itself.
#[derive(Debug)]
pub struct TemplateBackend {
    client: Client,
    driver: Driver,
}

impl TemplateBackend {
    /// A backend; nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that cannot work.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        let (id, options) = (config.id.clone(), config.driver.clone());
        let client = Client::new(config);
        let source = client.clone();
        Ok(Self { client, driver: Driver::new(id, options, move || TemplateSource::new(source.clone())) })
    }
}

impl Drop for TemplateBackend {
    fn drop(&mut self) {
        self.client.session.close();
    }
}

#[async_trait]
impl RuntimeBackend for TemplateBackend {
    fn id(&self) -> &BackendId {
        &self.client.config.id
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Custom("template".into())
    }

    fn capabilities(&self) -> Capabilities {
        self.client.capabilities()
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let server = self.client.identify().await?;
        let endpoint = self.client.config.socket.display().to_string();
        Ok(RuntimeInfo::new(self.id().clone(), self.kind(), &server.version, endpoint, self.capabilities()))
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        let mut listing = Inspector::list(&self.client, options.detail).await?;
        listing.instances.retain(|instance| options.filter.matches(instance));
        Ok(listing)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        let site = self.client.site(INSPECT);
        let item = self.client.inspect(id).await?;
        let item = item
            .ok_or_else(|| site.error(ErrorKind::NotFound, "there is no such instance").with_context("instance", id))?;
        normalize::instance(&self.client.config, &item).map_err(|failure| {
            Error::new(failure.kind, INSPECT, failure.message)
                .with_context("instance", id)
                .with_context("backend", self.id())
        })
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.driver.watch(options)
    }

    async fn close(&self) -> Result<()> {
        self.client.session.close();
        self.driver.close().await;
        Ok(())
    }

    // FORK: one accessor for each manager that your runtime supports, and none for the others.

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.client)
    }
}
