//! [`KubeBackend`]: one cluster as a [`RuntimeBackend`].

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, EventStream, GroupKind, Instance, InstanceFilter, InstanceId, LabelMatch, ListOptions,
    Listing, Result, RuntimeBackend, RuntimeInfo, RuntimeKind, WatchOptions,
    capabilities::{Support, WatchSupport},
    manager::{ExecManager, LifecycleManager, LogManager, LogOptions, LogStream, StatsManager},
    watch::Driver,
};

use crate::{
    client::Client,
    config::{Config, Granularity},
    inspector::PodInspector,
    list::Selectors,
    manager::{
        CONTAINER, Exec, KILL, Lifecycle, Logs, PAUSE, PortForward, RENAME, RESIZE, SIGNAL, START, Stats, forward,
    },
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
    lifecycle: Lifecycle,
    logs: Logs,
    exec: Exec,
    stats: Stats,
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
            lifecycle: Lifecycle::new(client.clone()),
            logs: Logs::new(client.clone()),
            exec: Exec::new(client.clone()),
            stats: Stats::new(client.clone()),
            driver: Driver::new(client.id().clone(), options, move || PodSource::new(of_source.clone())),
            client,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Opens the output of the run before the present one, which the node keeps until the next: `kubectl logs --previous`.
    ///
    /// # Errors
    /// As [`LogManager::logs`]; `NotFound` where no run was before, or its output is no longer there, and `InvalidInput` for
    /// [`LogOptions::follow`]: it is over.
    ///
    /// ```no_run
    /// # async fn example(cluster: &runtide_k8s::KubeBackend, id: &runtide_core::InstanceId) -> runtide_core::Result<()> {
    /// use runtide_core::manager::LogOptions;
    ///
    /// let mut last_words = cluster.logs_of_previous_run(id, LogOptions::default().with_tail(Some(20))).await?;
    /// while let Some(line) = last_words.next().await {
    ///     print!("{}", String::from_utf8_lossy(&line?.bytes));
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn logs_of_previous_run(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        self.logs.previous(id, &options).await
    }
}

impl KubeBackend {
    /// Opens a connection to a port inside a pod, as `kubectl port-forward` does for each that it accepts; [`PortForward`] says what it
    /// carries. The node has taken the request when this returns, and dials the port then: that nothing listens there is an error of the
    /// stream. With containers as instances, it is their pod's port.
    ///
    /// # Errors
    /// `NotFound` for a pod that is not there; `Conflict` for one that does not run; `Unavailable` from a node that does not know it yet; `PermissionDenied` without the right to get
    /// `pods/portforward`, and, from 1.35 on, to create it; `Timeout` if the node does not take it within [`Config::deadline`].
    ///
    /// # Cancel safety
    /// Can be dropped at any time. Dropping the stream closes the connection.
    ///
    /// ```no_run
    /// # async fn example(cluster: &runtide_k8s::KubeBackend, id: &runtide_core::InstanceId) -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    /// let (mut near, _) = listener.accept().await?;
    /// let mut far = cluster.forward(id, 80.try_into()?).await?;
    /// tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    /// # Ok(()) }
    /// ```
    pub async fn forward(&self, id: &InstanceId, port: NonZeroU16) -> Result<PortForward> {
        forward(&self.client, id, port).await
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

/// The reason why there is no provision.
const CREATE: &str = "a pod starts when it is created: declare it in the store";

fn capabilities(is_connected: bool, granularity: Granularity) -> Capabilities {
    if !is_connected {
        return Capabilities::default();
    }
    let mut can = Capabilities::none("not implemented in this version");
    can.watch = WatchSupport::Resumable;
    let of_pods = || if granularity == Granularity::Pod { Support::Yes } else { Support::no(CONTAINER) };
    can.lifecycle_stop = of_pods();
    can.lifecycle_remove = of_pods();
    can.lifecycle_wait = Support::Yes;
    can.lifecycle_start = Support::no(START);
    can.lifecycle_restart = Support::no(START);
    can.lifecycle_stop_signal = Support::no(SIGNAL);
    can.lifecycle_kill = Support::no(KILL);
    can.lifecycle_pause = Support::no(PAUSE);
    can.lifecycle_rename = Support::no(RENAME);
    can.logs_read = Support::Yes;
    can.logs_follow = Support::Yes;
    can.exec_run = Support::Yes;
    can.exec_attach = Support::Yes;
    can.stats_read = Support::Yes;
    can.exec_resize = Support::no(RESIZE);
    can.provision_create = Support::no(CREATE);
    for verb in [&mut can.networks_manage, &mut can.networks_connect] {
        *verb = Support::no("the cluster has one network, and pods are on it");
    }
    for verb in [&mut can.images_manage, &mut can.images_pull, &mut can.images_import, &mut can.images_save] {
        *verb = Support::no("each node has its own images, and the API does not manage them");
    }
    can.images_build = Support::no("Kubernetes builds no images");
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
        capabilities(self.client.last_server().is_some(), self.client.config().granularity)
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
            capabilities(true, self.client.config().granularity),
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

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.lifecycle)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        Some(&self.logs)
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        Some(&self.exec)
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        Some(&self.stats)
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
