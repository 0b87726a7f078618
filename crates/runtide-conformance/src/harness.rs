//! [`Harness`]: drives a runtime from outside for the suite.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    Address, ExitStatus, Health, Incarnation, Instance, InstanceId, Labels, Port, RuntimeBackend, UnixSignal,
    manager::{InstanceSpec, LogSource},
    watch::DriverOptions,
};

use crate::Law;

/// Drives one runtime from outside, never through the backend under test, and breaks it on demand.
///
/// Each law gets a fresh harness. A feature that the runtime does not have is [`Obstacle::Unsupported`]; the law then goes on
/// without that part and says so, or, if nothing is left of it, is skipped, which [`Harness::skips`] must have announced.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The backend's name in the report, as `docker`.
    fn name(&self) -> &'static str;

    /// `true` if a real runtime is behind it.
    fn is_real(&self) -> bool;

    /// The runtime's version, where it has one.
    fn version(&self) -> Option<String> {
        None
    }

    /// The clock that the laws run on, and their timeouts.
    fn timing(&self) -> Timing;

    /// The facts that the runtime reports at all.
    fn dialect(&self) -> Dialect;

    /// Laws that do not apply here, each with the reason. Printed, counted, and the count is pinned by the backend's tests.
    fn skips(&self) -> &'static [(Law, &'static str)] {
        &[]
    }

    /// `true` if a stop removes the instance, so that an instance which is gone has been stopped.
    fn stop_removes(&self) -> bool {
        false
    }

    /// The law that this harness is for, before anything else is asked of it.
    fn begin(&self, law: Law) {
        let _ = law;
    }

    /// Configured credentials: no error may show them.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// A new backend value, as an application would make one; of the same identity each time.
    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>>;

    /// Creates an instance that will do `work` once started. The harness may decorate the name.
    async fn create(&self, name: &str, work: &Workload) -> Done<InstanceId>;

    /// Starts the instance; returns once it runs, or has ended.
    async fn start(&self, id: &InstanceId) -> Done<()>;

    /// Stops the instance; returns once it has ended.
    async fn stop(&self, id: &InstanceId) -> Done<()>;

    /// Sends a signal to the instance.
    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Done<()>;

    /// Removes the instance, running or not; returns once it is gone.
    async fn remove(&self, id: &InstanceId) -> Done<()>;

    /// Changes something visible; returns once it has changed.
    async fn change(&self, id: &InstanceId, change: &Change) -> Done<()> {
        Err(Obstacle::unsupported(format!("{change:?} of {id}")))
    }

    /// Creates, starts and sees the end of `n` instances one after the other, each running for a time in `running`. Some may be
    /// removed as soon as they have ended.
    async fn burst(&self, n: usize, running: RangeInclusive<Duration>) -> Done<Vec<Life>>;

    /// Makes the runtime emit an event about the instance that no backend knows.
    async fn say_unknown(&self, id: &InstanceId) -> Done<()> {
        Err(Obstacle::unsupported(format!("an unknown event of {id}")))
    }

    /// Every instance that is there, inspected from outside; a field that the harness does not inspect is `None`.
    async fn truth(&self) -> Done<Vec<Instance>>;

    /// The environment with which an instance was created, as `KEY=value`, inspected from outside.
    async fn environment(&self, id: &InstanceId) -> Done<Vec<String>> {
        Err(Obstacle::unsupported(format!("the environment of {id}")))
    }

    /// The lifecycle facts since the harness began, as an outside observer saw them, in order.
    async fn facts(&self) -> Done<Vec<Fact>>;

    /// Number of instances that [`Harness::burst`] makes for R21: 1,000, or fewer where a start takes long.
    fn burst_size(&self) -> usize;

    /// The bytes that [`Workload::Print`] writes to one of the outputs, in pieces of any size.
    fn output(&self, side: LogSource, bytes: u64) -> Output {
        Box::new(Workload::lines(if side == LogSource::Stdout { 'o' } else { 'e' }, bytes))
    }

    /// `true` if the runtime keeps both outputs of an instance in one, without their sources. Lines are then assigned to a source
    /// by their first letter, which [`Harness::output`] must make `o` and `e`.
    fn is_console(&self) -> bool {
        false
    }

    /// Commands to run inside an idle instance, which together write `bytes` to either output; empty where nothing can be run.
    fn commands(&self, bytes: u64) -> Vec<Command> {
        let _ = bytes;
        Vec::new()
    }

    /// A command, to be run inside an idle instance, that writes its argument `word` to its standard output; `None` where nothing can
    /// be run.
    fn echo(&self, word: &str) -> Option<Command> {
        let _ = word;
        None
    }

    /// The spec with which a `ProvisionManager` makes an instance that does `work`.
    fn spec(&self, name: &str, work: &Workload) -> Done<InstanceSpec>;

    /// Causes a fault, at once and until [`Harness::heal`] unless the fault says otherwise.
    async fn fault(&self, fault: &Fault) -> Supported;

    /// Ends every fault; the runtime is reachable when it returns.
    async fn heal(&self) -> Done<()>;

    /// Number of times that the backend has dialled the runtime so far: attempts to open a connection, or a stream where the
    /// runtime has no connections.
    fn dials(&self) -> u64;

    /// The resources that the backend holds now.
    async fn held(&self) -> Held;

    /// Removes the instances that are left; called once, after the law.
    async fn finish(&self) {}
}

