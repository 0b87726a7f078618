//! Controls a real systemd from outside, with a proxy between its bus and the backend.

use std::{
    collections::HashMap,
    fmt::Write as _,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Change, Dialect, Done, Fact, Fault, Harness, Held, Law, Life, Obstacle, Output, Supported, Timing, Tuning,
    Workload,
    testbed::{Testbed, Turn},
};
use runtide_core::{
    Instance, InstanceId, InstanceKind, InstanceState, Labels, RuntimeBackend, UnixSignal,
    manager::{InstanceSpec, LogSource},
};
use runtide_systemd::{Config, Selection, SystemdBackend};
use zbus::Variant;

use super::{
    bus::Bus,
    machine::{self, Machine, Properties, Settings},
    name::known_as,
    observe::Observer,
};

/// Id of the backend.
const ID: &str = "systemd:conformance";
const LINE: u64 = 1_024;

/// Laws that do not apply to systemd.
pub(crate) const SKIPS: &[(Law, &str)] =
    &[(Law::M7, "operations are composed of networks and images, which systemd does not have")];

/// The part of the machine that one test uses.
pub(crate) struct SystemdHarness {
    machine: Arc<Machine>,
    bus: Bus,
    observer: Observer,
    version: String,
    root: Option<PathBuf>,
    testbed: Option<Testbed>,
    prefix: String,
    folder: PathBuf,
    /// The created units, to create again after the machine was killed, as a disk would keep them.
    made: Mutex<HashMap<InstanceId, (String, String)>>,
    /// Only one test at a time: some of them kill the machine.
    _turn: Turn,
}

fn broken(reason: impl Into<String>) -> Absent {
    Absent::broken(known_as(), reason)
}

fn done<T>(result: Result<T, String>) -> Done<T> {
    result.map_err(Obstacle::Failed)
}

impl SystemdHarness {
    pub(crate) async fn start() -> Result<Self, Absent> {
        let Ok(address) = std::env::var("RUNTIDE_TEST_SYSTEMD") else {
            return Err(Absent::unset(known_as(), "RUNTIDE_TEST_SYSTEMD is not set: cargo xtask testbed up systemd"));
        };
        let turn = Turn::on("systemd").await.map_err(|error| broken(format!("the lock: {error}")))?;
        let machine = Arc::new(Machine::at(&address));
        let Some(socket) = machine.socket() else {
            return Err(broken(format!("RUNTIDE_TEST_SYSTEMD is '{address}', expected unix:path=…")));
        };
        let version = machine.version().await.map_err(|error| broken(format!("{address}: {error}")))?;
        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let prefix = format!("rt{:x}", nanos & 0xff_ffff_ffff);
        let folder = std::env::temp_dir().join(format!("runtide-conformance-{prefix}"));
        std::fs::create_dir_all(&folder).map_err(|error| broken(format!("{}: {error}", folder.display())))?;
        let bus = Bus::start(&folder.join("bus"), &socket).map_err(|error| broken(format!("the proxy: {error}")))?;
        let observer = Observer::start(Arc::clone(&machine), prefix.clone()).await;
        let harness = Self {
            observer: observer.map_err(|error| broken(format!("the observer: {error}")))?,
            machine,
            bus,
            version,
            root: std::env::var_os("RUNTIDE_TEST_SYSTEMD_ROOT").map(PathBuf::from),
            testbed: Testbed::of(known_as()),
            prefix,
            folder,
            made: Mutex::default(),
            _turn: turn,
        };
        Ok(harness)
    }

    /// Removes the units that this test, or a killed one before it, left behind.
    async fn clear(&self) {
        let Ok(units) = self.machine.units("rt*.service").await else { return };
        for unit in units {
            // A unit that cannot be removed now does no harm: names are never used again.
            let _ = self.remove(&InstanceId::from(unit)).await;
        }
    }

    fn shell(work: &Workload) -> Option<String> {
        Some(match work {
            Workload::Idle => "trap '' HUP; trap 'exit 0' TERM INT; sleep 100000 & wait".to_owned(),
            Workload::Exit { after, code } => format!("sleep {}; exit {code}", after.as_secs_f64()),
            Workload::Print { bytes } => {
                let lines = bytes / LINE;
                let print = "BEGIN { p = sprintf(\"%1008s\", \".\"); for (i = 0; i < n; i++) { printf \"%s%014d%s\\n\", c, i, p; \
                             fflush() } }";
                format!("print() {{ awk -v c=$1 -v n={lines} '{print}'; }}; print o & print e >&2; wait")
            }
            _ => return None,
        })
    }

