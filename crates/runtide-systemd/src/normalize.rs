//! Conversion of systemd's terms into Runtide's: pure functions, no I/O. The tables are in the crate's README.

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

/// The `Result` of a successful start, and of one that could not execute anything.
const SUCCESS: &str = "success";
const RESOURCES: &str = "resources";

/// Maps a unit's three states to one; total. `began`: it left its initial state at least once. `is_job`: its type is
/// `oneshot`, so that systemd's start job is its whole run. `is_over`: its main process ran in this run, and ended.
pub(crate) fn state(active: &str, sub: &str, freezer: &str, began: bool, is_job: bool, is_over: bool) -> InstanceState {
    use InstanceState as S;
    let state = match active {
        // The process is gone, and systemd keeps the unit up (RemainAfterExit=).
        "active" if sub == "exited" => S::Stopped,
        // The remaining steps (ExecStop=, ExecStopPost=, a reload) are not part of its run.
        "deactivating" | "reloading" | "refreshing" if is_over => S::Stopped,
        "active" | "reloading" | "refreshing" => S::Running,
        "activating" if sub.starts_with("auto-restart") => S::Restarting,
        "activating" if is_job && sub == "start" => S::Running,
        "activating" => S::Starting,
        "deactivating" => S::Stopping,
        "failed" => S::Failed,
        // `maintenance`: systemd removes the files of the unit.
        "inactive" | "maintenance" if began => S::Stopped,
        "inactive" | "maintenance" => S::Created,
        _ => S::Unknown,
    };
    match freezer {
        "frozen" | "frozen-by-parent" | "thawing" if state.is_alive() || state == S::Starting => S::Paused,
        _ => state,
    }
}

/// The exit of the main process; `None`: it has not ended, or its end was not observed.
pub(crate) fn exit(service: &ServiceProperties) -> Option<ExitStatus> {
    let status = service.exec_main_status?;
    let ended = match service.exec_main_code? {
        EXITED => ExitStatus::code(status),
        KILLED | DUMPED => ExitStatus::signal(UnixSignal(NonZeroU8::new(u8::try_from(status).ok()?)?)),
        _ => return None,
    };
    Some(if service.result.as_deref() == Some("oom-kill") { ended.with_oom_killed(true) } else { ended })
}

/// The incarnation of an InvocationID, in hexadecimal, as `systemctl` and the journal format it; none before the first
/// run.
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

/// The time of microseconds since 1970; 0 and 2^64-1 mean never.
pub(crate) fn time(microseconds: u64) -> Option<SystemTime> {
    if matches!(microseconds, 0 | u64::MAX) {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(microseconds))
}

