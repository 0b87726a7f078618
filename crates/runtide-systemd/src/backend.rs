//! [`SystemdBackend`]: one manager as a [`RuntimeBackend`].

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Detail, EventStream, Instance, InstanceId, ListOptions, Listing, Result, RuntimeBackend,
    RuntimeInfo, RuntimeKind, UnixSignal, WatchOptions,
    capabilities::{Support, WatchSupport},
    manager::{Effect, LifecycleManager, LogManager, ProvisionManager, StatsManager},
    watch::Driver,
};

use crate::{
    client::{Client, Server},
    config::Config,
    inspector::UnitInspector,
    journal::{JournaldOptions, JournaldStream},
    manager,
    source::UnitSource,
};

/// One systemd. See the crate's documentation.
#[derive(Debug)]
pub struct SystemdBackend {
    client: Client,
    inspector: UnitInspector,
    driver: Driver,
    lifecycle: manager::Lifecycle,
    provision: manager::Provision,
    logs: manager::Logs,
    stats: manager::Stats,
}

impl SystemdBackend {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` for an impossible configuration.
    pub fn new(config: Config) -> Result<Self> {
        let driver_options = config.driver.clone();
        let client = Client::new(config)?;
        let inspector = UnitInspector::new(client.clone(), None);
        let of_source = client.clone();
        let source = move || UnitSource::new(of_source.clone());
        Ok(Self {
            inspector,
            driver: Driver::new(client.id().clone(), driver_options, source),
            lifecycle: manager::Lifecycle::new(client.clone()),
            provision: manager::Provision::new(client.clone()),
            logs: manager::Logs::new(client.clone()),
            stats: manager::Stats::new(client.clone()),
            client,
        })
    }

    /// Sends a signal to all processes of a unit. [`LifecycleManager::kill`] reaches the main process alone.
    ///
    /// # Behavior
    /// * Processes that outlived the unit's own end (`KillMode=process`) are reached as well.
    /// * A unit that is paused takes the signal when it goes on; those that kill it takes at once.
    /// * It does not wait for what the signal brings about, and `Restart=` holds for a unit that dies of it.
    ///
    /// # Errors
    /// `NotFound`: there is no such unit. `Conflict`: it has no process. `PermissionDenied`, `Unavailable`, `Timeout`,
    /// `Cancelled` as for every verb.
    ///
    /// # Cancel safety
    /// A call that is dropped was carried out or was not.
    ///
    /// ```no_run
    /// use runtide_core::UnixSignal;
    ///
    /// # async fn example(systemd: runtide_systemd::SystemdBackend) -> runtide_core::Result<()> {
    /// systemd.kill_all(&"web.service".into(), UnixSignal::HUP).await?;
    /// # Ok(()) }
    /// ```
    pub async fn kill_all(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        self.lifecycle.kill_all(id, signal).await
    }

    /// Forgets that a unit failed, and how often it was started, as `systemctl reset-failed` does.
    ///
    /// # Behavior
    /// * `Changed`: it was failed, or showed why it once failed (`Result`) or how often it was restarted (`NRestarts`).
    ///   `Unchanged`: it showed nothing of this.
    /// * The starts that `StartLimitBurst=` counts are forgotten in either case. systemd shows that count to nobody, so that it
    ///   has no say in the answer.
    /// * A unit that is up goes on. One that rests, and that nothing refers to, systemd may unload thereby: a transient unit
    ///   is gone then.
    ///
    /// # Errors
    /// `NotFound`: it is not loaded, and so has nothing to be forgotten. `PermissionDenied`, `Unavailable`, `Timeout`,
    /// `Cancelled` as for every verb.
    ///
    /// # Cancel safety
    /// A call that is dropped was carried out or was not.
    pub async fn reset_failed(&self, id: &InstanceId) -> Result<Effect> {
        self.lifecycle.reset_failed(id).await
    }

    /// Opens a unit's output in the journal: as [`LogManager::logs`], with the place of each line, from which any later
    /// reading goes on; and, if so wished, of one run alone.
    ///
    /// # Behavior
    /// * Behind [`after`](JournaldOptions::after) nothing is lost and nothing comes twice. Of what was thrown away in the meantime
    ///   nothing is left out in silence: that is `Expired`, and to read without a cursor gives what is still there.
    /// * With `after`, `since` and `until` hold as well: what comes is behind the entry, and of that time. The entry may be of
    ///   another run than [`invocation`](JournaldOptions::invocation).
    /// * With `follow` a run is followed to its end, and of an earlier run there is nothing to follow.
    /// * A run of which the journal has nothing has no lines; where there is no such unit either, it is `NotFound`.
    ///
    /// # Errors
    /// As for [`LogManager::logs`]. `Expired`: the journal does not have the entry of the cursor any more, or it never was this
    /// unit's. `InvalidInput`: `tail` together with `after`, a run or a cursor that can be none.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    ///
    /// ```no_run
    /// use runtide_core::manager::LogOptions;
    /// use runtide_systemd::{JournaldCursor, JournaldOptions, SystemdBackend};
    ///
    /// # async fn example(systemd: SystemdBackend, kept: Option<JournaldCursor>) -> runtide_core::Result<()> {
    /// let options = JournaldOptions::default().with_logs(LogOptions::default().with_follow()).with_after(kept);
    /// let mut journal = systemd.journal(&"web.service".into(), options).await?;
    /// while let Some(entry) = journal.next().await {
    ///     let entry = entry?;
    ///     print!("{}", String::from_utf8_lossy(&entry.line.bytes));
    ///     std::fs::write("web.cursor", entry.cursor.as_str()).ok(); // the next run goes on here
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn journal(&self, id: &InstanceId, options: JournaldOptions) -> Result<JournaldStream> {
        self.logs.journal(id, options).await
    }
}

fn capabilities(config: &Config, server: Option<&Server>) -> Capabilities {
    let Some(_) = server else { return Capabilities::default() };
    let mut can = Capabilities::none("systemd has no such thing");
    can.watch = WatchSupport::Pushed;
    for (verb, support) in can.verbs_mut() {
        if ["lifecycle_", "provision_", "logs_", "stats_"].iter().any(|manager| verb.starts_with(manager)) {
            *support = Support::Yes;
        }
        if verb.starts_with("logs_") && config.root.is_none() {
            *support = Support::no("the journal of this machine cannot be seen from here");
        }
    }
    can
}

#[async_trait]
impl RuntimeBackend for SystemdBackend {
    fn id(&self) -> &BackendId {
        self.client.id()
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Systemd
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.client.config(), self.client.last_server().as_deref())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let server = self.client.identify("systemd.connect").await?;
        let can = capabilities(self.client.config(), Some(&server));
        Ok(RuntimeInfo::new(self.id().clone(), self.kind(), server.version.clone(), self.client.endpoint(), can))
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.inspector.look(&options.filter, options.detail).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        Ok(Arc::new(self.inspector.inspect_one(id, Detail::Full).await?))
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.client.check_open("systemd.watch")?;
        self.driver.watch(options)
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
        self.driver.close().await;
        Ok(())
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.lifecycle)
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        Some(&self.provision)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        Some(&self.logs)
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        Some(&self.stats)
    }
}
