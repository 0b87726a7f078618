//! systemd's words for what Runtide calls otherwise: pure functions, no I/O. The tables are in the crate's README.

use std::{
    num::NonZeroU8,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{
    BackendId, ExitStatus, Group, GroupKind, Incarnation, Instance, InstanceKind, InstanceState, UnixSignal,
};

use crate::{
    names,
    properties::{ServiceProperties, UnitProperties},
};

/// `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED` of waitid(2).
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

/// What systemd calls a start that went well.
const SUCCESS: &str = "success";

/// What a unit's three states mean together; total.
///
/// `began`: whether it ever left the state in which it was loaded. `is_job`: its type is `oneshot`, so that what systemd calls
/// its start is all of its life.
pub(crate) fn state(active: &str, sub: &str, freezer: &str, began: bool, is_job: bool) -> InstanceState {
    use InstanceState as S;
    let state = match active {
        // The process is gone, and systemd keeps the unit up (RemainAfterExit=).
        "active" if sub == "exited" => S::Stopped,
        "active" | "reloading" | "refreshing" => S::Running,
        "activating" if sub.starts_with("auto-restart") => S::Restarting,
        "activating" if is_job && sub == "start" => S::Running,
        "activating" => S::Starting,
        "deactivating" => S::Stopping,
        "failed" => S::Failed,
        // `maintenance`: systemd clears up what it left on the disk.
        "inactive" | "maintenance" if began => S::Stopped,
        "inactive" | "maintenance" => S::Created,
        _ => S::Unknown,
    };
    match freezer {
        "frozen" | "frozen-by-parent" | "thawing" if state.is_alive() || state == S::Starting => S::Paused,
        _ => state,
    }
}

/// How a main process ended; `None`: it did not, or nobody saw it.
pub(crate) fn exit(service: &ServiceProperties) -> Option<ExitStatus> {
    let status = service.exec_main_status?;
    let ended = match service.exec_main_code? {
        EXITED => ExitStatus::code(status),
        KILLED | DUMPED => ExitStatus::signal(UnixSignal(NonZeroU8::new(u8::try_from(status).ok()?)?)),
        _ => return None,
    };
    Some(if service.result.as_deref() == Some("oom-kill") { ended.with_oom_killed(true) } else { ended })
}

/// A life by its InvocationID, in hexadecimal, as `systemctl` and the journal write it; none before the first.
pub(crate) fn incarnation(id: &[u8]) -> Option<Incarnation> {
    use std::fmt::Write as _;
    if id.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(id.len() * 2);
    for byte in id {
        let _ = write!(text, "{byte:02x}");
    }
    Some(Incarnation::from(text))
}

/// Microseconds since 1970; 0 and 2^64-1 stand for never.
pub(crate) fn time(microseconds: u64) -> Option<SystemTime> {
    if matches!(microseconds, 0 | u64::MAX) {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(microseconds))
}

/// The name for people: a service's without its type, as `systemctl` takes it.
pub(crate) fn name(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

/// Whether the main process of which a service speaks ran in its present life, and ended. A life is begun to be started before its
/// first process is; behind a restart of systemd's own, it ceases to be inactive after that.
pub(crate) fn is_of_life(about: &UnitProperties, service: &ServiceProperties) -> bool {
    let began = about.inactive_exit_timestamp_monotonic.unwrap_or(0);
    let tried = about.condition_timestamp_monotonic.filter(|at| *at != 0).map_or(began, |at| at.min(began));
    service.exec_main_code.unwrap_or(0) != 0
        && service.exec_main_start_timestamp_monotonic.is_some_and(|at| at != 0 && at >= tried)
}

/// What is known of a unit from these properties; what they leave out is unknown. `None`: they do not say in which state it is.
pub(crate) fn instance(
    backend: &BackendId,
    unit: &str,
    about: &UnitProperties,
    service: Option<&ServiceProperties>,
) -> Option<Instance> {
    let (active, sub) = (about.active_state.as_deref()?, about.sub_state.as_deref().unwrap_or_default());
    let freezer = about.freezer_state.as_deref().unwrap_or_default();
    let began = about.inactive_exit_timestamp_monotonic.unwrap_or(0);
    let is_job = service.and_then(|service| service.kind.as_deref()) == Some("oneshot");
    let state = state(active, sub, freezer, began != 0, is_job);
    let mut instance = Instance::new(backend.clone(), unit, name(unit), InstanceKind::Service, state);
    let rests = matches!(active, "inactive" | "failed" | "maintenance");
    // A start that is under way has an InvocationID already, and is not yet a life; one whose condition fails never is.
    let is_begun = !rests || about.condition_timestamp_monotonic.unwrap_or(0) <= began;
    if is_begun && began != 0 {
        instance.incarnation = about.invocation_id.as_deref().and_then(incarnation);
    }
    if began != 0 {
        instance.started_at = about.inactive_exit_timestamp.and_then(time);
    }
    if state.is_ended() {
        instance.finished_at = if rests { about.inactive_enter_timestamp.and_then(time) } else { None };
    }
    if let Some(service) = service {
        instance.restarts = service.restarts;
        let is_of_this_life = !is_begun || is_of_life(about, service);
        if state.is_ended() && is_of_this_life {
            instance.exit = exit(service);
            instance.finished_at = instance.finished_at.or_else(|| service.exec_main_exit_timestamp.and_then(time));
        }
        if state.is_ended() {
            instance.reason = service.result.as_deref().filter(|result| *result != SUCCESS).map(Arc::from);
        }
        instance.group = service.slice.as_deref().filter(|slice| !slice.is_empty()).map(|slice| {
            let triggers = about.triggered_by.clone().unwrap_or_default();
            let triggers = {
                let mut sorted = triggers;
                sorted.sort();
                sorted
            };
            Arc::new(Group::new(GroupKind::Slice, slice).with_service(names::template_of(unit)).with_triggers(triggers))
        });
    }
    Some(instance)
}