/// The display name: a service's without its type, as `systemctl` accepts it.
pub(crate) fn name(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

/// True if no process of a unit in this state is left.
pub(crate) fn rests(active: &str) -> bool {
    matches!(active, "inactive" | "failed" | "maintenance")
}

/// True if the run of the unit's InvocationID began. It did if the unit left the inactive state after the conditions of
/// its last start were checked. Otherwise
/// * the start is under way: its job is pending. It has an InvocationID, and reset what the service had of its main
///   process;
/// * or it could not execute anything (`resources`), after the same;
/// * or it was refused before, by a condition, an assertion or the limit of starts, so that the InvocationID is that of
///   the run before, which began.
///
/// Without the service they look the same, and the answer is `false`.
pub(crate) fn is_begun(about: &UnitProperties, service: Option<&ServiceProperties>) -> bool {
    let began = about.inactive_exit_timestamp_monotonic.unwrap_or(0);
    let is_pending = about.job.as_ref().is_some_and(|(job, _)| *job != 0);
    let is_refused = |service: &ServiceProperties| {
        let is_over = !is_pending && service.result.as_deref().is_some_and(|result| result != RESOURCES);
        has_main_ended(service) || is_over
    };
    !rests(about.active_state.as_deref().unwrap_or_default())
        || about.condition_timestamp_monotonic.unwrap_or(0) <= began
        || began != 0 && service.is_some_and(is_refused)
}

/// The unit's present or last start, which may have become no run.
pub(crate) fn last_start(about: &UnitProperties) -> Option<Incarnation> {
    about.invocation_id.as_deref().and_then(incarnation)
}

/// The unit's current run, or its last one.
pub(crate) fn run(about: &UnitProperties, service: Option<&ServiceProperties>) -> Option<Incarnation> {
    if about.inactive_exit_timestamp_monotonic.unwrap_or(0) == 0 || !is_begun(about, service) {
        return None;
    }
    last_start(about)
}

/// True if the main process of the last start ran, and ended: each start resets what a service has of its main process.
pub(crate) fn has_main_ended(service: &ServiceProperties) -> bool {
    service.exec_main_code.unwrap_or(0) != 0 && service.exec_main_start_timestamp_monotonic.unwrap_or(0) != 0
}

/// The instance that these properties describe; missing properties are unknown. `None`: the state is missing.
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
    let is_over = service.is_some_and(|service| service.main_pid == Some(0) && has_main_ended(service));
    let state = state(active, sub, freezer, began != 0, is_job, is_over);
    let mut instance = Instance::new(backend.clone(), unit, name(unit), InstanceKind::Service, state);
    let rests = rests(active);
    instance.incarnation = run(about, service);
    if began != 0 {
        instance.started_at = about.inactive_exit_timestamp.and_then(time);
    }
    if state.is_ended() {
        instance.finished_at = if rests { about.inactive_enter_timestamp.and_then(time) } else { None };
    }
    if let Some(service) = service {
        instance.restarts = service.restarts;
        if state.is_ended() {
            instance.exit = exit(service);
            instance.finished_at = instance.finished_at.or_else(|| service.exec_main_exit_timestamp.and_then(time));
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

#[cfg(test)]
mod tests {
    use zbus::OwnedObjectPath;

    use super::*;

    #[test]
    fn every_state_of_a_unit_has_one_of_ours() {
        use InstanceState as S;
        // ActiveState, SubState, FreezerState, began, is a job, main process over.
        for (active, sub, freezer, began, is_job, is_over, expected) in [
            ("inactive", "dead", "running", false, false, false, S::Created),
            ("inactive", "dead", "running", true, false, true, S::Stopped),
            ("maintenance", "cleaning", "running", false, false, false, S::Created),
            ("maintenance", "cleaning", "running", true, false, true, S::Stopped),
            ("failed", "failed", "running", true, false, true, S::Failed),
            ("activating", "condition", "running", true, false, false, S::Starting),
            ("activating", "start-pre", "running", true, true, false, S::Starting),
            ("activating", "start", "running", true, false, false, S::Starting),
            ("activating", "start", "running", true, true, false, S::Running),
            ("activating", "start-post", "running", true, false, false, S::Starting),
            ("activating", "auto-restart", "running", true, false, true, S::Restarting),
            ("activating", "auto-restart-queued", "running", true, false, true, S::Restarting),
            ("active", "running", "running", true, false, false, S::Running),
            ("active", "exited", "running", true, true, true, S::Stopped),
            ("active", "abandoned", "running", true, false, false, S::Running),
            ("active", "running", "freezing", true, false, false, S::Running),
            ("active", "running", "frozen", true, false, false, S::Paused),
            ("active", "running", "frozen-by-parent", true, false, false, S::Paused),
            ("active", "running", "thawing", true, false, false, S::Paused),
            ("activating", "start", "frozen", true, false, false, S::Paused),
            ("active", "exited", "frozen", true, true, true, S::Stopped),
            ("reloading", "reload", "running", true, false, false, S::Running),
            ("reloading", "reload", "running", true, true, true, S::Stopped),
            ("refreshing", "refresh", "running", true, false, false, S::Running),
            ("deactivating", "stop-sigterm", "running", true, false, false, S::Stopping),
            ("deactivating", "stop", "running", true, true, true, S::Stopped),
            ("deactivating", "stop-sigterm", "frozen", true, false, false, S::Paused),
            ("inactive", "dead", "frozen", true, false, true, S::Stopped),
            ("tumbling", "down", "running", true, false, false, S::Unknown),
            ("", "", "", false, false, false, S::Unknown),
        ] {
            assert_eq!(state(active, sub, freezer, began, is_job, is_over), expected, "{active} {sub} {freezer}");
        }
    }

    fn ended(code: i32, status: i32, result: &str) -> ServiceProperties {
        ServiceProperties {
            exec_main_code: Some(code),
            exec_main_status: Some(status),
            result: Some(result.to_owned()),
            ..ServiceProperties::default()
        }
    }

    #[test]
    fn an_exit_is_what_systemd_saw_and_nothing_else() {
        assert_eq!(exit(&ended(EXITED, 3, "exit-code")), Some(ExitStatus::code(3)));
        assert_eq!(exit(&ended(KILLED, 9, "signal")), Some(ExitStatus::signal(UnixSignal::KILL)));
        let dumped = exit(&ended(DUMPED, 6, "core-dump")).unwrap();
        assert_eq!((dumped.end, dumped.oom_killed), (ExitStatus::signal("ABRT".parse().unwrap()).end, None));
        assert_eq!(exit(&ended(KILLED, 9, "oom-kill")).unwrap().oom_killed, Some(true));
        for (code, status) in [(0, 0), (KILLED, 0), (KILLED, 4_711), (7, 1)] {
            assert_eq!(exit(&ended(code, status, "success")), None, "{code} {status}");
        }
    }

    fn unit(active: &str, condition: u64, began: u64) -> UnitProperties {
        UnitProperties {
            active_state: Some(active.to_owned()),
            sub_state: Some("dead".to_owned()),
            invocation_id: Some(vec![0xab; 16]),
            condition_timestamp_monotonic: Some(condition),
            inactive_exit_timestamp_monotonic: Some(began),
            ..UnitProperties::default()
        }
    }

    #[test]
    fn a_run_exists_once_the_unit_left_the_inactive_state() {
        let of = |about: &UnitProperties| run(about, None);
        assert_eq!(of(&unit("inactive", 10, 0)), None, "a start is under way, or its condition was not met");
        assert_eq!(of(&unit("inactive", 30, 20)), None, "there was another start since");
        assert_eq!(of(&unit("inactive", 10, 20)), incarnation(&[0xab; 16]));
        assert_eq!(of(&unit("active", 10, 20)), incarnation(&[0xab; 16]));
        assert_eq!(incarnation(&[0; 16]), None);
        assert_eq!(incarnation(&[]), None);
    }

    #[test]
    fn a_start_that_became_no_run_takes_only_what_is_its_own() {
        let id = BackendId::from("b");
        let run = incarnation(&[0xab; 16]);
        // Result, start of the main process, its code; incarnation, exit.
        for (result, began, code, incarnation, exit) in [
            ("exit-code", 12, EXITED, &run, Some(ExitStatus::code(3))), // refused, by whatever
            ("start-limit-hit", 12, EXITED, &run, Some(ExitStatus::code(3))), // refused, after a run that ended well
            ("exit-code", 0, 0, &run, None), // refused, after a run whose ExecStartPre= failed
            ("resources", 0, 0, &None, None), // another start, with an InvocationID of its own
            ("resources", 12, EXITED, &run, Some(ExitStatus::code(3))), // refused, after a run whose ExecStopPost= failed
        ] {
            let service =
                ServiceProperties { exec_main_start_timestamp_monotonic: Some(began), ..ended(code, 3, result) };
            let about = unit("failed", 90, 20);
            let seen = instance(&id, "a.service", &about, Some(&service)).unwrap();
            assert_eq!((&seen.incarnation, seen.exit), (incarnation, exit), "{result} {began}");
            let seen = instance(&id, "a.service", &unit("failed", 5, 20), Some(&service)).unwrap();
            assert_eq!((&seen.incarnation, seen.exit), (&run, exit), "no start since: {result} {began}");
        }
        let under_way = UnitProperties { job: Some((7, OwnedObjectPath::default())), ..unit("inactive", 90, 20) };
        assert!(!is_begun(&under_way, Some(&ended(0, 0, "success"))));
    }
}
