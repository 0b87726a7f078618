//! What was told and seen of each unit, shared by the source, which tells, and the looker, which sees.
//!
//! It answers two questions. Of a life that has ended: was its beginning told? systemd gathers what changes at once into one
//! signal, so that a short life may be told by its end alone. And of a unit that is looked at again: what is known already, and
//! need not be asked for?

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtide_core::{Group, Incarnation, Instance, InstanceId, Labels, NativeMark, Signal, SignalBody};

use crate::properties::ServiceProperties;

/// Shared by one backend's source and lookers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    units: HashMap<InstanceId, Known>,
    /// Instances that live, and where: to be looked out for by the source.
    alive: Vec<(InstanceId, String)>,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The life that was told or seen last.
    pub(crate) life: Option<Incarnation>,
    /// Whether it was told or seen to be alive, and to have ended.
    lived: bool,
    ended: bool,
    /// As it was last told, for one that goes without a word.
    last: Option<Arc<Instance>>,
    /// Of this life: whether details were looked for.
    pub(crate) looked: bool,
    pub(crate) labels: Option<Labels>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) control_group: Option<String>,
    /// The life that the source was asked to look out for.
    watched: Option<Incarnation>,
    /// Its type is `oneshot`.
    pub(crate) is_job: Option<bool>,
    /// What the service said in the state that it entered at this time.
    pub(crate) rest: Option<(u64, ServiceProperties)>,
}

impl Ledger {
    /// Nobody listens, or something was missed: what was told is not known to be the last word.
    pub(crate) fn forget_told(&mut self) {
        for known in self.units.values_mut() {
            (known.life, known.lived, known.ended, known.last, known.looked) = (None, false, false, None, false);
            known.watched = None;
        }
        self.alive.clear();
        self.units.retain(|_, known| known.group.is_some() || known.labels.is_some());
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Known> {
        self.units.get(id)
    }

    /// The unit was loaded just now: any life of it is a new one.
    pub(crate) fn loaded(&mut self, id: InstanceId) {
        self.units.insert(id, Known::default());
    }

    /// Only these are there.
    pub(crate) fn keep(&mut self, ids: &HashSet<InstanceId>) {
        self.units.retain(|id, _| ids.contains(id));
    }

    /// A look saw it so.
    pub(crate) fn saw(
        &mut self,
        seen: &Instance,
        control_group: Option<&str>,
        is_job: Option<bool>,
        rest: Option<(u64, ServiceProperties)>,
    ) {
        let known = self.units.entry(seen.id.clone()).or_default();
        if known.life.is_none() {
            known.life.clone_from(&seen.incarnation);
            (known.lived, known.ended) = (seen.state.is_alive(), seen.state.is_ended());
        }
        known.labels.clone_from(&seen.labels);
        known.group.clone_from(&seen.group);
        known.is_job = is_job.or(known.is_job);
        if rest.is_some() {
            known.rest = rest;
        }
        if let Some(group) = control_group.filter(|group| !group.is_empty()) {
            known.control_group = Some(group.to_owned());
        }
        if seen.state.is_alive() {
            self.alive.extend(known.look_out(&seen.id));
        }
    }

    /// Completes what a signal tells with what is known, and gives the signals that follow from it. `ran`: its main process ran
    /// and ended in this life.
    pub(crate) fn told(
        &mut self,
        mut told: Instance,
        ran: bool,
        labels: impl FnOnce() -> Option<Labels>,
        out: &mut Vec<Signal>,
    ) {
        let is_known = self.units.contains_key(&told.id);
        let known = self.units.entry(told.id.clone()).or_default();
        let is_same_life = known.life == told.incarnation;
        if !is_same_life || !is_known {
            (known.lived, known.ended, known.looked, known.rest) = (false, false, false, None);
            known.life.clone_from(&told.incarnation);
            known.labels = labels();
        }
        told.labels.clone_from(&known.labels);
        told.group.clone_from(&known.group);
        let (is_alive, is_ended) = (told.state.is_alive(), told.state.is_ended());
        let mark = |what: &str| told.incarnation.as_ref().map(|life| NativeMark::from(format!("{life}{what}")));
        let (begin, end) = (mark("+"), mark("-"));
        if is_ended && ran && is_known && !known.lived && !known.ended {
            let mut before = told.clone();
            before.state = runtide_core::InstanceState::Running;
            (before.exit, before.reason, before.finished_at) = (None, None, None);
            out.push(state(before, begin.clone(), told.started_at));
            known.lived = true;
        }
        let (mark, at) = if is_alive && !known.lived {
            (begin, told.started_at)
        } else if is_ended && !known.ended {
            (end, told.finished_at)
        } else {
            (None, None)
        };
        known.lived |= is_alive;
        known.ended = is_ended;
        let id = told.id.clone();
        if is_alive {
            self.alive.extend(known.look_out(&id));
        }
        let told = Arc::new(told);
        known.last = Some(Arc::clone(&told));
        out.push(Signal::new(SignalBody::State(told)).with_mark(mark).with_at(at));
        if !known.looked {
            known.looked = true;
            out.push(Signal::new(SignalBody::Hint(id)));
        }
    }

    /// Instances of which it was learnt since the last call that they live, and their control groups.
    pub(crate) fn take_alive(&mut self) -> Vec<(InstanceId, String)> {
        std::mem::take(&mut self.alive)
    }

    /// Whether nothing but that it was loaded is known of a unit.
    pub(crate) fn is_untold(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.life.is_none() && known.last.is_none() && !known.looked)
    }

