//! The script: the verbs by which a test drives the runtime from outside, and its view of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use runtide_core::{
    Address, Error, ErrorKind, ExitStatus, Health, InstanceId, InstanceState, Labels, Port, Result, UnixSignal,
    manager::{ImageInfo, LogSource, TtySize},
};

use super::{Blueprint, Emission, Fact, Inner, MemoryRuntime, RuntimeOptions, State, line::Fate};
use crate::fault::{Call, Dial, Faults};

/// Fate of an instance of a [`MemoryRuntime::burst`] after its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AfterRun {
    /// It stays, stopped.
    Stays,
    /// It is removed at once.
    Removed,
}

/// Effects of a restart of the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reboot {
    /// `true` if it keeps its history; without effect if a change happened while it was down.
    pub keeps_history: bool,
    /// `true` if it stops every instance; those that always restart start again.
    pub stops_instances: bool,
    /// `true` if it begins again with nothing, as a new installation at the same address: no instances, no history, and
    /// counters from 1. No fact is recorded for what is lost.
    pub loses_everything: bool,
}

impl Reboot {
    /// It still has its history.
    #[must_use]
    pub fn keeping_history(mut self) -> Self {
        self.keeps_history = true;
        self
    }

    /// It stops every instance.
    #[must_use]
    pub fn stopping_instances(mut self) -> Self {
        self.stops_instances = true;
        self
    }

    /// It begins again with nothing.
    #[must_use]
    pub fn losing_everything(mut self) -> Self {
        self.loses_everything = true;
        self
    }
}

/// # Construction
impl MemoryRuntime {
    /// A new runtime, empty and in good health.
    pub fn new() -> Self {
        Self::with_options(RuntimeOptions::default())
    }

    /// A new runtime.
    pub fn with_options(options: RuntimeOptions) -> Self {
        Self { inner: Arc::new(Inner::new(options)) }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.inner.with(act)
    }
}

impl Default for MemoryRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// # Instances
///
/// A verb for an id that is not there is `NotFound`; one that its state forbids is `Conflict`; one that changes nothing is
/// `Ok`, and nothing is reported.
impl MemoryRuntime {
    /// Makes an instance, from a name or a whole [`Blueprint`].
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, `InvalidInput` for one that is not allowed.
    pub fn create(&self, design: impl Into<Blueprint>) -> Result<InstanceId> {
        let design = design.into();
        self.with(|state| state.create(design))
    }

    /// Makes an instance and starts it.
    pub fn run(&self, design: impl Into<Blueprint>) -> Result<InstanceId> {
        let design = design.into();
        self.with(|state| {
            let id = state.create(design)?;
            state.start(&id, Call::Start)?;
            Ok(id)
        })
    }

