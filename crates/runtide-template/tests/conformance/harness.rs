//! Drives the runtime from outside, for the laws: by the runtime's own tool or API, never through the backend under test. The
//! proxy stands between the two, and breaks what the laws ask for.

use std::{
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Dialect, Done, Fact, Fault, Harness, Held, Law, Life, Obstacle, Supported, Timing, Tuning, Workload,
    proxy::{Action, Endpoint, Proxy, Rule},
};
use runtide_core::{Instance, InstanceId, RuntimeBackend, UnixSignal, manager::InstanceSpec};
use runtide_template::{Config, TemplateBackend};

/// The variable that names the runtime's socket.
const VARIABLE: &str = "RUNTIDE_TEST_TEMPLATE";

// FORK: texts by which the proxy recognizes a request: they are in its first line.
const LIST: &str = "list";
const EVENTS: &str = "events";

/// One test's share of the runtime.
pub(crate) struct TemplateHarness {
    proxy: Proxy,
    socket: PathBuf,
}

/// The error of a step that the author of the backend has to write.
fn fork<T>(step: &str) -> Done<T> {
    Err(Obstacle::failed(format!("FORK: {step}")))
}

impl TemplateHarness {
    /// On the runtime that the environment names.
    pub(crate) async fn start() -> Result<Self, Absent> {
        match std::env::var_os(VARIABLE) {
            Some(socket) if !socket.is_empty() => Self::on(socket.into()).await,
            _ => Err(Absent::unset("template", format!("{VARIABLE} names no socket"))),
        }
    }

    /// On the runtime behind this socket.
    pub(crate) async fn on(target: PathBuf) -> Result<Self, Absent> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("runtide-template-{}-{number}.sock", std::process::id()));
        let proxy = Proxy::start(Endpoint::Unix(socket.clone()), Endpoint::Unix(target)).await;
        let proxy = proxy.map_err(|error| Absent::broken("template", format!("no proxy: {error}")))?;
        Ok(Self { proxy, socket })
    }
}

#[async_trait]
impl Harness for TemplateHarness {
    fn name(&self) -> &'static str {
        "template"
    }

    fn is_real(&self) -> bool {
        true
    }

    fn timing(&self) -> Timing {
        Timing::REAL
    }

    fn dialect(&self) -> Dialect {
        // FORK: what the runtime reports by itself; `Dialect::FULL` if it reports every edge and keeps a history.
        Dialect::HINTS
    }

    fn skips(&self) -> &'static [(Law, &'static str)] {
        // FORK: the laws that cannot apply, each with the reason. A test of yours pins their number.
        &[]
    }

    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>> {
        let mut config = Config::default().with_id("template:test").with_socket(&self.socket);
        config = config.with_driver(tuning.driver.clone());
        if let Some(deadline) = tuning.deadline {
            config = config.with_deadline(deadline);
        }
        if let Some(silence) = tuning.max_silence {
            config = config.with_max_silence(silence);
        }
        let backend = TemplateBackend::new(config).map_err(Obstacle::failed)?;
        Ok(Arc::new(backend))
    }

    async fn create(&self, _: &str, _: &Workload) -> Done<InstanceId> {
        fork("create an instance that does the work once it is started")
    }

    async fn start(&self, _: &InstanceId) -> Done<()> {
        fork("start an instance, and return once it runs or has ended")
    }

    async fn stop(&self, _: &InstanceId) -> Done<()> {
        fork("stop an instance, and return once it has ended")
    }

    async fn kill(&self, _: &InstanceId, _: UnixSignal) -> Done<()> {
        fork("send a signal")
    }

    async fn remove(&self, _: &InstanceId) -> Done<()> {
        fork("remove an instance, running or not, and return once it is gone")
    }

    async fn burst(&self, n: usize, running: RangeInclusive<Duration>) -> Done<Vec<Life>> {
        let _ = (n, running);
        fork("run so many instances, one after the other, each for a time in this range")
    }

    async fn truth(&self) -> Done<Vec<Instance>> {
        fork("inspect every instance")
    }

    async fn facts(&self) -> Done<Vec<Fact>> {
        fork("observe starts, ends and removals from outside, from the beginning")
    }

    fn burst_size(&self) -> usize {
        100
    }

    fn spec(&self, name: &str, _: &Workload) -> Done<InstanceSpec> {
        // FORK: only a backend that creates instances needs it.
        Err(Obstacle::unsupported(format!("a spec of '{name}'")))
    }

    async fn fault(&self, fault: &Fault) -> Supported {
        let proxy = &self.proxy;
        match fault {
            Fault::Sever => proxy.sever(),
            Fault::Refuse => {
                proxy.add(Rule::all(Action::Refuse));
                proxy.sever();
            }
            Fault::HalfOpen => proxy.add(Rule::on(EVENTS, Action::Swallow).existing_only()),
            Fault::Stall => proxy.add(Rule::all(Action::Swallow)),
            Fault::PartialList(_) => proxy.add(Rule::on(LIST, Action::Cut(20))),
            Fault::SlowList(time) => proxy.add(Rule::on(LIST, Action::Delay(*time))),
            // FORK: `CleanEof` and `Deny` are answers in the runtime's own words (`Action::Answer`), `BadItem` is a text of the same
            // length that cannot be decoded (`Action::Replace`), `ExpireHistory` is more changes than the runtime remembers. The runtime
            // itself is restarted, killed and replaced as its own tools do that; its instances must survive `KillDaemon` if they do so
            // in the field.
            other => return Supported::No(format!("FORK: {other:?}")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        self.proxy.heal();
        Ok(())
    }

    fn dials(&self) -> u64 {
        self.proxy.dials().len() as u64
    }

    async fn held(&self) -> Held {
        let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Held::new(Some(self.proxy.live()), descriptors, Some(tasks))
    }

    async fn finish(&self) {
        // FORK: remove the instances that are left.
        let _ = std::fs::remove_file(&self.socket);
    }
}
