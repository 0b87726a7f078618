//! Drives a runtime in memory from outside, for the laws: on a paused clock, in the dialects of the field.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Ready, ready},
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Change, Command, Dialect, Done, Fact, Fault, Happened, Harness, Held, Life, Obstacle, Output, Supported,
    Timing, Tuning, Workload,
};
use runtide_core::{
    Error, ExitStatus, Instance, InstanceId, RuntimeBackend, UnixSignal,
    manager::{InstanceSpec, LogSource},
};
use runtide_memory::{
    Blueprint, Call, Config, Dialect as Speech, Emission, FactKind, Garble, MemoryBackend, MemoryRuntime, Reboot,
    RuntimeOptions,
};

/// Makes the backend under test; a broken one, for the tests of the laws.
pub(crate) type Make = Arc<dyn Fn(Config, MemoryRuntime) -> Arc<dyn RuntimeBackend> + Send + Sync>;

/// One runtime in memory, and the backends on it.
pub(crate) struct MemoryHarness {
    name: &'static str,
    dialect: Dialect,
    config: Config,
    runtime: MemoryRuntime,
    make: Make,
    timing: Timing,
    /// Number of bytes that each instance prints on each side once started.
    printers: Mutex<BTreeMap<InstanceId, u64>>,
    /// Number of tasks of the test itself.
    tasks: usize,
}

/// It speaks as Docker, but its edges name incarnations and its list is complete in detail.
pub(crate) const EDGES: &str = "memory";
/// It speaks as Docker: edges name no incarnation, and a list has little detail.
pub(crate) const LEAN: &str = "memory-lean";
/// It speaks as Incus: its events name the instance alone, and it keeps no history.
pub(crate) const HINTS: &str = "memory-hints";
/// It speaks as Kubernetes: its events carry the state.
pub(crate) const STATES: &str = "memory-states";

/// Known to the runtime; no output of a backend may show it.
pub(crate) const SECRET: &str = "hunter2-correct-horse";

impl MemoryHarness {
    /// A runtime of this dialect, with the real backend.
    pub(crate) fn speaking(name: &'static str) -> Self {
        Self::with(name, Arc::new(|config, runtime| Arc::new(MemoryBackend::new(config, runtime).unwrap())))
    }

    /// A runtime of this dialect, with the caller's backend.
    pub(crate) fn with(name: &'static str, make: Make) -> Self {
        let config = Config::default().with_id("memory:test");
        let (dialect, config) = match name {
            LEAN => (Dialect::FULL, config.with_edges_name_incarnation(false).with_lean_summary()),
            HINTS => (Dialect::HINTS, config.with_dialect(Speech::Hints)),
            STATES => (Dialect::FULL, config.with_dialect(Speech::States)),
            _ => (Dialect::FULL, config),
        };
        let history: usize = if dialect.history { 256 } else { 0 };
        let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0).with_history(history));
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Self { name, dialect, config, runtime, make, timing: Timing::VIRTUAL, printers: Mutex::default(), tasks }
    }

    /// Sets the number of bytes that its instances print on each side.
    #[must_use]
    pub(crate) fn printing(mut self, bytes: u64) -> Self {
        self.timing.output_bytes = bytes;
        self
    }

    pub(crate) fn edges() -> Ready<Result<Self, Absent>> {
        ready(Ok(Self::speaking(EDGES)))
    }

    pub(crate) fn lean() -> Ready<Result<Self, Absent>> {
        ready(Ok(Self::speaking(LEAN)))
    }

    pub(crate) fn hints() -> Ready<Result<Self, Absent>> {
        ready(Ok(Self::speaking(HINTS)))
    }

    pub(crate) fn states() -> Ready<Result<Self, Absent>> {
        ready(Ok(Self::speaking(STATES)))
    }
}

fn done<T>(result: Result<T, Error>) -> Done<T> {
    result.map_err(Obstacle::failed)
}

/// The output, in pieces of 1 MiB.
fn pieces(side: LogSource, bytes: u64) -> impl Iterator<Item = Emission> {
    const PIECE: u64 = 1 << 20;
    let first = if side == LogSource::Stdout { 0 } else { 1_000_000 };
    (0..bytes.div_ceil(PIECE)).map(move |n| Emission::new(PIECE.min(bytes - n * PIECE), first + n))
}