    /// Starts it: a new run, a new incarnation.
    pub fn start(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.start(id, Call::Start)).map(drop)
    }

    /// Stops it from outside: it ends at once, as [`Blueprint::exit`] says or by its stop signal, and is not started again.
    pub fn stop(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.stop_now(id, Call::Stop)).map(drop)
    }

    /// Its main process ends by itself, so; it is started again as its restart policy says.
    pub fn exit(&self, id: &InstanceId, exit: ExitStatus) -> Result<()> {
        self.with(|state| state.exit(id, Some(exit)))
    }

    /// It ends by itself, and the runtime does not know how.
    pub fn vanish(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.exit(id, None))
    }

    /// Its main process dies of signal 11 (SEGV).
    pub fn crash(&self, id: &InstanceId) -> Result<()> {
        self.exit(id, ExitStatus::signal("SEGV".parse()?).with_oom_killed(false))
    }

    /// The kernel kills it for want of memory.
    pub fn oom(&self, id: &InstanceId) -> Result<()> {
        self.exit(id, ExitStatus::signal(UnixSignal::KILL).with_oom_killed(true))
    }

    /// Sends a signal, which ends it only if it is KILL or one of [`Blueprint::ends_on`].
    pub fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        self.with(|state| state.signal(id, signal, Call::Kill))
    }

    /// Stops it if it runs, and starts it.
    pub fn restart(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| {
            let _ = state.stop_now(id, Call::Restart)?;
            state.start(id, Call::Restart).map(drop)
        })
    }

    /// Freezes it.
    pub fn pause(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.pause(id)).map(drop)
    }

    /// Thaws it.
    pub fn unpause(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.unpause(id)).map(drop)
    }

    /// Removes it, killing it first if it runs. `Ok` if it is gone already.
    pub fn remove(&self, id: &InstanceId) -> Result<()> {
        self.with(|state| state.remove(id, true)).map(drop)
    }

    /// Removes it and makes it again under its name, with another id, not started.
    pub fn recreate(&self, id: &InstanceId) -> Result<InstanceId> {
        self.with(|state| {
            let design = state.record(id, Call::Create)?.design.clone();
            state.remove(id, true)?;
            state.create(design)
        })
    }

    /// Gives it another name.
    pub fn rename(&self, id: &InstanceId, name: impl Into<String>) -> Result<()> {
        let name = name.into();
        self.with(|state| state.rename(id, name)).map(drop)
    }

    /// The verdict of its health check; `None`: it has no check any more.
    pub fn set_health(&self, id: &InstanceId, health: impl Into<Option<Health>>) -> Result<()> {
        let health = health.into();
        self.edit(id, "health", |design| design.health = health)
    }

    /// Replaces its ports.
    pub fn set_ports(&self, id: &InstanceId, ports: impl Into<Vec<Port>>) -> Result<()> {
        let ports = ports.into();
        self.edit(id, "ports", |design| design.ports = ports)
    }

    /// Replaces its addresses.
    pub fn set_addresses(&self, id: &InstanceId, addresses: impl Into<Vec<Address>>) -> Result<()> {
        let addresses = addresses.into();
        self.edit(id, "addresses", |design| design.addresses = addresses)
    }

    /// Replaces its labels.
    pub fn set_labels(&self, id: &InstanceId, labels: Labels) -> Result<()> {
        self.edit(id, "labels", |design| design.labels = labels)
    }

    pub(super) fn edit(&self, id: &InstanceId, field: &'static str, edit: impl FnOnce(&mut Blueprint)) -> Result<()> {
        self.with(|state| state.edit(id, field, edit))
    }

    /// Puts it into any state; a run begins or ends where the state asks for that, and its end is then not known.
    pub fn set_state(&self, id: &InstanceId, state: InstanceState) -> Result<()> {
        self.with(|inner| inner.set_state(id, state))
    }

    /// Writes output, split into lines; with a terminal its source is always `Console`.
    pub fn write_log(&self, id: &InstanceId, source: LogSource, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        self.with(|state| state.write_log(id, source, &bytes))
    }

    /// Writes output that is made as it is read: 100 MB of it cost nothing.
    pub fn emit_log(&self, id: &InstanceId, source: LogSource, emission: Emission) -> Result<()> {
        self.with(|state| state.emit_log(id, source, emission))
    }

    /// Sets its reported memory usage, in bytes; 16 MiB by default.
    pub fn set_memory(&self, id: &InstanceId, bytes: u64) -> Result<()> {
        self.with(|state| state.edit_unseen(id, |record| record.memory = bytes))
    }

    /// Instances that each run for `life`, one after the other, on tokio's time. The n-th ends with code n modulo 100.
    ///
    /// # Cancel safety
    /// Dropping it leaves the last one as it is.
    pub async fn burst(&self, count: usize, life: Duration, after: AfterRun) -> Result<Vec<InstanceId>> {
        let mut ids = Vec::with_capacity(count);
        for code in (0..100).cycle().take(count) {
            let id = self.run(Blueprint::default())?;
            tokio::time::sleep(life).await;
            self.exit(&id, ExitStatus::code(code))?;
            if after == AfterRun::Removed {
                self.remove(&id)?;
            }
            ids.push(id);
        }
        Ok(ids)
    }
}

/// # Images and terminals
impl MemoryRuntime {
    /// Puts an image here, as if it had been pulled: an instance can be created from it by each of its names. Its names are taken
    /// from the image that has them. A new runtime has no image; [`publish_image`](Self::publish_image) is for a pull.
    ///
    /// ```
    /// use runtide_core::{RuntimeBackend, manager::{ImageInfo, InstanceSpec}};
    /// use runtide_memory::{Config, MemoryBackend, MemoryRuntime};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> runtide_core::Result<()> {
    /// let runtime = MemoryRuntime::new();
    /// let mut busybox = ImageInfo::new("sha256:4f0c");
    /// busybox.tags = vec!["busybox:1".into()];
    /// runtime.add_image(busybox);
    ///
    /// let backend = MemoryBackend::new(Config::default(), runtime)?;
    /// let provision = backend.provision().expect("it can create");
    /// provision.create(&InstanceSpec::of_image("busybox:1")).await?;
    /// assert!(provision.create(&InstanceSpec::of_image("nginx")).await.is_err(), "it is not here");
    /// # Ok(()) }
    /// ```
    pub fn add_image(&self, image: ImageInfo) {
        self.with(|state| state.add_image(image));
    }

