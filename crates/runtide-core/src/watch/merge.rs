//! Merging of a report or an answer into a row: pure functions from two instances to a third, and to events. The `Class` of a
//! field says if it is kept: `Stable` from run to run, `PerRun` within a run, `WhileAlive` until the run's end, `AtEnd` from the
//! end to the next start.

use std::sync::Arc;

use super::source::Edge;
use crate::{
    event::{FieldSet, RuntimeEventKind},
    instance::{BackendId, Class, Instance, InstanceState},
};

/// True if the two are provably of different incarnations.
fn other_incarnation(before: &Instance, after: &Instance) -> bool {
    matches!((&before.incarnation, &after.incarnation), (Some(one), Some(other)) if one != other)
}

/// True if a run of the instance began or ended between the two.
pub(super) fn lifecycle_differs(before: &Instance, after: &Instance) -> bool {
    before.state.is_alive() != after.state.is_alive()
        || before.state.is_ended() != after.state.is_ended()
        || other_incarnation(before, after)
}

/// True if no field differs except `generation`, the driver's count of changes.
pub(super) fn is_same(before: &Instance, after: &Instance) -> bool {
    FieldSet::between(before, after).is_empty()
}

/// The row after an answer. Fields that the answer does not know keep the row's values, unless those belong to a run that is
/// over.
pub(super) fn merged(before: &Instance, seen: &Instance) -> Instance {
    let mut after = seen.clone();
    take(before, &mut after);
    after
}

/// As [`merged`], in place.
fn take(before: &Instance, after: &mut Instance) {
    after.keep(before, Class::Stable);
    let begins = !before.state.is_alive() && after.state.is_alive();
    if !begins && !other_incarnation(before, after) {
        after.keep(before, Class::PerRun);
        if !after.state.is_alive() {
            after.keep(before, Class::AtEnd);
            keep_end(before, after);
        }
        if before.state.is_alive() && after.state.is_alive() {
            after.keep(before, Class::WhileAlive);
        }
    }
    after.generation = before.generation;
}

/// A run ends once. If the answer has another end for the very run that is over in the row, the runtime wrote over it: Docker does
/// so when a start fails, and when its daemon comes back to a container that it was about to start again.
fn keep_end(before: &Instance, after: &mut Instance) {
    let is_same_end = before.state.is_ended()
        && after.state.is_ended()
        && before.incarnation.is_some()
        && before.incarnation == after.incarnation;
    if let (true, Some(was), Some(is)) = (is_same_end, before.exit, after.exit)
        && was.end != is.end
    {
        after.exit = before.exit;
        if before.finished_at.is_some() {
            after.finished_at = before.finished_at;
        }
    }
}

/// The row of an instance that an incomplete listing after a gap did not show. It may be in another run by now, so the fields of
/// its run are forgotten.
pub(super) fn unseen(before: &Instance) -> Instance {
    let mut after = before.clone();
    begin(&mut after);
    after
}

/// True if the row names an incarnation and the answer does not: they may be of different runs.
pub(super) fn incarnation_is_open(before: &Instance, seen: &Instance) -> bool {
    before.incarnation.is_some() && seen.incarnation.is_none()
}

/// The row after the first answer behind a gap. Runs may have begun and ended in the gap, so the fields of a run are kept only if
/// the answer proves that it is the same run.
pub(super) fn merged_over_gap(before: &Instance, seen: &Instance) -> Instance {
    let mut after = seen.clone();
    take_over_gap(before, &mut after);
    after
}

/// As [`merged_over_gap`], in place.
pub(super) fn take_over_gap(before: &Instance, after: &mut Instance) {
    if before.incarnation.is_some() && before.incarnation == after.incarnation {
        return take(before, after);
    }
    after.keep(before, Class::Stable);
    after.generation = before.generation;
}

/// The instance at the end of a run whose end was not reported: how it ended is not known.
fn ended(before: &Instance) -> Instance {
    let mut after = before.clone();
    after.state = InstanceState::Stopped;
    after.forget(Class::AtEnd);
    after.forget(Class::WhileAlive);
    after
}