    /// Re-executes the manager, and returns once it answers again.
    async fn reexecute(&self) -> Supported {
        // It leaves the bus without an answer.
        let Ok(connection) = self.machine.dial().await else { return Supported::No("no connection".into()) };
        let systemd = "org.freedesktop.systemd1";
        let manager = "org.freedesktop.systemd1.Manager";
        let called =
            connection.call_method(Some(systemd), "/org/freedesktop/systemd1", Some(manager), "Reexecute", &());
        let _ = tokio::time::timeout(Duration::from_secs(30), called).await;
        self.answers().await
    }

    /// Returns once the manager answers again, and the observer is connected to it.
    async fn answers(&self) -> Supported {
        let answers = async {
            self.machine.version().await?;
            self.observer.caught_up().await
        };
        answers.await.map_or_else(Supported::No, |()| Supported::Yes)
    }

    async fn make(&self, holder: &str, unit: &str, shell: &str) -> Result<(), String> {
        let exec = vec![("/bin/sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned(), shell.to_owned()], false)];
        let settings: Settings<'_> = vec![
            ("ExecStart", Variant::from(exec)),
            ("TimeoutStopUSec", Variant::from(5_000_000_u64)),
            ("StartLimitIntervalUSec", Variant::from(0_u64)),
            ("LogRateLimitIntervalUSec", Variant::from(0_u64)),
        ];
        self.machine.create(holder, unit, settings).await
    }

    async fn properties(&self, id: &InstanceId) -> Done<Option<Properties>> {
        done(self.machine.properties(id.as_str()).await)
    }

    async fn verb(&self, method: &str, id: &InstanceId) -> Done<()> {
        done(self.machine.manager(method, &(id.as_str(), "replace")).await.map(drop))
    }
}

/// The instance of a unit's properties; fields that this does not read stay unknown.
fn instance(unit: &str, seen: &Properties) -> Instance {
    let began = machine::number(seen, "InactiveExitTimestampMonotonic") != 0;
    let state = match (machine::text(seen, "ActiveState").as_str(), machine::text(seen, "SubState").as_str()) {
        ("active", "running") if machine::text(seen, "FreezerState") == "frozen" => InstanceState::Paused,
        ("active", "running") => InstanceState::Running,
        ("active", "exited") => InstanceState::Stopped,
        ("activating", "auto-restart") => InstanceState::Restarting,
        ("activating", _) => InstanceState::Starting,
        ("deactivating", _) => InstanceState::Stopping,
        ("failed", _) => InstanceState::Failed,
        ("inactive", _) if began => InstanceState::Stopped,
        ("inactive", _) => InstanceState::Created,
        _ => InstanceState::Unknown,
    };
    let name = unit.strip_suffix(".service").unwrap_or(unit);
    let mut instance = Instance::new(ID, unit, name, InstanceKind::Service, state);
    if began {
        instance.incarnation = machine::invocation(seen).map(Into::into);
    }
    if state.is_ended() {
        instance.exit = machine::exit(seen);
    }
    let environment = machine::texts(seen, "Environment");
    let labels = environment.iter().find_map(|one| one.strip_prefix("RUNTIDE_LABELS="));
    let labels: std::collections::BTreeMap<String, String> =
        labels.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    instance.labels = Some(labels.into_iter().collect::<Labels>());
    instance.restarts = u32::try_from(machine::number(seen, "NRestarts")).ok();
    instance
}

#[async_trait]
impl Harness for SystemdHarness {
    fn name(&self) -> &'static str {
        known_as()
    }

    fn is_real(&self) -> bool {
        true
    }

    fn version(&self) -> Option<String> {
        Some(self.version.clone())
    }

    fn timing(&self) -> Timing {
        Timing::REAL
    }

    fn dialect(&self) -> Dialect {
        let mut dialect = Dialect::FULL;
        dialect.history = false;
        // The kernel reports only that an inspection is needed.
        dialect.pauses = false;
        dialect
    }