    /// Puts an image into the registry, from where it can be pulled by each of its names; its layers are of these sizes, in
    /// bytes.
    pub fn publish_image(&self, image: &ImageInfo, layers: &[u64]) {
        self.with(|state| state.publish_image(image, layers));
    }

    /// The size of its main process's terminal, as last set.
    pub fn tty_size(&self, id: &InstanceId) -> Option<TtySize> {
        self.with(|state| state.record(id, Call::Inspect).ok()?.tty)
    }
}

/// # History
impl MemoryRuntime {
    /// Every fact, in order, reported or not: the reference for a watch. The newest
    /// [`RuntimeOptions::facts`].
    pub fn history(&self) -> Vec<Fact> {
        self.with(|state| state.history.facts.iter().cloned().collect())
    }
}

/// # Faults
impl MemoryRuntime {
    /// Changes the faults; they hold until they are changed again.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        self.with(|state| {
            state.dirty = true;
            change(&mut state.faults)
        })
    }

    /// Clears every fault. Broken connections stay broken; new ones work.
    pub fn heal(&self) {
        self.faults(|faults| *faults = Faults::default());
    }

    /// Breaks every connection: streams end with an error, and calls under way fail with `Unavailable`.
    pub fn sever(&self) {
        self.end_lines(Fate::Severed("connection reset"), false);
    }

    /// Ends every event stream cleanly, after what was reported.
    pub fn close_streams(&self) {
        self.end_lines(Fate::Closed, true);
    }

    /// Every event stream that is open now stays open and delivers nothing more. Calls and new streams work.
    pub fn half_open(&self) {
        self.end_lines(Fate::Dead, true);
    }

    fn end_lines(&self, fate: Fate, streams_only: bool) {
        self.with(|state| {
            state.dirty = true;
            state.lines.values_mut().filter(|line| !streams_only || line.is_stream()).for_each(|line| line.end(fate));
        });
    }

    /// Forgets the history from which streams resume.
    pub fn lose_history(&self) {
        self.with(|state| state.history.lose());
    }

    /// Stops the runtime, not its instances: connections break, new ones are refused, and nothing that happens is reported.
    pub fn go_down(&self) {
        self.sever();
        self.with(|state| state.down = true);
    }

    /// Starts it again.
    pub fn come_up(&self, reboot: Reboot) {
        self.with(|state| state.reboot(reboot));
    }

    /// Stops and starts the runtime at once.
    pub fn reboot(&self, reboot: Reboot) {
        self.go_down();
        self.come_up(reboot);
    }

    /// Takes a verb (as [`Capabilities`](runtide_core::Capabilities) names it) away, with this reason.
    ///
    /// # Errors
    /// `InvalidInput`: there is no such verb.
    pub fn restrict(&self, verb: &str, reason: impl Into<String>) -> Result<()> {
        self.set_support(verb, Some(reason.into()))
    }

    /// Gives a verb that was taken away back.
    ///
    /// # Errors
    /// `InvalidInput`: there is no such verb.
    pub fn permit(&self, verb: &str) -> Result<()> {
        self.set_support(verb, None)
    }

    fn set_support(&self, verb: &str, reason: Option<String>) -> Result<()> {
        if self.with(|state| state.set_support(verb, reason)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "memory.restrict", "there is no such verb")
            .with_context("feature", verb))
    }
}

/// # Connections
impl MemoryRuntime {
    /// Number of open event streams.
    pub fn open_streams(&self) -> usize {
        self.with(|state| state.lines.values().filter(|line| line.is_stream()).count())
    }

    /// Number of calls under way, and of open streams of output and usage.
    pub fn open_calls(&self) -> usize {
        self.with(|state| state.lines.values().filter(|line| !line.is_stream()).count())
    }

    /// Every attempt to connect, in order, the newest 65,536.
    pub fn dials(&self) -> Vec<Dial> {
        self.with(|state| state.dials.iter().copied().collect())
    }

    /// Number of attempts at this call.
    pub fn calls(&self, call: Call) -> u64 {
        self.with(|state| state.calls.get(&call).copied().unwrap_or(0))
    }
}
