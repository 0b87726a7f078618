//! What a report or a look means for what is known: pure functions from two instances to a third, and to events.

use std::sync::Arc;

use super::source::Edge;
use crate::{
    event::{FieldSet, RuntimeEventKind},
    instance::{BackendId, Class, Instance, InstanceState},
};

/// Whether the two are provably of different lives.
fn other_life(before: &Instance, after: &Instance) -> bool {
    matches!((&before.incarnation, &after.incarnation), (Some(one), Some(other)) if one != other)
}

/// Whether a life began or ended between the two.
pub(super) fn lifecycle_differs(before: &Instance, after: &Instance) -> bool {
    before.state.is_alive() != after.state.is_alive()
        || before.state.is_ended() != after.state.is_ended()
        || other_life(before, after)
}

/// Whether nothing differs but the count of changes.
pub(super) fn is_same(before: &Instance, after: &Instance) -> bool {
    FieldSet::between(before, after).is_empty()
}

/// What is known after a look: what it leaves out stays as it was known, unless it was bound to a life, or to being
/// alive, that is over.
pub(super) fn merged(before: &Instance, look: &Instance) -> Instance {
    let mut after = look.clone();
    take(before, &mut after);
    after
}

/// The same in place.
fn take(before: &Instance, after: &mut Instance) {
    after.keep(before, Class::Stable);
    let begins = !before.state.is_alive() && after.state.is_alive();
    if !begins && !other_life(before, after) {
        after.keep(before, Class::PerRun);
        if !after.state.is_alive() {
            after.keep(before, Class::AtEnd);
        }
        if before.state.is_alive() && after.state.is_alive() {
            after.keep(before, Class::WhileAlive);
        }
    }
    after.generation = before.generation;
}

/// What is still known across a gap of an instance that the look did not show: not which life it is in.
pub(super) fn unseen(before: &Instance) -> Instance {
    let mut after = before.clone();
    begin(&mut after);
    after
}

/// Whether it takes a closer look to tell if they are of one life.
pub(super) fn life_is_open(before: &Instance, look: &Instance) -> bool {
    before.incarnation.is_some() && look.incarnation.is_none()
}

/// What is known after a look across a gap: lives may have begun and ended unseen, so that what was bound to a life is
/// kept only where the look proves that it is the same one.
pub(super) fn merged_over_gap(before: &Instance, look: &Instance) -> Instance {
    let mut after = look.clone();
    take_over_gap(before, &mut after);
    after
}

/// The same in place.
pub(super) fn take_over_gap(before: &Instance, after: &mut Instance) {
    if before.incarnation.is_some() && before.incarnation == after.incarnation {
        return take(before, after);
    }
    after.keep(before, Class::Stable);
    after.generation = before.generation;
}

/// The instance after its life ended unseen.
fn ended(before: &Instance) -> Instance {
    let mut after = before.clone();
    after.state = InstanceState::Stopped;
    after.forget(Class::AtEnd);
    after.forget(Class::WhileAlive);
    after
}

/// What an edge says of an instance that is known; `None`: what is known proves that it is old, or says so already.
pub(super) fn after_edge(before: &Instance, edge: &Edge) -> Option<Instance> {
    let conflict = matches!((&before.incarnation, &edge.incarnation), (Some(one), Some(other)) if one != other);
    let same = matches!((&before.incarnation, &edge.incarnation), (Some(one), Some(other)) if one == other);
    let (was, is) = (before.state, edge.state);
    if is == InstanceState::Created
        || (same && was.is_ended() && is.is_alive()) // that life is over
        || (conflict && was.is_alive() && is.is_ended()) // the end of an earlier life
        || (was.is_ended() && is.is_ended() && (before.exit.is_some() || edge.exit.is_none()))
        || (was == is && !is.is_ended() && !conflict && (edge.incarnation.is_none() || before.incarnation.is_some()))
    {
        return None;
    }
    let mut after = before.clone();
    // Of two reports of one end, the first told the state, and this one tells how.
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

/// Forgets what was bound to an earlier life.
fn begin(after: &mut Instance) {
    after.forget(Class::PerRun);
    after.forget(Class::AtEnd);
    after.forget(Class::WhileAlive);
}

/// What an edge alone says of an instance that nobody knew; `None`: nothing but its id.
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

/// The events that lead from one to the other, oldest first; none if nothing visible differs.
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
        (true, true) if other_life(before, &after) => {
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
        let life = |n: &str| Instance { incarnation: Some(Incarnation::new(n)), ..instance(S::Running) };
        assert_eq!(names(Some(life("1")), life("2")), ["stopped", "started"]);
    }

    #[test]
    fn a_new_life_forgets_what_was_bound_to_the_old_one() {
        let old = Instance {
            exit: Some(ExitStatus::code(3)),
            incarnation: Some(Incarnation::new("1")),
            restarts: Some(4),
            labels: Some(crate::labels::Labels::default()),
            ..instance(S::Stopped)
        };
        let new = merged(&old, &instance(S::Running));
        assert_eq!((new.exit, new.incarnation, new.restarts), (None, None, None));
        assert!(new.labels.is_some(), "labels are not bound to a life");
    }

    #[test]
    fn an_end_forgets_what_was_bound_to_being_alive() {
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
    fn what_the_cache_proves_old_is_dropped() {
        let in_life = |n: &str, state| Instance { incarnation: Some(Incarnation::new(n)), ..instance(state) };
        let of_life = |n: &str, state| Edge { incarnation: Some(Incarnation::new(n)), ..edge(state) };
        assert!(after_edge(&in_life("1", S::Stopped), &of_life("1", S::Running)).is_none(), "that life is over");
        assert!(after_edge(&in_life("2", S::Running), &of_life("1", S::Stopped)).is_none(), "an earlier life's end");
        assert!(after_edge(&instance(S::Running), &edge(S::Running)).is_none());
        assert!(after_edge(&instance(S::Running), &edge(S::Created)).is_none());
        assert!(
            after_edge(&in_life("1", S::Running), &of_life("2", S::Running)).is_some(),
            "a life that nobody saw begin"
        );
    }

    #[test]
    fn a_late_end_still_tells_how() {
        let restarting = instance(S::Restarting);
        let told = after_edge(&restarting, &Edge { exit: Some(ExitStatus::code(7)), ..edge(S::Stopped) }).unwrap();
        assert_eq!((told.state, told.exit), (S::Restarting, Some(ExitStatus::code(7))));
    }

    #[test]
    fn only_what_both_know_can_contradict() {
        let (a, b) = (Instance { restarts: Some(1), ..instance(S::Running) }, instance(S::Running));
        assert!(!a.contradicts(&b));
        assert!(a.contradicts(&Instance { restarts: Some(2), ..b }));
    }
}