/// The result of a harness's verb.
pub type Done<T> = Result<T, Obstacle>;

/// Why the harness could not carry out a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The runtime has no such feature; the reason.
    Unsupported(String),
    /// The runtime has it, and it failed: the test cannot go on.
    Failed(String),
}

impl Obstacle {
    /// The runtime has no such feature.
    pub fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }

    /// The verb failed.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(reason) => write!(f, "not supported here: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

impl std::error::Error for Obstacle {}

/// Why there is no harness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The backend's name in the report.
    pub(crate) backend: &'static str,
    /// The setting that is missing, or the step that failed.
    pub(crate) reason: String,
    /// `true` if a runtime was named and cannot be used.
    pub(crate) broken: bool,
}

impl Absent {
    /// No real runtime was named: the law is skipped, by name, or fails if `RUNTIDE_REQUIRE_REAL` names the backend.
    pub fn unset(backend: &'static str, reason: impl Into<String>) -> Self {
        Self { backend, reason: reason.into(), broken: false }
    }

    /// A runtime was named and cannot be used: the law fails.
    pub fn broken(backend: &'static str, reason: impl Into<String>) -> Self {
        Self { backend, reason: reason.into(), broken: true }
    }
}

/// The answer to a fault: caused, or not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Supported {
    /// The fault is in effect.
    Yes,
    /// The harness cannot cause it, with the reason; nothing happened.
    No(String),
}

/// A fault of the runtime or of the link to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Every connection breaks, once; new ones are welcome.
    Sever,
    /// Every connection breaks, and no new one is accepted.
    Refuse,
    /// Connections of the event stream stay up and carry nothing more; others work, and so do new ones.
    HalfOpen,
    /// Every connection, old or new, is accepted and gets no answer.
    Stall,
    /// Every request is answered, with a denial.
    Deny,
    /// The event stream ends cleanly, and so does each new one as soon as it has begun.
    CleanEof,
    /// The runtime is stopped and started in an orderly way; back when `fault` returns.
    RestartDaemon,
    /// The runtime is killed and started again; back when `fault` returns.
    KillDaemon,
    /// The runtime is replaced by a new installation at the same address, which has nothing and counts from the beginning; back
    /// when `fault` returns.
    LoseEverything,
    /// The link is refused for so many changes that the runtime's history does not reach back to before the outage.
    ExpireHistory,
    /// This instance cannot be decoded in any listing or inspection.
    BadItem(InstanceId),
    /// Listings lack this instance, and are marked incomplete or break off.
    PartialList(InstanceId),
    /// Each listing takes this long, and shows the instances that were there as it began.
    SlowList(Duration),
}

