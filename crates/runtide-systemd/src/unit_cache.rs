//! What was reported and seen of each unit, shared by the source, which reports, and the driver's inspector, which sees.
//!
//! It answers two questions. Of a run that has ended: was its beginning reported? systemd gathers what changes at once into one
//! signal, so that a short run may be reported by its end alone. And of a unit that is looked at again: what is known of this run
//! already, and need not be asked for? Inspections outside of a watch know nothing of it: no report would end what they know.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use runtide_core::{
    Group, Incarnation, Instance, InstanceId, InstanceState, Labels,
    backend::lock,
    event::ResumeToken,
    watch::{Signal, SignalBody},
};

use crate::properties::ServiceProperties;

/// Shared by one watch's source and its inspector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<UnitCache>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, UnitCache> {
        lock(&self.0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct UnitCache {
    units: HashMap<InstanceId, Known>,
    /// Rises with everything that is written here.
    clock: u64,
    /// Instances that live, and where: to be looked out for by the source.
    alive: Vec<(InstanceId, String)>,
    /// To be reported once more: what was reported of it was judged before its type was known.
    again: Vec<Arc<Instance>>,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Known {
    written: u64,
    /// It was loaded, reported or seen since the subscription began, so that another run of it is a new one.
    is_seen: bool,
    /// It was loaded since then, and no run of it was reported: all of its runs are to be reported.
    is_fresh: bool,
    /// The run that was reported or seen last.
    life: Option<Incarnation>,
    /// True if it was reported or seen to be alive, and to have ended.
    lived: bool,
    ended: bool,
    /// As it was last reported.
    last: Option<Arc<Instance>>,
    /// Of this run: whether details were looked for.
    looked: bool,
    details: Details,
    /// An inspection found that it is to be an instance.
    is_selected: bool,
    /// Its file went, or was masked, while it ran: it ceases to be an instance when it ends, and nobody tells.
    is_unfiled: bool,
    /// Its type is `oneshot`.
    is_job: Option<bool>,
    /// What the service said in the state that it entered at this time.
    rest: Option<(u64, ServiceProperties)>,
    /// The run that the source was asked to look out for.
    watched: Option<Incarnation>,
}

/// What does not change within a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    life: Option<Incarnation>,
    pub(crate) labels: Option<Labels>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) control_group: Option<String>,
}

impl UnitCache {
    /// Nobody listens, or something was missed: what was reported is not known to be the last word. What is bound to a run stays.
    pub(crate) fn forget_told(&mut self) {
        self.units.retain(|_, known| known.details.life.is_some());
        for known in self.units.values_mut() {
            *known = Known { details: std::mem::take(&mut known.details), is_job: known.is_job, ..Known::default() };
        }
        (self.alive, self.again) = (Vec::new(), Vec::new());
    }

    /// What is known of this run of a unit.
    pub(crate) fn details(&self, id: &InstanceId, life: Option<&Incarnation>) -> Option<Details> {
        let known = self.units.get(id).filter(|_| life.is_some())?;
        (known.details.life.as_ref() == life).then(|| known.details.clone())
    }

    /// What its service said in the state that it entered at this time.
    pub(crate) fn rest(&self, id: &InstanceId, life: Option<&Incarnation>, changed: u64) -> Option<ServiceProperties> {
        let known = self.units.get(id).filter(|known| changed != 0 && known.details.life.as_ref() == life)?;
        known.rest.as_ref().filter(|(at, _)| *at == changed).map(|(_, service)| service.clone())
    }

    /// Where its processes are, or were.
    pub(crate) fn control_group(&self, id: &InstanceId) -> Option<&str> {
        self.units.get(id)?.details.control_group.as_deref()
    }

    pub(crate) fn is_job(&self, id: &InstanceId) -> bool {
        self.units.get(id).and_then(|known| known.is_job) == Some(true)
    }

