//! Configuration of a backend on a runtime in memory.

use std::time::Duration;

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};

/// Configuration of a backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this backend; `memory:local` by default.
    pub id: BackendId,
    /// Dialect of the event stream.
    pub dialect: Dialect,
    /// `true` (the default) if an edge names the run that it belongs to. Docker's do not.
    pub edges_name_incarnation: bool,
    /// `true` if a [`Summary`](runtide_core::Detail::Summary) leaves out the fields that Docker's list leaves out: the
    /// incarnation, times, the exit and restarts.
    pub lean_summary: bool,
    /// The longest that any call may take; 30 s by default.
    pub deadline: Duration,
    /// Interval at which a quiet event stream shows that it is alive; 10 s by default. `None`: never.
    pub heartbeat: Option<Duration>,
    /// The silence after which an event stream counts as dead; 30 s by default. `None`: silence proves nothing.
    pub max_silence: Option<Duration>,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: BackendId::from("memory:local"),
            dialect: Dialect::default(),
            edges_name_incarnation: true,
            lean_summary: false,
            deadline: Duration::from_secs(30),
            heartbeat: Some(Duration::from_secs(10)),
            max_silence: Some(Duration::from_secs(30)),
            driver: DriverOptions::default(),
        }
    }
}

setters!(Config {
    /// The name of this backend.
    with_id: id: BackendId;
    /// Dialect of the event stream.
    with_dialect: dialect: Dialect;
    /// True if an edge names the run that it belongs to.
    with_edges_name_incarnation: edges_name_incarnation: bool;
    /// `true` if summaries leave out the fields that Docker's list leaves out.
    with_lean_summary: lean_summary;
    /// The longest that any call may take.
    with_deadline: deadline: Duration;
    /// Interval at which a quiet event stream shows that it is alive.
    with_heartbeat: heartbeat: Option<Duration>;
    /// The silence after which an event stream counts as dead.
    with_max_silence: max_silence: Option<Duration>;
    /// Options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        check_deadline("memory.config", "deadline", self.deadline)?;
        let wrong = if self.heartbeat.is_some_and(|every| every.is_zero()) {
            "the heartbeat is zero"
        } else if self.max_silence.is_some_and(|silence| self.heartbeat.is_none_or(|every| every >= silence)) {
            "max_silence must be longer than the heartbeat, or a quiet link would count as dead"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidInput, "memory.config", wrong).with_context("backend", &self.id))
    }
}

/// Dialect of an event stream, after those of real runtimes.
///
/// | change | `Edges` (as Docker) | `Hints` (as Incus) | `States` (as Kubernetes) |
/// |---|---|---|---|
/// | create, start, die, pause, unpause | `Edge` | `Hint` | `State` |
/// | remove | `Gone` | `Hint` | `Gone` |
/// | rename, health, ports, addresses, labels, signal | `Hint` | `Hint` | `State` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// An event names the change.
    #[default]
    Edges,
    /// An event names only the instance that changed.
    Hints,
    /// An event carries the instance's present state.
    States,
}