/// The row after an edge. `None`: the row proves that the edge is old, or already has what it reports.
pub(super) fn after_edge(before: &Instance, edge: &Edge) -> Option<Instance> {
    let conflict = matches!((&before.incarnation, &edge.incarnation), (Some(one), Some(other)) if one != other);
    let same = matches!((&before.incarnation, &edge.incarnation), (Some(one), Some(other)) if one == other);
    let (was, is) = (before.state, edge.state);
    if is == InstanceState::Created
        || (same && was.is_ended() && is.is_alive()) // that run is over
        || (conflict && was.is_alive() && is.is_ended()) // the end of an earlier run
        // a second report of an end, with nothing new
        || (was.is_ended() && is.is_ended() && (before.exit.is_some() || edge.exit.is_none()))
        // the state of the row, without an incarnation that the row lacks
        || (was == is && !is.is_ended() && !conflict && (edge.incarnation.is_none() || before.incarnation.is_some()))
    {
        return None;
    }
    let mut after = before.clone();
    // A second report of the same end only adds the exit: the first decided the state, which may be `Restarting`.
    after.state = if was.is_ended() && is.is_ended() { was } else { is };
    if conflict || (!was.is_alive() && is.is_alive()) {
        begin(&mut after);
    } else if was.is_alive() != is.is_alive() {
        after.forget(Class::WhileAlive);
    }
    if edge.incarnation.is_some() {
        after.incarnation.clone_from(&edge.incarnation);
    }
    if edge.exit.is_some() {
        after.exit = edge.exit;
    }
    Some(after)
}

/// Forgets the fields of an earlier run.
fn begin(after: &mut Instance) {
    after.forget(Class::PerRun);
    after.forget(Class::AtEnd);
    after.forget(Class::WhileAlive);
}

/// The row of an instance that is not in the cache, from an edge alone. `None`: the edge does not describe the instance.
pub(super) fn from_edge(backend: &BackendId, edge: &Edge) -> Option<Instance> {
    let mut instance = Instance::clone(edge.described.as_deref()?);
    instance.backend = backend.clone();
    instance.state = edge.state;
    if edge.incarnation.is_some() {
        instance.incarnation.clone_from(&edge.incarnation);
    }
    instance.exit = edge.exit;
    Some(instance)
}

