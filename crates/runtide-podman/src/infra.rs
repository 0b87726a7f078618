//! [`Known`]: what is known of each container beside its row: if it holds a pod together, if its last run was out of memory, and if it
//! joined a network lately; and the names of pods. The inspector writes it, and the source.
//!
//! A pod's infra container is in every listing and in the messages, and is no instance (trap P14). Messages do not say that they are
//! about one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use runtide_core::{Instance, InstanceId, Listing, backend::lock};

/// State that one backend's inspector and its source share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    containers: HashMap<InstanceId, Entry>,
    /// Names of pods by their ids; a pod is never renamed.
    pods: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// `None`: it was met in a message of a network alone, which does not say it.
    is_infra: Option<bool>,
    /// The last run was out of memory. A list does not say it, and must not take back what an inspection said.
    oom_killed: Option<bool>,
    /// It joined or left a network: only an inspection has its addresses.
    is_rewired: bool,
    /// Seen since the last pruning.
    is_fresh: bool,
}

impl Known {
    /// `None`: it is not known.
    pub(crate) fn is_infra(&self, id: &str) -> Option<bool> {
        self.containers.get(id).and_then(|entry| entry.is_infra)
    }

    pub(crate) fn learn(&mut self, id: &str, is_infra: bool) {
        let entry = match self.containers.get_mut(id) {
            Some(entry) => entry,
            None => self.containers.entry(InstanceId::from(id)).or_default(),
        };
        entry.is_infra = Some(is_infra);
        entry.is_fresh = true;
    }

    /// A run began: nothing is known of its end.
    pub(crate) fn begins(&mut self, id: &str) {
        if let Some(entry) = self.containers.get_mut(id) {
            entry.oom_killed = None;
        }
    }

    /// It joined or left a network.
    pub(crate) fn rewire(&mut self, id: &InstanceId) {
        self.containers.entry(id.clone()).or_default().is_rewired = true;
    }

    /// True if it joined or left a network since this was asked last.
    pub(crate) fn take_rewired(&mut self, id: &InstanceId) -> bool {
        self.containers.get_mut(id).is_some_and(|entry| std::mem::take(&mut entry.is_rewired))
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// Adds to a listed instance what only an inspection says, and learns it from an inspected one.
    pub(crate) fn complete(&mut self, instance: &mut Instance) {
        let entry = self.containers.entry(instance.id.clone()).or_default();
        entry.is_fresh = true;
        if let Some(exit) = &mut instance.exit {
            entry.oom_killed = exit.oom_killed.or(entry.oom_killed);
            *exit = exit.with_oom_killed(entry.oom_killed);
        }
    }

    /// Drops the containers that a complete listing lacks, unless they were met since the one before.
    pub(crate) fn prune(&mut self, listing: &Listing) {
        if !listing.is_complete() {
            return;
        }
        let listed: HashSet<&InstanceId> = listing.instances.iter().map(|instance| &instance.id).collect();
        self.containers.retain(|id, entry| std::mem::take(&mut entry.is_fresh) || listed.contains(id));
    }

    pub(crate) fn pod(&self, id: &str) -> Option<&str> {
        self.pods.get(id).map(String::as_str)
    }

    pub(crate) fn learn_pod(&mut self, id: &str, name: &str) {
        if self.pods.get(id).is_none_or(|known| known != name) {
            self.pods.insert(id.to_owned(), name.to_owned());
        }
    }

    pub(crate) fn forget_pod(&mut self, id: &str) {
        self.pods.remove(id);
    }
}

/// The name that Podman gives an infra container, unless its user gives another.
pub(crate) fn has_infra_name(name: &str, pod: &str) -> bool {
    name.strip_suffix("-infra").is_some_and(|begin| !begin.is_empty() && pod.get(..12) == Some(begin))
}

#[cfg(test)]
mod tests {
    use runtide_core::{ExitStatus, InstanceKind, InstanceState};

    use super::*;

    #[test]
    fn a_list_does_not_take_back_what_an_inspection_said() {
        let mut known = Known::default();
        let ended = |oom_killed: Option<bool>| {
            let mut instance = Instance::new("podman:test", "a1", "a", InstanceKind::Container, InstanceState::Stopped);
            instance.exit = Some(ExitStatus::code(137).with_oom_killed(oom_killed));
            instance
        };
        let mut listed = ended(None);
        known.complete(&mut ended(Some(true)));
        known.complete(&mut listed);
        assert_eq!(listed.exit.unwrap().oom_killed, Some(true));
        known.begins("a1");
        let mut next = ended(None);
        known.complete(&mut next);
        assert_eq!(next.exit.unwrap().oom_killed, None, "that was the run before");
    }

    #[test]
    fn a_message_of_a_network_does_not_say_what_a_container_is() {
        let (mut known, id) = (Known::default(), InstanceId::from("a1"));
        known.rewire(&id);
        assert_eq!(known.is_infra("a1"), None);
        known.learn("a1", true);
        known.rewire(&id);
        assert_eq!(known.is_infra("a1"), Some(true));
        assert!(known.take_rewired(&id));
    }

    #[test]
    fn the_name_of_an_infra_container_begins_with_its_pods_id() {
        let pod = "d869db4a3ed9c08fa5aaa53ee1dd16a8267dfd622366827db6e97860b98303d5";
        assert!(has_infra_name("d869db4a3ed9-infra", pod));
        for other in ["", "-infra", "web-infra", "d869db4a3ed9", "d869db4a3ed9-infra-2"] {
            assert!(!has_infra_name(other, pod), "{other}");
        }
        assert!(!has_infra_name("-infra", ""));
    }

    #[test]
    fn containers_that_are_gone_are_dropped_and_new_ones_are_kept() {
        let mut known = Known::default();
        known.learn("old", false);
        known.prune(&Listing::complete(Vec::new()));
        assert_eq!(known.is_infra("old"), Some(false), "it may be newer than the listing");
        known.prune(&Listing::complete(Vec::new()));
        assert_eq!(known.is_infra("old"), None);
    }
}