/// The work of an instance once it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workload {
    /// Runs until it is stopped; ends at a `SIGTERM`, survives a `SIGHUP`.
    Idle,
    /// As [`Workload::Idle`], with a health check whose verdict [`Change::Health`] decides.
    Checked,
    /// Runs for a time, then exits with this code.
    Exit {
        /// Running time.
        after: Duration,
        /// The exit code.
        code: i32,
    },
    /// Is killed by the kernel for want of memory.
    Oom,
    /// Writes this many bytes to each output, mixed, and exits with 0: those of [`Harness::output`].
    Print {
        /// Bytes on each of stdout and stderr.
        bytes: u64,
    },
    /// Writes this many bytes of [`Harness::output`] to its standard output at once, and exits with 0.
    Greet {
        /// Bytes on stdout, at most 1 MiB.
        bytes: u64,
    },
}

impl Workload {
    /// Lines for an instance to print: line `n` is the letter and the number in 14 digits, 16 bytes with the newline; the
    /// last line is cut where the bytes end.
    pub fn lines(letter: char, bytes: u64) -> impl Iterator<Item = Vec<u8>> + Send {
        (0..bytes.div_ceil(16)).map(move |n| {
            let mut line = format!("{letter}{n:014}\n").into_bytes();
            let left = bytes.saturating_sub(n.saturating_mul(16));
            line.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            line
        })
    }
}

/// Output, in pieces of any size.
pub type Output = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// A command to run inside an instance, with the expected result.
#[non_exhaustive]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The bytes on its standard input, which then ends; `None`: it has none.
    pub stdin: Option<Output>,
    /// The bytes that it writes to its standard output.
    pub stdout: Output,
    /// The bytes that it writes to its standard error.
    pub stderr: Output,
    /// The exit code.
    pub code: i32,
}

impl Command {
    /// A command that writes nothing and ends with 0.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, stdin: None, stdout: Box::new(std::iter::empty()), stderr: Box::new(std::iter::empty()), code: 0 }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("argv", &self.argv).field("code", &self.code).finish_non_exhaustive()
    }
}

/// A visible change of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Freezes the instance.
    Pause,
    /// Thaws the instance.
    Unpause,
    /// The runtime's verdict of the health check becomes this.
    Health(Health),
    /// Another name; the harness may decorate it.
    Rename(String),
    /// Other ports.
    Ports(Vec<Port>),
    /// Other addresses; a harness that cannot choose them makes any change to them.
    Addresses(Vec<Address>),
    /// Other labels.
    Labels(Labels),
    /// Another resource limit.
    Resources,
}

impl Change {
    /// The field of `Instance` that shows the change; a resource limit has none.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Pause | Self::Unpause => Some("state"),
            Self::Health(_) => Some("health"),
            Self::Rename(_) => Some("name"),
            Self::Ports(_) => Some("ports"),
            Self::Addresses(_) => Some("addresses"),
            Self::Labels(_) => Some("labels"),
            Self::Resources => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("a pause"),
            Self::Unpause => f.write_str("an unpause"),
            Self::Health(_) => f.write_str("another health"),
            Self::Rename(name) => write!(f, "a rename to '{name}'"),
            Self::Ports(_) => f.write_str("other ports"),
            Self::Addresses(_) => f.write_str("other addresses"),
            Self::Labels(_) => f.write_str("other labels"),
            Self::Resources => f.write_str("another resource limit"),
        }
    }
}

/// One instance of a burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The instance.
    pub id: InstanceId,
    /// Its exit status.
    pub exit: ExitStatus,
}

/// A lifecycle fact that an outside observer saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The instance that the fact is about.
    pub id: InstanceId,
    /// The kind of fact.
    pub what: Happened,
}

/// The kind of a lifecycle fact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happened {
    /// A run began.
    Started {
        /// The incarnation, where the observer knows it.
        incarnation: Option<Incarnation>,
    },
    /// A run ended.
    Stopped {
        /// The exit status, where the observer knows it.
        exit: Option<ExitStatus>,
    },
    /// The instance is gone.
    Removed,
}