#[async_trait]
impl Harness for MemoryHarness {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_real(&self) -> bool {
        false
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>> {
        // The same run each time.
        let mut config = self.config.clone().with_driver(tuning.driver.clone().with_jitter_seed(Some(1)));
        if let Some(deadline) = tuning.deadline {
            config = config.with_deadline(deadline);
        }
        if let Some(silence) = tuning.max_silence {
            config = config.with_max_silence(silence).with_heartbeat(silence / 3);
        }
        Ok((self.make)(config, self.runtime.clone()))
    }

    async fn create(&self, name: &str, work: &Workload) -> Done<InstanceId> {
        // Every instance has a secret in its environment.
        let blueprint = Blueprint::named(name).with_env(BTreeMap::from([("TOKEN".to_owned(), SECRET.to_owned())]));
        let blueprint = match work {
            Workload::Idle | Workload::Checked => blueprint,
            Workload::Exit { after, code } => blueprint.with_run_length(*after).with_exit(ExitStatus::code(*code)),
            Workload::Oom => blueprint
                .with_run_length(Duration::from_millis(50))
                .with_exit(ExitStatus::signal(UnixSignal::KILL).with_oom_killed(true)),
            Workload::Print { .. } => blueprint.with_run_length(Duration::from_millis(50)),
            // The first piece of its output.
            Workload::Greet { bytes } => blueprint.with_command(["emit", &bytes.to_string(), "0"]),
            other => return Err(Obstacle::unsupported(format!("{other:?}"))),
        };
        let id = done(self.runtime.create(blueprint))?;
        if let Workload::Print { bytes } = work {
            self.printers.lock().unwrap().insert(id.clone(), *bytes);
        }
        Ok(id)
    }

    async fn start(&self, id: &InstanceId) -> Done<()> {
        done(self.runtime.start(id))?;
        let bytes = self.printers.lock().unwrap().get(id).copied();
        if let Some(bytes) = bytes {
            let (out, err) = (LogSource::Stdout, LogSource::Stderr);
            for (on_out, on_err) in pieces(out, bytes).zip(pieces(err, bytes)) {
                done(self.runtime.emit_log(id, out, on_out))?;
                done(self.runtime.emit_log(id, err, on_err))?;
            }
        }
        Ok(())
    }