/// The events that lead from one row to the next, oldest first; none if no field that consumers see differs.
pub(super) fn events(before: Option<&Arc<Instance>>, after: &Arc<Instance>) -> [Option<RuntimeEventKind>; 2] {
    let after = Arc::clone(after);
    let Some(before) = before else {
        return [
            Some(if after.state.is_alive() {
                RuntimeEventKind::Started(after)
            } else if after.state.is_ended() {
                RuntimeEventKind::Stopped(after)
            } else {
                RuntimeEventKind::Updated { changed: FieldSet::known(&after), instance: after }
            }),
            None,
        ];
    };
    match (before.state.is_alive(), after.state.is_alive()) {
        (false, true) => [Some(RuntimeEventKind::Started(after)), None],
        (true, true) if other_incarnation(before, &after) => {
            [Some(RuntimeEventKind::Stopped(Arc::new(ended(before)))), Some(RuntimeEventKind::Started(after))]
        }
        _ if !before.state.is_ended() && after.state.is_ended() => [Some(RuntimeEventKind::Stopped(after)), None],
        _ => {
            let changed = FieldSet::between(before, &after);
            [(!changed.is_empty()).then_some(RuntimeEventKind::Updated { instance: after, changed }), None]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{ExitStatus, Health, Incarnation, InstanceKind, InstanceState as S};

    fn instance(state: S) -> Instance {
        Instance::new("b", "i", "name", InstanceKind::Container, state)
    }

    fn edge(state: S) -> Edge {
        Edge { id: "i".into(), incarnation: None, state, exit: None, described: None }
    }

    fn names(before: Option<Instance>, after: Instance) -> Vec<&'static str> {
        let before = before.map(Arc::new);
        events(before.as_ref(), &Arc::new(after)).iter().flatten().map(RuntimeEventKind::name).collect()
    }

    #[test]
    fn each_step_has_its_event() {
        assert_eq!(names(None, instance(S::Running)), ["started"]);
        assert_eq!(names(None, instance(S::Stopped)), ["stopped"]);
        assert_eq!(names(None, instance(S::Created)), ["updated"]);
        assert_eq!(names(Some(instance(S::Created)), instance(S::Running)), ["started"]);
        assert_eq!(names(Some(instance(S::Created)), instance(S::Stopped)), ["stopped"], "a start that failed");
        assert_eq!(names(Some(instance(S::Running)), instance(S::Stopped)), ["stopped"]);
        assert_eq!(names(Some(instance(S::Running)), instance(S::Restarting)), ["stopped"]);
        assert_eq!(names(Some(instance(S::Stopped)), instance(S::Restarting)), ["updated"]);
        assert_eq!(names(Some(instance(S::Restarting)), instance(S::Running)), ["started"]);
        assert_eq!(names(Some(instance(S::Running)), instance(S::Paused)), ["updated"]);
        assert_eq!(names(Some(instance(S::Paused)), instance(S::Running)), ["updated"]);
        assert_eq!(names(Some(instance(S::Running)), instance(S::Running)), [""; 0]);
        let run = |n: &str| Instance { incarnation: Some(Incarnation::new(n)), ..instance(S::Running) };
        assert_eq!(names(Some(run("1")), run("2")), ["stopped", "started"]);
    }

    #[test]
    fn a_new_run_forgets_the_fields_of_the_old_one() {
        let old = Instance {
            exit: Some(ExitStatus::code(3)),
            incarnation: Some(Incarnation::new("1")),
            restarts: Some(4),
            labels: Some(crate::labels::Labels::default()),
            ..instance(S::Stopped)
        };
        let new = merged(&old, &instance(S::Running));
        assert_eq!((new.exit, new.incarnation, new.restarts), (None, None, None));
        assert!(new.labels.is_some(), "labels do not belong to a run");
    }

    #[test]
    fn an_end_forgets_the_fields_of_a_running_instance() {
        let old = Instance {
            health: Some(Health::Healthy),
            addresses: Some(vec![]),
            incarnation: Some(Incarnation::new("1")),
            ..instance(S::Running)
        };
        let ended = after_edge(&old, &Edge { exit: Some(ExitStatus::code(1)), ..edge(S::Stopped) }).unwrap();
        assert_eq!((ended.health, &ended.addresses), (None, &None));
        assert_eq!((ended.exit, ended.incarnation), (Some(ExitStatus::code(1)), old.incarnation));
    }

    #[test]
    fn an_edge_that_the_row_proves_old_is_dropped() {
        let in_run = |n: &str, state| Instance { incarnation: Some(Incarnation::new(n)), ..instance(state) };
        let of_run = |n: &str, state| Edge { incarnation: Some(Incarnation::new(n)), ..edge(state) };
        assert!(after_edge(&in_run("1", S::Stopped), &of_run("1", S::Running)).is_none(), "that run is over");
        assert!(after_edge(&in_run("2", S::Running), &of_run("1", S::Stopped)).is_none(), "the end of an earlier run");
        assert!(after_edge(&instance(S::Running), &edge(S::Running)).is_none());
        assert!(after_edge(&instance(S::Running), &edge(S::Created)).is_none());
        assert!(
            after_edge(&in_run("1", S::Running), &of_run("2", S::Running)).is_some(),
            "a run whose beginning was not reported"
        );
    }

    #[test]
    fn an_end_that_is_written_over_stays_that_of_the_run() {
        let ended = |run: &str, exit: ExitStatus, at: u64| Instance {
            incarnation: Some(Incarnation::new(run)),
            exit: Some(exit),
            finished_at: Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at)),
            ..instance(S::Stopped)
        };
        let before = ended("1", ExitStatus::code(5), 10);
        let over = ended("1", ExitStatus::code(0), 20);
        for after in [merged(&before, &over), merged_over_gap(&before, &over)] {
            assert_eq!((after.exit, after.finished_at), (before.exit, before.finished_at));
        }
        let next = ended("2", ExitStatus::code(0), 20);
        assert_eq!(merged(&before, &next).exit, next.exit, "another run has its own end");
        let more = ended("1", ExitStatus::code(5).with_oom_killed(true), 10);
        assert_eq!(merged(&before, &more).exit, more.exit, "the same end, with more known of it");
    }

    #[test]
    fn a_late_end_still_has_its_exit() {
        let restarting = instance(S::Restarting);
        let ended = after_edge(&restarting, &Edge { exit: Some(ExitStatus::code(7)), ..edge(S::Stopped) }).unwrap();
        assert_eq!((ended.state, ended.exit), (S::Restarting, Some(ExitStatus::code(7))));
    }

    #[test]
    fn only_fields_that_both_views_know_can_contradict() {
        let (a, b) = (Instance { restarts: Some(1), ..instance(S::Running) }, instance(S::Running));
        assert!(!a.contradicts(&b));
        assert!(a.contradicts(&Instance { restarts: Some(2), ..b }));
    }
}