    pub(crate) fn is_selected(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_selected)
    }

    /// True if an inspection found that it is to be an instance.
    pub(crate) fn select(&mut self, id: &InstanceId, is_selected: bool) {
        if let Some(known) = self.units.get_mut(id) {
            known.is_selected = is_selected;
        }
    }

    /// True if an inspection found its file.
    pub(crate) fn file(&mut self, id: &InstanceId, is_there: bool) {
        if let Some(known) = self.units.get_mut(id) {
            known.is_unfiled = !is_there;
        }
    }

    pub(crate) fn is_unfiled(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_unfiled)
    }

    /// True if a run of it was reported or seen.
    pub(crate) fn has_lived(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.life.is_some())
    }

    /// The unit was loaded just now: any run of it is a new one.
    pub(crate) fn loaded(&mut self, id: InstanceId) {
        let written = self.tick();
        self.units.insert(id, Known { written, is_seen: true, is_fresh: true, ..Known::default() });
    }

    /// A moment, for [`keep`](Self::keep).
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Only these were there at that moment; what was written since stays.
    pub(crate) fn keep(&mut self, ids: &HashSet<InstanceId>, at: u64) {
        self.units.retain(|id, known| known.written > at || ids.contains(id));
    }

    /// An inspection saw it so. `rest`: what its service said, and since when it is in that state.
    pub(crate) fn saw(
        &mut self,
        seen: &Instance,
        control_group: Option<&str>,
        is_job: Option<bool>,
        rest: Option<(u64, ServiceProperties)>,
    ) {
        let written = self.tick();
        let known = self.units.entry(seen.id.clone()).or_default();
        known.written = written;
        if let Some(is_job) = is_job
            && known.is_job.replace(is_job).is_none()
            && is_job
            && let Some(last) = known.last.as_ref().filter(|last| last.state == InstanceState::Starting)
            && last.incarnation == seen.incarnation
            && seen.state == InstanceState::Running
        {
            let mut again = Instance::clone(last);
            again.state = InstanceState::Running;
            self.again.push(Arc::new(again));
        }
        // What was reported since is newer; and of a unit that was loaded just now all is still to be reported.
        if known.life.is_some() && known.life != seen.incarnation {
            return;
        }
        if known.life.is_none() && !known.is_fresh {
            known.life.clone_from(&seen.incarnation);
            (known.lived, known.ended) = (seen.state.is_alive(), seen.state.is_ended());
        }
        known.is_seen = true;
        let kept = known.details.control_group.take();
        let control_group = control_group.filter(|group| !group.is_empty()).map(str::to_owned);
        known.details = Details {
            life: seen.incarnation.clone(),
            labels: seen.labels.clone(),
            group: seen.group.clone(),
            control_group: control_group.or(kept),
        };
        known.rest = rest;
        if seen.state.is_alive() {
            self.alive.extend(known.look_out(&seen.id));
        }
    }

    /// Completes what a signal reports with what is known, and gives the signals that follow from it. `ran`: its main process ran
    /// and ended in this run.
    pub(crate) fn told(
        &mut self,
        mut told: Instance,
        ran: bool,
        labels: impl FnOnce() -> Option<Labels>,
        out: &mut Vec<Signal>,
    ) {
        let written = self.tick();
        let known = self.units.entry(told.id.clone()).or_default();
        known.written = written;
        let was_seen = std::mem::replace(&mut known.is_seen, true);
        known.is_fresh = false;
        if known.life != told.incarnation || !was_seen {
            (known.lived, known.ended, known.looked, known.rest) = (false, false, false, None);
            known.life.clone_from(&told.incarnation);
        }
        if known.details.life != told.incarnation {
            let control_group = known.details.control_group.take();
            known.details = Details { life: told.incarnation.clone(), labels: labels(), group: None, control_group };
        }
        told.labels.clone_from(&known.details.labels);
        told.group.clone_from(&known.details.group);
        if known.ended && told.state.is_alive() {
            // A run that ended stays so, whatever its unit does afterwards (RemainAfterExit=, ExecStop=).
            told.state = InstanceState::Stopped;
            if let Some(last) = &known.last {
                (told.exit, told.finished_at) = (last.exit, last.finished_at);
            }
        }
        if told.state == InstanceState::Stopping && !known.lived && !ran {
            told.state = InstanceState::Starting; // a start that fails before any process of its own ran
        }
        let (is_alive, is_ended) = (told.state.is_alive(), told.state.is_ended());
        let token = |what: &str| told.incarnation.as_ref().map(|life| ResumeToken::from(format!("{life}{what}")));
        let (begin, end) = (token("+"), token("-"));
        if is_ended && ran && was_seen && !known.lived && !known.ended {
            let mut before = told.clone();
            before.state = InstanceState::Running;
            (before.exit, before.reason, before.finished_at) = (None, None, None);
            out.push(state(before, begin.clone(), told.started_at));
            known.lived = true;
        }
        let (token, at) = if is_alive && !known.lived {
            (begin, told.started_at)
        } else if is_ended && !known.ended {
            (end, told.finished_at)
        } else {
            (None, None)
        };
        known.lived |= is_alive;
        known.ended |= is_ended;
        let id = told.id.clone();
        if is_alive {
            self.alive.extend(known.look_out(&id));
        }
        let told = Arc::new(told);
        known.last = Some(Arc::clone(&told));
        out.push(Signal::new(SignalBody::State(told)).with_token(token).with_at(at));
        if !known.looked {
            known.looked = true;
            out.push(Signal::new(SignalBody::Hint(id)));
        }
    }

    /// Instances of which it was learnt since the last call that they live, and their control groups.
    pub(crate) fn take_alive(&mut self) -> Vec<(InstanceId, String)> {
        std::mem::take(&mut self.alive)
    }

    /// What is to be reported once more.
    pub(crate) fn take_again(&mut self, out: &mut Vec<Signal>) {
        for again in std::mem::take(&mut self.again) {
            // Unless something else was reported since.
            let Some(known) = self.units.get_mut(&again.id) else { continue };
            if known.last.as_ref().is_none_or(|last| last.state != InstanceState::Starting)
                || known.life != again.incarnation
            {
                continue;
            }
            known.lived = true;
            known.last = Some(Arc::clone(&again));
            let token = again.incarnation.as_ref().map(|life| ResumeToken::from(format!("{life}+")));
            let at = again.started_at;
            out.push(Signal::new(SignalBody::State(again)).with_token(token).with_at(at));
        }
    }

    /// True if nothing but that it was loaded is known of a unit.
    pub(crate) fn is_untold(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_fresh && known.last.is_none())
    }

    /// It was unloaded. A run whose end was not reported has ended all the same (trap S3).
    pub(crate) fn unloaded(&mut self, id: InstanceId, out: &mut Vec<Signal>) {
        let known = self.units.remove(&id).unwrap_or_default();
        if let Some(last) = known.last.filter(|_| known.lived && !known.ended) {
            let mut end = Instance::clone(&last);
            end.state = InstanceState::Stopped;
            let token = end.incarnation.as_ref().map(|life| ResumeToken::from(format!("{life}-")));
            out.push(state(end, token, None));
        }
        out.push(Signal::new(SignalBody::Gone(id)));
    }
}

