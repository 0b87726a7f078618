//! Comparison of two views of the same instances, in every field that both know.

use std::collections::BTreeMap;

use runtide_core::{ExitStatus, Instance, InstanceId};

/// Fields in which two views of one instance contradict each other. A field that one of them does not know is no contradiction.
pub fn contradictions(left: &Instance, right: &Instance) -> Vec<String> {
    let exits = left.exit.zip(right.exit);
    let is_real = |field: &str| field != "exit" || exits.is_none_or(|(left, right)| !exits_agree(left, right));
    left.differences(right).iter().filter(|one| is_real(one.field)).map(ToString::to_string).collect()
}

/// `true` if two reports of an end do not contradict each other.
pub fn exits_agree(left: ExitStatus, right: ExitStatus) -> bool {
    left.end == right.end && left.oom_killed.zip(right.oom_killed).is_none_or(|(left, right)| left == right)
}

/// Every contradiction between two views of all instances: instances that one side lacks, and the fields of the rest.
pub fn differences<'a>(
    left_name: &str,
    left: impl Iterator<Item = &'a Instance>,
    right_name: &str,
    right: impl Iterator<Item = &'a Instance>,
) -> Vec<String> {
    let left: BTreeMap<&InstanceId, &Instance> = left.map(|one| (&one.id, one)).collect();
    let right: BTreeMap<&InstanceId, &Instance> = right.map(|one| (&one.id, one)).collect();
    let mut found = Vec::new();
    for (id, instance) in &left {
        match right.get(id) {
            None => found.push(format!(
                "'{}' ({id}, {}) is in {left_name} and not in {right_name}",
                instance.name, instance.state
            )),
            Some(other) => {
                for one in contradictions(instance, other) {
                    found.push(format!("'{}' in {left_name} and {right_name}: {one}", instance.name));
                }
            }
        }
    }
    for (id, instance) in right {
        if !left.contains_key(id) {
            found.push(format!(
                "'{}' ({id}, {}) is in {right_name} and not in {left_name}",
                instance.name, instance.state
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use runtide_core::{InstanceKind, InstanceState};

    use super::*;

    fn instance(id: &str, state: InstanceState) -> Instance {
        Instance::new("demo", id, id, InstanceKind::Container, state)
    }

    #[test]
    fn a_field_that_one_side_does_not_know_is_no_contradiction() {
        let mut known = instance("a", InstanceState::Stopped);
        known.exit = Some(ExitStatus::code(3));
        assert_eq!(contradictions(&known, &instance("a", InstanceState::Stopped)), Vec::<String>::new());
        let mut other = known.clone();
        other.exit = Some(ExitStatus::code(4));
        assert_eq!(contradictions(&known, &other).len(), 1);
    }

    #[test]
    fn an_instance_that_either_side_lacks_is_named() {
        let (a, b) = (instance("a", InstanceState::Running), instance("b", InstanceState::Running));
        let found = differences("left", [&a].into_iter(), "right", [&b].into_iter());
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