    /// It was unloaded. A life whose end nobody told has ended all the same (trap S3).
    pub(crate) fn unloaded(&mut self, id: InstanceId, out: &mut Vec<Signal>) {
        let known = self.units.remove(&id).unwrap_or_default();
        if let Some(last) = known.last.filter(|_| known.lived && !known.ended) {
            let mut end = Instance::clone(&last);
            end.state = runtide_core::InstanceState::Stopped;
            let mark = end.incarnation.as_ref().map(|life| NativeMark::from(format!("{life}-")));
            out.push(state(end, mark, None));
        }
        out.push(Signal::new(SignalBody::Gone(id)));
    }
}

impl Known {
    /// Once for each life.
    fn look_out(&mut self, id: &InstanceId) -> Option<(InstanceId, String)> {
        let group = self.control_group.clone()?;
        if self.life.is_none() || self.watched == self.life {
            return None;
        }
        self.watched.clone_from(&self.life);
        Some((id.clone(), group))
    }
}

fn state(instance: Instance, mark: Option<NativeMark>, at: Option<std::time::SystemTime>) -> Signal {
    Signal::new(SignalBody::State(Arc::new(instance))).with_mark(mark).with_at(at)
}

#[cfg(test)]
mod tests {
    use runtide_core::{ExitStatus, InstanceKind, InstanceState as S};

    use super::*;

    fn told(state: S, life: &str) -> Instance {
        let mut instance = Instance::new("b", "a.service", "a", InstanceKind::Service, state);
        instance.incarnation = Some(life.into());
        if state.is_ended() {
            instance.exit = Some(ExitStatus::code(3));
        }
        instance
    }

    fn states(signals: &[Signal]) -> Vec<(S, Option<&str>, Option<ExitStatus>)> {
        let of = |signal: &'_ Signal| match &signal.body {
            SignalBody::State(instance) => Some((instance.state, instance.exit)),
            _ => None,
        };
        signals
            .iter()
            .filter_map(|one| of(one).map(|(state, exit)| (state, one.mark.as_ref().map(NativeMark::as_str), exit)))
            .collect()
    }

    #[test]
    fn a_life_that_is_told_by_its_end_alone_began() {
        let (mut ledger, mut out) = (Ledger::default(), Vec::new());
        ledger.loaded("a.service".into());
        ledger.told(told(S::Stopped, "1"), true, || None, &mut out);
        let exit = Some(ExitStatus::code(3));
        assert_eq!(states(&out), [(S::Running, Some("1+"), None), (S::Stopped, Some("1-"), exit)]);
        out.clear();
        ledger.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Stopped, None, exit)], "it ended once");
        out.clear();
        ledger.told(told(S::Failed, "2"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Running, Some("2+"), None), (S::Failed, Some("2-"), exit)]);
    }

    #[test]
    fn an_end_of_which_nothing_was_known_has_no_beginning_made_up() {
        let (mut ledger, mut out) = (Ledger::default(), Vec::new());
        ledger.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        let (mut ledger, mut out) = (Ledger::default(), Vec::new());
        ledger.saw(&told(S::Stopped, "1"), None, None, None);
        ledger.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        ledger.told(told(S::Starting, "2"), false, || None, &mut out);
        out.clear();
        ledger.told(told(S::Failed, "2"), false, || None, &mut out);
        assert_eq!(states(&out).len(), 1, "no process ran");
    }

    #[test]
    fn a_unit_that_goes_without_a_word_has_stopped() {
        let (mut ledger, mut out) = (Ledger::default(), Vec::new());
        ledger.told(told(S::Running, "1"), false, || None, &mut out);
        out.clear();
        ledger.unloaded("a.service".into(), &mut out);
        assert_eq!(states(&out), [(S::Stopped, Some("1-"), None)]);
        assert!(matches!(out.last().unwrap().body, SignalBody::Gone(_)));
        out.clear();
        ledger.unloaded("a.service".into(), &mut out);
        assert_eq!(out.len(), 1);
    }
}
