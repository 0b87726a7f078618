//! [`KubeBackend`]: one cluster as a [`RuntimeBackend`].

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, EventStream, GroupKind, Instance, InstanceFilter, InstanceId, LabelMatch, ListOptions,
    Listing, Result, RuntimeBackend, RuntimeInfo, RuntimeKind, WatchOptions, capabilities::WatchSupport, watch::Driver,
};

use crate::{
    client::Client,
    config::{Config, Granularity},
    inspector::PodInspector,
    list::Selectors,
    source::PodSource,
};

/// One cluster, as a [`RuntimeBackend`]: the trait has the calls, and the crate's documentation the promises.
///
/// ```no_run
/// use runtide_core::{ListOptions, Result, RuntimeBackend};
/// use runtide_k8s::{Config, KubeBackend};
///
/// # async fn example() -> Result<()> {
/// let cluster = KubeBackend::new(Config::from_env()?)?;
/// for pod in cluster.list_instances(ListOptions::default()).await?.instances {
///     println!("{} is {}", pod.name, pod.state);
/// }
/// cluster.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct KubeBackend {
    client: Client,
    inspector: PodInspector,
    driver: Driver,
}

impl KubeBackend {
    /// A backend without a connection: the first call connects, reads the files of the access, and runs its plugin.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid configuration.
    pub fn new(config: Config) -> Result<Self> {
        let options = config.driver.clone();
        let client = Client::new(config)?;
        let of_source = client.clone();
        Ok(Self {
            inspector: PodInspector::new(client.clone()),
            driver: Driver::new(client.id().clone(), options, move || PodSource::new(of_source.clone())),
            client,
        })
    }
}

impl Drop for KubeBackend {
    fn drop(&mut self) {
        self.client.close();
    }
}

/// The conditions of a filter that the server can check, as its selectors. The rest is checked here.
fn selectors(config: &Config, filter: &InstanceFilter) -> (Option<String>, Option<String>) {
    let is_plain = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
    };
    let is_annotation = |key: &str| config.annotations.as_ref().is_some_and(|prefix| key.starts_with(prefix.as_str()));
    let labels: Vec<String> = filter
        .labels
        .iter()
        .filter_map(|condition| match condition {
            LabelMatch::Has(key) if is_plain(key) && !key.is_empty() && !is_annotation(key) => Some(key.clone()),
            LabelMatch::Lacks(key) if is_plain(key) && !key.is_empty() && !is_annotation(key) => {
                Some(format!("!{key}"))
            }
            LabelMatch::Is { key, value }
                if is_plain(key)
                    && is_plain(value)
                    && !key.is_empty()
                    && !value.contains('/')
                    && !is_annotation(key) =>
            {
                Some(format!("{key}={value}"))
            }
            _ => None,
        })
        .collect();
    let mut fields = Vec::new();
    if config.granularity == Granularity::Pod
        && let [name] = filter.names.as_slice()
        && is_plain(name)
        && !name.contains('/')
        && !name.is_empty()
    {
        fields.push(format!("metadata.name={name}"));
    }
    if let Some(group) = filter.group.as_ref().filter(|group| group.kind == GroupKind::Namespace)
        && crate::config::is_label(&group.name)
    {
        fields.push(format!("metadata.namespace={}", group.name));
    }
    let joined = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join(","));
    (joined(labels), joined(fields))
}

fn capabilities(is_connected: bool) -> Capabilities {
    if !is_connected {
        return Capabilities::default();
    }
    let mut can = Capabilities::none("not implemented in this version");
    can.watch = WatchSupport::Resumable;
    can
}

#[async_trait]
impl RuntimeBackend for KubeBackend {
    fn id(&self) -> &BackendId {
        self.client.id()
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Kubernetes
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.client.last_server().is_some())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        const CONNECT: &str = "k8s.connect";
        self.client.check_open(CONNECT)?;
        let server = self.client.identify(CONNECT).await?;
        let version = server.version.clone().unwrap_or_default();
        let mut info = RuntimeInfo::new(
            self.id().clone(),
            RuntimeKind::Kubernetes,
            version,
            self.client.endpoint(),
            capabilities(true),
        );
        info.api_version = Some("v1".to_owned());
        Ok(info)
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.client.check_open(crate::list::LIST)?;
        let (labels, fields) = selectors(self.client.config(), &options.filter);
        let selectors = Selectors::of(&self.client).and(labels, fields);
        let mut listing = self.client.list_all(&selectors, &BTreeMap::new()).await?;
        listing.instances.retain(|instance| options.filter.matches(instance));
        Ok(listing)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.client.check_open(crate::inspector::INSPECT)?;
        self.inspector.inspect_one(id).await
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.client.check_open(crate::subscription::WATCH)?;
        self.driver.watch(options)
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
        self.driver.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::Group;

    use super::*;
    use crate::access::Access;

    #[test]
    fn what_the_server_can_check_is_pushed_to_it() {
        let config = Config::new(Access::new("http://h")).with_annotations("note/");
        let filter = InstanceFilter::default()
            .with_labels(vec![
                LabelMatch::is("app.kubernetes.io/name", "web"),
                LabelMatch::Has("tier".to_owned()),
                LabelMatch::Lacks("canary".to_owned()),
                LabelMatch::is("note/x", "y"),
                LabelMatch::is("a", "x,y"),
                LabelMatch::is("b,c", "x"),
            ])
            .with_names(vec!["web-0".to_owned()])
            .with_group(Group::new(GroupKind::Namespace, "prod"));
        let (labels, fields) = selectors(&config, &filter);
        assert_eq!(labels.as_deref(), Some("app.kubernetes.io/name=web,tier,!canary"));
        assert_eq!(fields.as_deref(), Some("metadata.name=web-0,metadata.namespace=prod"));
        let containers = config.with_granularity(Granularity::Container);
        assert_eq!(selectors(&containers, &filter).1.as_deref(), Some("metadata.namespace=prod"));
        assert_eq!(selectors(&containers, &InstanceFilter::default()), (None, None));
    }
}