impl Known {
    /// Once for each run.
    fn look_out(&mut self, id: &InstanceId) -> Option<(InstanceId, String)> {
        let group = self.details.control_group.clone()?;
        if self.life.is_none() || self.watched == self.life {
            return None;
        }
        self.watched.clone_from(&self.life);
        Some((id.clone(), group))
    }
}

fn state(instance: Instance, token: Option<ResumeToken>, at: Option<std::time::SystemTime>) -> Signal {
    Signal::new(SignalBody::State(Arc::new(instance))).with_token(token).with_at(at)
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
            .filter_map(|one| of(one).map(|(state, exit)| (state, one.token.as_ref().map(ResumeToken::as_str), exit)))
            .collect()
    }

    #[test]
    fn a_life_that_is_told_by_its_end_alone_began() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        let exit = Some(ExitStatus::code(3));
        assert_eq!(states(&out), [(S::Running, Some("1+"), None), (S::Stopped, Some("1-"), exit)]);
        out.clear();
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Stopped, None, exit)], "it ended once");
        out.clear();
        unit_cache.told(told(S::Failed, "2"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Running, Some("2+"), None), (S::Failed, Some("2-"), exit)]);
    }

    #[test]
    fn an_end_of_which_nothing_was_known_has_no_beginning_made_up() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.saw(&told(S::Stopped, "1"), None, None, None);
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        unit_cache.told(told(S::Starting, "2"), false, || None, &mut out);
        out.clear();
        unit_cache.told(told(S::Failed, "2"), false, || None, &mut out);
        assert_eq!(states(&out).len(), 1, "no process ran");
    }

    #[test]
    fn a_life_that_ended_stays_so_whatever_its_unit_does() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(told(S::Running, "1"), false, || None, &mut out);
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        out.clear();
        unit_cache.told(told(S::Stopping, "1"), true, || None, &mut out);
        unit_cache.told(told(S::Stopped, "1"), true, || None, &mut out);
        let exit = Some(ExitStatus::code(3));
        assert_eq!(states(&out), [(S::Stopped, None, exit), (S::Stopped, None, exit)], "no start, and no second end");
    }

    #[test]
    fn a_job_is_told_again_once_its_type_is_known() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(told(S::Starting, "1"), false, || None, &mut out);
        out.clear();
        unit_cache.saw(&told(S::Running, "1"), None, Some(true), None);
        unit_cache.take_again(&mut out);
        assert_eq!(states(&out), [(S::Running, Some("1+"), None)]);
        out.clear();
        unit_cache.take_again(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn what_was_written_while_a_list_was_made_is_not_forgotten_for_it() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(told(S::Running, "0"), false, || None, &mut out);
        let at = unit_cache.tick();
        unit_cache.loaded("b.service".into());
        unit_cache.keep(&HashSet::new(), at);
        out.clear();
        let mut late = told(S::Stopped, "1");
        late.id = "b.service".into();
        unit_cache.told(late, true, || None, &mut out);
        assert_eq!(states(&out).len(), 2, "its life is told from its beginning");
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(out.len(), 1, "the other one was not on the list");
    }

    #[test]
    fn an_earlier_life_gives_a_later_one_no_details() {
        let mut unit_cache = UnitCache::default();
        let mut old = told(S::Running, "1");
        old.labels = Some(Labels::from_iter([("a", "1")]));
        unit_cache.saw(&old, Some("/a.slice/a.service"), None, None);
        let one = Incarnation::from("1");
        assert!(unit_cache.details(&"a.service".into(), Some(&one)).is_some());
        assert!(unit_cache.details(&"a.service".into(), Some(&"2".into())).is_none());
        unit_cache.told(told(S::Running, "2"), false, || None, &mut Vec::new());
        unit_cache.saw(&old, Some("/a.slice/a.service"), None, None);
        let two = unit_cache.details(&"a.service".into(), Some(&"2".into())).unwrap();
        assert_eq!(two.labels, None, "a late look at the earlier life says nothing of this one");
    }

    #[test]
    fn a_unit_that_goes_without_a_word_has_stopped() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(told(S::Running, "1"), false, || None, &mut out);
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(states(&out), [(S::Stopped, Some("1-"), None)]);
        assert!(matches!(out.last().unwrap().body, SignalBody::Gone(_)));
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(out.len(), 1);
    }
}
