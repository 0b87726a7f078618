//! One instance as the runtime itself keeps it, in the runtime's own words.

use std::time::SystemTime;

use runtide_core::{ExitStatus, Incarnation, InstanceId, InstanceState, UnixSignal, manager::TtySize};

use super::{Blueprint, Surroundings};

/// Record of an instance, as it travels over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: InstanceId,
    /// Its specification, as changed since its creation.
    pub(crate) design: Blueprint,
    pub(crate) phase: Phase,
    /// Number of its starts; 0: it never ran.
    pub(crate) life: u64,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) created_at: SystemTime,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) finished_at: Option<SystemTime>,
    pub(crate) restarts: u32,
    /// Signals that wait for a frozen process to thaw.
    pub(super) pending: Vec<UnixSignal>,
    /// Exit with which it ends once it thaws.
    pub(super) overdue: Option<ExitStatus>,
    pub(super) tty: Option<TtySize>,
    /// Memory in use, in bytes.
    pub(super) memory: u64,
}

/// The runtime's own words for what Runtide calls a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Starting,
    Running,
    Paused,
    Restarting,
    Stopping,
    Exited,
    Failed,
    /// A word of a later version.
    Other,
}

impl Phase {
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopping)
    }
}

impl From<InstanceState> for Phase {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Created => Self::Created,
            InstanceState::Starting => Self::Starting,
            InstanceState::Running => Self::Running,
            InstanceState::Paused => Self::Paused,
            InstanceState::Restarting => Self::Restarting,
            InstanceState::Stopping => Self::Stopping,
            InstanceState::Stopped => Self::Exited,
            InstanceState::Failed => Self::Failed,
            _ => Self::Other,
        }
    }
}

impl Record {
    pub(super) fn new(id: InstanceId, design: Blueprint, created_at: SystemTime) -> Self {
        Self {
            id,
            design,
            phase: Phase::Created,
            life: 0,
            exit: None,
            created_at,
            started_at: None,
            finished_at: None,
            restarts: 0,
            pending: Vec::new(),
            overdue: None,
            tty: None,
            memory: 16 << 20,
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.phase == Phase::Paused
    }

    /// Command line, environment, user and folder of its processes.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let Blueprint { command, env, user, working_dir, .. } = &self.design;
        let (argv, env) = (command.clone(), env.clone());
        Surroundings { argv, env, user: user.clone(), working_dir: working_dir.clone() }
    }

    /// The present or last run; `None`: it never ran.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        (self.life > 0).then(|| Incarnation::from(format!("{}#{}", self.id, self.life)))
    }
}