    async fn stop(&self, id: &InstanceId) -> Done<()> {
        done(self.runtime.stop(id))
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Done<()> {
        done(self.runtime.kill(id, signal))
    }

    async fn remove(&self, id: &InstanceId) -> Done<()> {
        done(self.runtime.remove(id))
    }

    async fn change(&self, id: &InstanceId, change: &Change) -> Done<()> {
        done(match change {
            Change::Pause => self.runtime.pause(id),
            Change::Unpause => self.runtime.unpause(id),
            Change::Health(health) => self.runtime.set_health(id, *health),
            Change::Rename(name) => self.runtime.rename(id, name.clone()),
            Change::Ports(ports) => self.runtime.set_ports(id, ports.clone()),
            Change::Addresses(addresses) => self.runtime.set_addresses(id, addresses.clone()),
            Change::Labels(labels) => self.runtime.set_labels(id, labels.clone()),
            _ => return Err(Obstacle::unsupported("this runtime knows no such change")),
        })
    }

    async fn burst(&self, n: usize, life: RangeInclusive<Duration>) -> Done<Vec<Life>> {
        let mut lives = Vec::with_capacity(n);
        let steps = u32::try_from(n.max(2)).unwrap_or(u32::MAX);
        let step = life.end().saturating_sub(*life.start()) / steps;
        for (number, code) in (0..steps).zip((0..100).cycle()).take(n) {
            let id = done(self.runtime.run(Blueprint::default()))?;
            tokio::time::sleep(*life.start() + step * number).await;
            done(self.runtime.exit(&id, ExitStatus::code(code)))?;
            if number % 2 == 1 {
                done(self.runtime.remove(&id))?;
            }
            lives.push(Life { id, exit: ExitStatus::code(code) });
        }
        Ok(lives)
    }

    async fn say_unknown(&self, id: &InstanceId) -> Done<()> {
        self.runtime.faults(|faults| faults.garble = Some(Garble::Body));
        let said = done(self.runtime.kill(id, UnixSignal::HUP));
        self.runtime.faults(|faults| faults.garble = None);
        said
    }

    async fn truth(&self) -> Done<Vec<Instance>> {
        Ok(self.runtime.truth_as(&self.config.id))
    }

    async fn facts(&self) -> Done<Vec<Fact>> {
        let facts = self.runtime.history().into_iter().filter_map(|fact| {
            let what = match fact.kind {
                FactKind::Started => Happened::Started { incarnation: fact.incarnation },
                FactKind::Stopped => Happened::Stopped { exit: fact.exit },
                FactKind::Removed => Happened::Removed,
                _ => return None,
            };
            Some(Fact { id: fact.id, what })
        });
        Ok(facts.collect())
    }

    fn burst_size(&self) -> usize {
        1_000
    }

    fn output(&self, side: LogSource, bytes: u64) -> Output {
        Box::new(pieces(side, bytes).flat_map(Emission::chunks).map(|chunk| chunk.to_vec()))
    }

    fn commands(&self, bytes: u64) -> Vec<Command> {
        let emit = |seed| -> Output { Box::new(Emission::new(bytes, seed).chunks().map(|chunk| chunk.to_vec())) };
        let mut echo = Command::new(["echo", "$HOME; exit 1"]);
        echo.stdout = Box::new(std::iter::once(b"$HOME; exit 1\n".to_vec()));
        let mut fails = Command::new(["exit", "3"]);
        fails.code = 3;
        let (amount, seeds) = (bytes.to_string(), ["7", "8"]);
        let mut out = Command::new(["emit", &amount, seeds[0]]);
        let mut err = Command::new(["emit", &amount, seeds[1], "stderr"]);
        (out.stdout, err.stderr) = (emit(7), emit(8));
        let mut cat = Command::new(["cat"]);
        (cat.stdin, cat.stdout) = (Some(emit(9)), emit(9));
        vec![echo, fails, out, err, cat]
    }

    fn echo(&self, word: &str) -> Option<Command> {
        let mut echo = Command::new(["echo", word]);
        echo.stdout = Box::new(std::iter::once(format!("{word}\n").into_bytes()));
        Some(echo)
    }

    fn spec(&self, name: &str, work: &Workload) -> Done<InstanceSpec> {
        if *work != Workload::Idle {
            return Err(Obstacle::unsupported(format!("{work:?} by a spec")));
        }
        let mut spec = InstanceSpec::default();
        spec.name = Some(name.to_owned());
        Ok(spec)
    }

    async fn fault(&self, fault: &Fault) -> Supported {
        let runtime = &self.runtime;
        match fault {
            Fault::Sever => runtime.sever(),
            Fault::Refuse => {
                runtime.faults(|faults| faults.refuse = true);
                runtime.sever();
            }
            Fault::HalfOpen => runtime.half_open(),
            Fault::Stall => {
                runtime.faults(|faults| faults.stall = Call::all());
                runtime.half_open();
            }
            Fault::Deny => {
                runtime.faults(|faults| faults.deny = Call::all());
                runtime.sever();
            }
            Fault::CleanEof => {
                runtime.faults(|faults| faults.close_at_once = true);
                runtime.close_streams();
            }
            Fault::RestartDaemon => runtime.reboot(Reboot::default().keeping_history()),
            Fault::KillDaemon => {
                runtime.go_down();
                tokio::time::sleep(Duration::from_secs(3)).await;
                runtime.come_up(Reboot::default());
            }
            Fault::LoseEverything => runtime.reboot(Reboot::default().losing_everything()),
            Fault::ExpireHistory => {
                runtime.faults(|faults| faults.refuse = true);
                runtime.sever();
                for _ in 0..150 {
                    let Ok(id) = runtime.create(Blueprint::default()) else { return Supported::No("no churn".into()) };
                    if runtime.remove(&id).is_err() {
                        return Supported::No("no churn".into());
                    }
                }
            }
            Fault::BadItem(id) => {
                runtime.faults(|faults| faults.bad_items = BTreeSet::from([id.clone()]));
            }
            Fault::PartialList(id) => {
                let before = runtime.truth().iter().take_while(|instance| instance.id != *id).count();
                runtime.faults(|faults| faults.truncate_list = Some(before));
            }
            Fault::SlowList(time) => {
                runtime.faults(|faults| faults.slow.insert(Call::List, *time));
            }
            other => return Supported::No(format!("{other:?} is no fault that this runtime knows")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        self.runtime.heal();
        Ok(())
    }

    fn dials(&self) -> u64 {
        Call::all().into_iter().map(|call| self.runtime.calls(call)).sum()
    }

    async fn held(&self) -> Held {
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks().saturating_sub(self.tasks);
        Held::new(Some(self.runtime.open_streams() + self.runtime.open_calls()), None, Some(tasks))
    }
}
