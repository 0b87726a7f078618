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
    /// Creates a backend; the connection is made with the first call.
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
    /// * Processes that outlived the unit's own end (`KillMode=process`) get the signal as well.
    /// * A paused unit handles the signal when it resumes; a signal that kills takes effect at once.
    /// * The call does not wait for the effect of the signal, and `Restart=` applies to a unit that dies of it.
    ///
    /// # Errors
    /// `NotFound`: there is no such unit. `Conflict`: it has no process. `PermissionDenied`, `Unavailable`, `Timeout`,
    /// `Cancelled` as for every verb.
    ///
    /// # Cancel safety
    /// A dropped call was carried out or was not.
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

    /// Clears the failed state of a unit and its start counters, as `systemctl reset-failed` does.
    ///
    /// # Behavior
    /// * `Changed`: the unit was failed, or still had the reason of an earlier failure (`Result`) or a restart count
    ///   (`NRestarts`). `Unchanged`: it had none of these.
    /// * The starts that `StartLimitBurst=` counts are cleared in either case. systemd does not expose that count, so
    ///   it does not influence the returned effect.
    /// * A unit that is up continues. An inactive unit that nothing refers to may be unloaded by systemd as a
    ///   consequence: a transient unit is gone then.
    ///
    /// # Errors
    /// `NotFound`: the unit is not loaded, and so has no state to clear. `PermissionDenied`, `Unavailable`, `Timeout`,
    /// `Cancelled` as for every verb.
    ///
    /// # Cancel safety
    /// A dropped call was carried out or was not.
    pub async fn reset_failed(&self, id: &InstanceId) -> Result<Effect> {
        self.lifecycle.reset_failed(id).await
    }

    /// Opens a unit's output in the journal: as [`LogManager::logs`], with the cursor of each line, from which any
    /// later reader continues; optionally of one run alone.
    ///
    /// # Behavior
    /// * After [`after`](JournaldOptions::after) no line is lost and none is repeated. If the journal has dropped lines
    ///   in the meantime, that is `Expired` and never a silent gap; a read without a cursor returns the lines that are
    ///   left.
    /// * With `after`, `since` and `until` apply as well: the lines are after the entry and within that time. The entry
    ///   may be of another run than [`invocation`](JournaldOptions::invocation).
    /// * With `follow` the current run is followed to its end; an earlier run has nothing to follow.
    /// * A run without entries in the journal has no lines; if there is no such unit either, it is `NotFound`.
    ///
    /// # Errors
    /// As for [`LogManager::logs`]. `Expired`: the journal no longer has the entry of the cursor, or the entry never
    /// was this unit's. `InvalidInput`: `tail` together with `after`, or a malformed run or cursor.
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
        if verb == "lifecycle_rename" {
            *support = Support::no(manager::RENAME);
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