/// The facts that a runtime reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
#[non_exhaustive]
pub struct Dialect {
    /// It reports each start and end.
    pub edges: bool,
    /// It keeps a history from which short gaps are replayed.
    pub history: bool,
    /// It gives each run of an id another incarnation.
    pub incarnations: bool,
    /// It reports each pause, so that two in a row are never folded into one inspection.
    pub pauses: bool,
}

impl Dialect {
    /// Reports edges and incarnations, keeps history.
    pub const FULL: Self = Self { edges: true, history: true, incarnations: true, pauses: true };

    /// Reports only that something changed.
    pub const HINTS: Self = Self { edges: false, history: false, incarnations: true, pauses: true };
}

/// Configuration of a backend for a law. A backend ignores an option that it does not have.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tuning {
    /// The watch driver's options.
    pub driver: DriverOptions,
    /// The longest silence of a healthy link.
    pub max_silence: Option<Duration>,
    /// The deadline of each call.
    pub deadline: Option<Duration>,
}

/// The clock that the laws run on, and their timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// `true` on tokio's paused clock, on which waiting is free.
    pub is_virtual: bool,
    /// The longest wait for an expected event.
    pub timeout: Duration,
    /// Silence this long counts as rest.
    pub quiet: Duration,
    /// The backoff's cap with which backends are made.
    pub max_backoff: Duration,
    /// The healthy period with which backends are made.
    pub healthy_after: Duration,
    /// The silence limit with which backends are made for R10.
    pub max_silence: Duration,
    /// The time in which a runtime that replays an outage tells that it has replayed all of it.
    pub replay: Duration,
    /// The deadline with which backends are made for M6.
    pub deadline: Duration,
    /// Bytes on each output for M4.
    pub output_bytes: u64,
}

impl Timing {
    /// The documented defaults of the driver on a paused clock.
    pub const VIRTUAL: Self = Self {
        is_virtual: true,
        timeout: Duration::from_secs(600),
        quiet: Duration::from_secs(5),
        max_backoff: Duration::from_secs(30),
        healthy_after: Duration::from_secs(60),
        max_silence: Duration::from_secs(30),
        replay: Duration::ZERO,
        deadline: Duration::from_secs(10),
        output_bytes: 50_000_000,
    };

    /// The driver's timeouts scaled down, so that laws about minutes take seconds.
    pub const REAL: Self = Self {
        is_virtual: false,
        timeout: Duration::from_secs(30),
        quiet: Duration::from_millis(400),
        max_backoff: Duration::from_millis(500),
        healthy_after: Duration::from_secs(1),
        max_silence: Duration::from_secs(2),
        replay: Duration::ZERO,
        deadline: Duration::from_secs(2),
        output_bytes: 50_000_000,
    };

    /// The configuration of a backend, by default.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            driver: DriverOptions::default().with_max_backoff(self.max_backoff).with_healthy_after(self.healthy_after),
            ..Tuning::default()
        }
    }
}

/// Resources of the process and the runtime that the backend holds. `None`: cannot be counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Open connections to the runtime, or streams where it has no connections.
    pub connections: Option<usize>,
    /// Open file descriptors of the process.
    pub descriptors: Option<usize>,
    /// Live tasks of this tokio runtime, but for the harness's own.
    pub tasks: Option<usize>,
}

impl Held {
    /// These counts; everything else is unknown.
    pub fn new(connections: Option<usize>, descriptors: Option<usize>, tasks: Option<usize>) -> Self {
        Self { connections, descriptors, tasks }
    }

    /// `true` if nothing is held beyond `baseline`.
    pub fn is_within(&self, baseline: &Self) -> bool {
        fn within(now: Option<usize>, then: Option<usize>) -> bool {
            now.zip(then).is_none_or(|(now, then)| now <= then)
        }
        within(self.connections, baseline.connections)
            && within(self.descriptors, baseline.descriptors)
            && within(self.tasks, baseline.tasks)
    }
}