    fn skips(&self) -> &'static [(Law, &'static str)] {
        SKIPS
    }

    fn is_console(&self) -> bool {
        true
    }

    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>> {
        let mut config = Config::system()
            .with_address(format!("unix:path={}", self.folder.join("bus").display()))
            .with_root(self.root.clone())
            .with_id(runtide_core::BackendId::from(ID))
            .with_selection(Selection::default().with_pattern(format!("{}*", self.prefix)))
            .with_driver(tuning.driver.clone());
        if let Some(max_silence) = tuning.max_silence {
            config = config.with_max_silence(max_silence);
        }
        if let Some(deadline) = tuning.deadline {
            config = config.with_deadline(deadline).with_connect_deadline(deadline).with_job_deadline(deadline);
        }
        match SystemdBackend::new(config) {
            Ok(backend) => Ok(Arc::new(backend)),
            Err(error) => Err(Obstacle::failed(error)),
        }
    }

    async fn create(&self, name: &str, work: &Workload) -> Done<InstanceId> {
        let Some(shell) = Self::shell(work) else { return Err(Obstacle::unsupported(format!("{work:?}"))) };
        let unit = format!("{}-{name}.service", self.prefix);
        // The same holder as the backend's, so that the backend finds it.
        let holder = format!("runtide:{}.slice", unit.replace('_', "_5f").replace('-', "_2d"));
        done(self.make(&holder, &unit, &shell).await)?;
        let id = InstanceId::from(unit);
        self.made.lock().unwrap().insert(id.clone(), (holder, shell));
        Ok(id)
    }

    async fn start(&self, id: &InstanceId) -> Done<()> {
        if self.properties(id).await?.is_none() {
            let made = self.made.lock().unwrap().get(id).cloned();
            if let Some((holder, shell)) = made {
                done(self.make(&holder, id.as_str(), &shell).await)?;
            }
        }
        let before = self.properties(id).await?.as_ref().and_then(machine::invocation);
        self.verb("StartUnit", id).await?;
        let began = |seen: Option<&Properties>| {
            seen.is_some_and(|seen| {
                machine::invocation(seen) != before
                    && machine::number(seen, "InactiveExitTimestampMonotonic")
                        >= machine::number(seen, "ConditionTimestampMonotonic")
                    && machine::text(seen, "ActiveState") != "activating"
            })
        };
        done(self.machine.until(id.as_str(), began).await)
    }

    async fn stop(&self, id: &InstanceId) -> Done<()> {
        self.verb("StopUnit", id).await?;
        done(self.machine.until(id.as_str(), |seen| seen.is_none_or(machine::rests)).await)
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Done<()> {
        let body = (id.as_str(), "main", i32::from(signal.number()));
        done(self.machine.manager("KillUnit", &body).await.map(drop))?;
        if signal == UnixSignal::KILL {
            done(self.machine.until(id.as_str(), |seen| seen.is_none_or(machine::rests)).await)?;
        }
        Ok(())
    }

    async fn remove(&self, id: &InstanceId) -> Done<()> {
        let Some(seen) = self.properties(id).await? else { return Ok(()) };
        if !machine::rests(&seen) {
            let _ = self.machine.manager("ThawUnit", &(id.as_str(),)).await;
            // Refused if it ended in the meantime.
            let _ = self.machine.manager("KillUnit", &(id.as_str(), "all", 9_i32)).await;
            self.stop(id).await?;
        }
        // A slice that is ordered before it keeps it loaded, even one of the harness.
        let own = machine::text(&seen, "Slice");
        for holder in machine::texts(&seen, "After").iter().filter(|unit| unit.starts_with("runtide:") && **unit != own)
        {
            let _ = self.machine.manager("StopUnit", &(holder.as_str(), "replace")).await;
        }
        let _ = self.machine.manager("ResetFailedUnit", &(id.as_str(),)).await;
        done(self.machine.until(id.as_str(), |seen| seen.is_none()).await)
    }

    async fn change(&self, id: &InstanceId, change: &Change) -> Done<()> {
        match change {
            Change::Pause => done(self.machine.manager("FreezeUnit", &(id.as_str(),)).await.map(drop)),
            Change::Unpause => done(self.machine.manager("ThawUnit", &(id.as_str(),)).await.map(drop)),
            Change::Resources => {
                let settings: Settings<'_> = vec![("TasksMax", Variant::from(1_000_u64))];
                done(self.machine.manager("SetUnitProperties", &(id.as_str(), true, settings)).await.map(drop))
            }
            _ => Err(Obstacle::unsupported("a unit of systemd does not change in that")),
        }
    }

    async fn burst(&self, n: usize, duration: RangeInclusive<Duration>) -> Done<Vec<Life>> {
        let mut runs = Vec::with_capacity(n);
        let steps = u32::try_from(n.max(2)).unwrap_or(u32::MAX);
        let step = duration.end().saturating_sub(*duration.start()) / steps;
        for (number, code) in (0..steps).zip((0..100).cycle()).take(n) {
            let after = *duration.start() + step * number;
            let unit = format!("{}-burst-{number}.service", self.prefix);
            let shell = format!("sleep {}; exit {code}", after.as_secs_f64());
            let exec = vec![("/bin/sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned(), shell], false)];
            let settings: Settings<'_> = vec![
                ("ExecStart", Variant::from(exec)),
                // Every other one is unloaded as soon as it has ended.
                ("CollectMode", Variant::from("inactive-or-failed")),
            ];
            let aux: Vec<(&str, Settings<'_>)> = Vec::new();
            let body = (unit.as_str(), "fail", settings, aux);
            done(self.machine.manager("StartTransientUnit", &body).await)?;
            done(self.machine.until(&unit, |seen| seen.is_none_or(machine::rests)).await)?;
            runs.push(Life { id: InstanceId::from(unit), exit: runtide_core::ExitStatus::code(code) });
        }
        Ok(runs)
    }

    async fn say_unknown(&self, id: &InstanceId) -> Done<()> {
        let path = zbus_path(id.as_str());
        let message = zbus::Message::signal(path.as_str(), "org.freedesktop.DBus.Properties", "PropertiesZapped")
            .build(&("zap", 7_u32))
            .map_err(Obstacle::failed)?;
        self.bus.say(&message);
        Ok(())
    }

    async fn truth(&self) -> Done<Vec<Instance>> {
        let mut truth = Vec::new();
        for unit in done(self.machine.units(&format!("{}*.service", self.prefix)).await)? {
            // A unit that was unloaded between the two calls is gone.
            if let Some(seen) = self.properties(&InstanceId::from(unit.as_str())).await? {
                truth.push(instance(&unit, &seen));
            }
        }
        Ok(truth)
    }

    async fn environment(&self, id: &InstanceId) -> Done<Vec<String>> {
        Ok(self.properties(id).await?.map(|seen| machine::texts(&seen, "Environment")).unwrap_or_default())
    }

    async fn facts(&self) -> Done<Vec<Fact>> {
        done(self.observer.facts().await)
    }

    fn burst_size(&self) -> usize {
        1_000
    }

    fn output(&self, side: LogSource, bytes: u64) -> Output {
        let letter = if side == LogSource::Stdout { 'o' } else { 'e' };
        Box::new((0..bytes / LINE).map(move |n| format!("{letter}{n:014}{:>1008}\n", ".").into_bytes()))
    }

    fn spec(&self, name: &str, work: &Workload) -> Done<InstanceSpec> {
        let Some(shell) = Self::shell(work) else { return Err(Obstacle::unsupported(format!("{work:?}"))) };
        let mut spec = InstanceSpec::default();
        spec.name = Some(format!("{}-{name}", self.prefix));
        spec.command = vec!["/bin/sh".to_owned(), "-c".to_owned(), shell];
        Ok(spec)
    }

    async fn fault(&self, fault: &Fault) -> Supported {
        match fault {
            Fault::Sever => self.bus.sever(false),
            Fault::Refuse => {
                self.bus.break_with(|broken, _| broken.refuse = true);
                self.bus.sever(false);
            }
            Fault::HalfOpen => self.bus.break_with(|broken, newest| broken.half_open = Some(newest)),
            Fault::Stall => self.bus.break_with(|broken, _| broken.stall = true),
            Fault::Deny => {
                self.bus.break_with(|broken, _| broken.deny = true);
                self.bus.sever(false);
            }
            Fault::CleanEof => {
                self.bus.break_with(|broken, _| broken.clean_end = true);
                self.bus.sever(true);
            }
            Fault::RestartDaemon => return self.reexecute().await,
            Fault::KillDaemon => {
                let killed = Testbed::fault(self.testbed.as_ref(), &["kill", "start"]).await;
                return if killed == Supported::Yes { self.answers().await } else { killed };
            }
            Fault::BadItem(id) => {
                let path = zbus_path(id.as_str());
                self.bus.break_with(|broken, _| broken.bad_item = Some(path));
            }
            Fault::PartialList(_) => self.bus.break_with(|broken, _| broken.cut_list = true),
            Fault::SlowList(time) => self.bus.break_with(|broken, _| broken.slow_list = Some(*time)),
            Fault::ExpireHistory => return Supported::No("systemd keeps no history of signals".into()),
            other => return Supported::No(format!("{other:?} is no fault of this harness")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        self.bus.heal();
        Ok(())
    }

    fn dials(&self) -> u64 {
        self.bus.dials()
    }

    async fn held(&self) -> Held {
        let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Held::new(Some(self.bus.live()), descriptors, Some(tasks))
    }

    async fn finish(&self) {
        self.clear().await;
        // The next run creates its own.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The object path of a unit.
fn zbus_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (n, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (n > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}
