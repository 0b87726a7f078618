//! Reported and inspected state of each unit, shared by the source, which reports, and the driver's inspector.
//!
//! It answers two questions. For a run that has ended: was its start reported? systemd merges simultaneous changes into
//! one signal, so that a short run may be reported by its end alone. For a unit that is inspected again: which details
//! of this run are known already, and need no call? Inspections outside of a watch do not use it: no signal would
//! invalidate its entries.

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

/// Handle that one watch's source and its inspector share.
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
    /// Number of the last write; `keep` compares with it.
    clock: u64,
    /// Running instances, with states that the source has yet to compare with the kernel's. `None`: the run has ended or the
    /// unit was unloaded, and the source has yet to end the comparison.
    freezables: HashMap<InstanceId, Option<Freezable>>,
    /// Instances to report once more: they were reported before their type was known.
    again: Vec<Arc<Instance>>,
}

/// The state of a running instance, as it was reported or inspected last, that the kernel changes without a signal.
#[derive(Clone, Debug)]
pub(crate) struct Freezable {
    pub(crate) control_group: String,
    pub(crate) is_paused: bool,
}

/// State of one unit.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
struct Known {
    written: u64,
    /// The unit was loaded, reported or inspected since the subscription began, so that another run of it is a new one.
    is_seen: bool,
    /// The unit was loaded since then, and no run of it was reported: all of its runs are to be reported.
    is_fresh: bool,
    /// The run that was reported or inspected last.
    incarnation: Option<Incarnation>,
    /// True if that run was reported or inspected while it was alive; `ended` likewise for its end.
    was_alive: bool,
    ended: bool,
    /// The run that an inspection showed alive: signals of its start that come later are older than that.
    inspected_alive: Option<Incarnation>,
    /// The last report.
    last: Option<Arc<Instance>>,
    /// True if an inspection of this run was requested, for its details.
    is_requested: bool,
    details: Details,
    /// True if an inspection found that the selection accepts it.
    is_selected: bool,
    /// True if its file was removed or masked while it ran: it ceases to be an instance when it ends, without a signal.
    is_unfiled: bool,
    /// True if its type is `oneshot`.
    is_job: Option<bool>,
    /// Properties of the service in the state that it entered at this time.
    rest: Option<(u64, ServiceProperties)>,
}

/// Details that do not change within a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    incarnation: Option<Incarnation>,
    pub(crate) labels: Option<Labels>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) control_group: Option<String>,
}

impl UnitCache {
    /// Drops the reported states, when the subscription ends or a signal may be missing. Details that belong to a run
    /// stay.
    pub(crate) fn forget_told(&mut self) {
        self.units.retain(|_, known| known.details.incarnation.is_some());
        for known in self.units.values_mut() {
            *known = Known { details: std::mem::take(&mut known.details), is_job: known.is_job, ..Known::default() };
        }
        // No later listing shows an end that the source has yet to take.
        self.freezables.retain(|_, freezable| freezable.is_none());
        self.again = Vec::new();
    }

    /// The details of this run of a unit, if they are known.
    pub(crate) fn details(&self, id: &InstanceId, incarnation: Option<&Incarnation>) -> Option<Details> {
        let known = self.units.get(id).filter(|_| incarnation.is_some())?;
        (known.details.incarnation.as_ref() == incarnation).then(|| known.details.clone())
    }

    /// Properties of its service in the state that it entered at this time.
    pub(crate) fn rest(
        &self,
        id: &InstanceId,
        incarnation: Option<&Incarnation>,
        changed: u64,
    ) -> Option<ServiceProperties> {
        let known =
            self.units.get(id).filter(|known| changed != 0 && known.details.incarnation.as_ref() == incarnation)?;
        known.rest.as_ref().filter(|(at, _)| *at == changed).map(|(_, service)| service.clone())
    }

    /// Control group of its processes, or of those of its last run.
    pub(crate) fn control_group(&self, id: &InstanceId) -> Option<&str> {
        self.units.get(id)?.details.control_group.as_deref()
    }

    pub(crate) fn is_job(&self, id: &InstanceId) -> bool {
        self.units.get(id).and_then(|known| known.is_job) == Some(true)
    }

    pub(crate) fn is_selected(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_selected)
    }

    /// Records whether the selection accepts the instance.
    pub(crate) fn select(&mut self, id: &InstanceId, is_selected: bool) {
        if let Some(known) = self.units.get_mut(id) {
            known.is_selected = is_selected;
        }
    }

    /// Records whether an inspection found the unit's file.
    pub(crate) fn file(&mut self, id: &InstanceId, is_there: bool) {
        if let Some(known) = self.units.get_mut(id) {
            known.is_unfiled = !is_there;
        }
    }

    pub(crate) fn is_unfiled(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_unfiled)
    }

    /// True if a run of it was reported or inspected.
    pub(crate) fn has_run(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.incarnation.is_some())
    }

    /// Records that the unit was loaded just now: any run of it is a new one.
    pub(crate) fn loaded(&mut self, id: InstanceId) {
        let written = self.tick();
        self.units.insert(id, Known { written, is_seen: true, is_fresh: true, ..Known::default() });
    }

    /// Returns the next number of the clock, for [`keep`](Self::keep).
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Drops all but the units that existed at that number; later entries stay.
    pub(crate) fn keep(&mut self, ids: &HashSet<InstanceId>, at: u64) {
        let Self { units, freezables, .. } = self;
        units.retain(|id, known| {
            let is_kept = known.written > at || ids.contains(id);
            if !is_kept {
                freezables.insert(id.clone(), None);
            }
            is_kept
        });
    }

    /// Records an inspection. `rest`: properties of its service, and the time at which it entered its state.
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
        if seen.state.is_alive() {
            known.inspected_alive.clone_from(&seen.incarnation);
        }
        // A later report is newer than the inspection; and all runs of a unit that was loaded just now are still to be
        // reported.
        if known.incarnation.is_some() && known.incarnation != seen.incarnation {
            return;
        }
        if known.incarnation.is_none() && !known.is_fresh {
            known.incarnation.clone_from(&seen.incarnation);
            (known.was_alive, known.ended) = (seen.state.is_alive(), seen.state.is_ended());
        }
        known.is_seen = true;
        let kept = known.details.control_group.take();
        let control_group = control_group.filter(|group| !group.is_empty()).map(str::to_owned);
        known.details = Details {
            incarnation: seen.incarnation.clone(),
            labels: seen.labels.clone(),
            group: seen.group.clone(),
            control_group: control_group.or(kept),
        };
        known.rest = rest;
        let freezable = known.freezable(seen);
        self.freezables.extend(freezable);
    }

    /// Completes a reported state with the known details, and appends the resulting signals. `ran`: the main process
    /// ran and ended in this run.
    pub(crate) fn told(
        &mut self,
        mut reported: Instance,
        ran: bool,
        labels: impl FnOnce() -> Option<Labels>,
        out: &mut Vec<Signal>,
    ) {
        let written = self.tick();
        let known = self.units.entry(reported.id.clone()).or_default();
        known.written = written;
        if reported.state == InstanceState::Restarting && !ran && known.incarnation != reported.incarnation {
            // From 254 on a unit gets the InvocationID of its next run while it still waits for that, and its next state
            // follows at once: this is no end of the new run. In case that it is one, after a failed ExecStartPre=, an
            // inspection finds it.
            out.push(Signal::new(SignalBody::Hint(reported.id)));
            return;
        }
        let was_seen = std::mem::replace(&mut known.is_seen, true);
        known.is_fresh = false;
        if known.incarnation != reported.incarnation || !was_seen {
            (known.was_alive, known.ended, known.is_requested, known.rest) = (false, false, false, None);
            known.incarnation.clone_from(&reported.incarnation);
        }
        if known.details.incarnation != reported.incarnation {
            let control_group = known.details.control_group.take();
            known.details =
                Details { incarnation: reported.incarnation.clone(), labels: labels(), group: None, control_group };
        }
        reported.labels.clone_from(&known.details.labels);
        reported.group.clone_from(&known.details.group);
        if known.ended && reported.state.is_alive() {
            // A run that ended stays so, even if its unit is up afterwards (RemainAfterExit=, ExecStop=).
            reported.state = InstanceState::Stopped;
            if let Some(last) = &known.last {
                (reported.exit, reported.finished_at) = (last.exit, last.finished_at);
            }
        }
        if reported.state == InstanceState::Stopping && !known.was_alive && !ran {
            reported.state = InstanceState::Starting; // a start that fails before its main process ran
        }
        // To the driver it would be a run that starts once more.
        let is_late = reported.state == InstanceState::Starting
            && reported.incarnation.is_some()
            && known.inspected_alive == reported.incarnation;
        let (is_alive, is_ended) = (reported.state.is_alive(), reported.state.is_ended());
        let token = |what: &str| {
            reported.incarnation.as_ref().map(|incarnation| ResumeToken::from(format!("{incarnation}{what}")))
        };
        let (begin, end) = (token("+"), token("-"));
        if is_ended && ran && was_seen && !known.was_alive && !known.ended {
            let mut before = reported.clone();
            before.state = InstanceState::Running;
            (before.exit, before.reason, before.finished_at) = (None, None, None);
            out.push(state(before, begin.clone(), reported.started_at));
            known.was_alive = true;
        }
        let (token, at) = if is_alive && !known.was_alive {
            (begin, reported.started_at)
        } else if is_ended && !known.ended {
            (end, reported.finished_at)
        } else {
            (None, None)
        };
        known.was_alive |= is_alive;
        known.ended |= is_ended;
        let id = reported.id.clone();
        self.freezables.extend(known.freezable(&reported));
        let reported = Arc::new(reported);
        known.last = Some(Arc::clone(&reported));
        if !is_late {
            out.push(Signal::new(SignalBody::State(reported)).with_token(token).with_at(at));
        }
        if !known.is_requested {
            known.is_requested = true;
            out.push(Signal::new(SignalBody::Hint(id)));
        }
    }

    /// Takes the instances that were reported or inspected since the last call: with their state if they run, with `None`
    /// if their run has ended or their unit was unloaded.
    pub(crate) fn take_freezables(&mut self) -> HashMap<InstanceId, Option<Freezable>> {
        std::mem::take(&mut self.freezables)
    }

    /// Appends the states to be reported once more.
    pub(crate) fn take_again(&mut self, out: &mut Vec<Signal>) {
        for again in std::mem::take(&mut self.again) {
            // Skipped if another state was reported since.
            let Some(known) = self.units.get_mut(&again.id) else { continue };
            if known.last.as_ref().is_none_or(|last| last.state != InstanceState::Starting)
                || known.incarnation != again.incarnation
            {
                continue;
            }
            known.was_alive = true;
            known.last = Some(Arc::clone(&again));
            let token = again.incarnation.as_ref().map(|incarnation| ResumeToken::from(format!("{incarnation}+")));
            let at = again.started_at;
            out.push(Signal::new(SignalBody::State(again)).with_token(token).with_at(at));
        }
    }

    /// True if nothing is known of a unit but that it was loaded.
    pub(crate) fn is_untold(&self, id: &InstanceId) -> bool {
        self.units.get(id).is_some_and(|known| known.is_fresh && known.last.is_none())
    }

    /// Records that the unit was unloaded. A run whose end was not reported has ended all the same (trap S3).
    pub(crate) fn unloaded(&mut self, id: InstanceId, out: &mut Vec<Signal>) {
        let known = self.units.remove(&id).unwrap_or_default();
        if let Some(last) = known.last.filter(|_| known.was_alive && !known.ended) {
            let mut end = Instance::clone(&last);
            end.state = InstanceState::Stopped;
            let token = end.incarnation.as_ref().map(|incarnation| ResumeToken::from(format!("{incarnation}-")));
            out.push(state(end, token, None));
        }
        self.freezables.insert(id.clone(), None);
        out.push(Signal::new(SignalBody::Gone(id)));
    }
}

impl Known {
    /// The state to compare with the kernel's, of an instance that runs; no state, of one whose run has ended.
    fn freezable(&self, instance: &Instance) -> Option<(InstanceId, Option<Freezable>)> {
        if instance.state.is_ended() {
            return Some((instance.id.clone(), None));
        }
        let control_group = self.details.control_group.clone().filter(|_| instance.state.is_alive())?;
        let is_paused = instance.state == InstanceState::Paused;
        Some((instance.id.clone(), Some(Freezable { control_group, is_paused })))
    }
}

fn state(instance: Instance, token: Option<ResumeToken>, at: Option<std::time::SystemTime>) -> Signal {
    Signal::new(SignalBody::State(Arc::new(instance))).with_token(token).with_at(at)
}

#[cfg(test)]
mod tests {
    use runtide_core::{ExitStatus, InstanceKind, InstanceState as S};

    use super::*;

    fn reported(state: S, incarnation: &str) -> Instance {
        let mut instance = Instance::new("b", "a.service", "a", InstanceKind::Service, state);
        instance.incarnation = Some(incarnation.into());
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
    fn a_run_that_is_reported_by_its_end_alone_began() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        let exit = Some(ExitStatus::code(3));
        assert_eq!(states(&out), [(S::Running, Some("1+"), None), (S::Stopped, Some("1-"), exit)]);
        out.clear();
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Stopped, None, exit)], "it ended once");
        out.clear();
        unit_cache.told(reported(S::Failed, "2"), true, || None, &mut out);
        assert_eq!(states(&out), [(S::Running, Some("2+"), None), (S::Failed, Some("2-"), exit)]);
    }

    #[test]
    fn a_start_that_an_inspection_has_overtaken_is_not_reported_back() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.saw(&reported(S::Running, "1"), None, None, None);
        unit_cache.told(reported(S::Starting, "1"), false, || None, &mut out);
        assert_eq!(states(&out), [], "it is older than the inspection");
        unit_cache.told(reported(S::Running, "1"), false, || None, &mut out);
        assert_eq!(states(&out), [(S::Running, Some("1+"), None)]);
        out.clear();
        unit_cache.told(reported(S::Starting, "2"), false, || None, &mut out);
        assert_eq!(states(&out), [(S::Starting, None, None)], "the next run is a new one");
    }

    #[test]
    fn an_end_of_an_unknown_run_gets_no_start() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.saw(&reported(S::Stopped, "1"), None, None, None);
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(states(&out).len(), 1);
        unit_cache.told(reported(S::Starting, "2"), false, || None, &mut out);
        out.clear();
        unit_cache.told(reported(S::Failed, "2"), false, || None, &mut out);
        assert_eq!(states(&out).len(), 1, "no process ran");
    }

    #[test]
    fn a_restart_that_is_under_way_is_no_end_of_its_run() {
        for is_known in [true, false] {
            let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
            if is_known {
                unit_cache.loaded("a.service".into());
                unit_cache.told(reported(S::Running, "1"), false, || None, &mut out);
                unit_cache.told(reported(S::Failed, "1"), true, || None, &mut out);
                unit_cache.told(reported(S::Restarting, "1"), true, || None, &mut out);
                out.clear();
            }
            unit_cache.told(reported(S::Restarting, "2"), false, || None, &mut out);
            assert!(matches!(out[..], [Signal { body: SignalBody::Hint(_), .. }]), "{out:?}");
            out.clear();
            unit_cache.told(reported(S::Running, "2"), false, || None, &mut out);
            unit_cache.told(reported(S::Failed, "2"), true, || None, &mut out);
            let exit = Some(ExitStatus::code(3));
            assert_eq!(states(&out), [(S::Running, Some("2+"), None), (S::Failed, Some("2-"), exit)]);
        }
    }

    #[test]
    fn a_run_that_ended_stays_ended() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(reported(S::Running, "1"), false, || None, &mut out);
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        out.clear();
        unit_cache.told(reported(S::Stopping, "1"), true, || None, &mut out);
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        let exit = Some(ExitStatus::code(3));
        assert_eq!(states(&out), [(S::Stopped, None, exit), (S::Stopped, None, exit)], "no start, and no second end");
    }

    #[test]
    fn a_job_is_reported_again_once_its_type_is_known() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.loaded("a.service".into());
        unit_cache.told(reported(S::Starting, "1"), false, || None, &mut out);
        out.clear();
        unit_cache.saw(&reported(S::Running, "1"), None, Some(true), None);
        unit_cache.take_again(&mut out);
        assert_eq!(states(&out), [(S::Running, Some("1+"), None)]);
        out.clear();
        unit_cache.take_again(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_write_during_a_listing_is_kept() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(reported(S::Running, "0"), false, || None, &mut out);
        let at = unit_cache.tick();
        unit_cache.loaded("b.service".into());
        unit_cache.keep(&HashSet::new(), at);
        out.clear();
        let mut late = reported(S::Stopped, "1");
        late.id = "b.service".into();
        unit_cache.told(late, true, || None, &mut out);
        assert_eq!(states(&out).len(), 2, "its run is reported from its start");
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(out.len(), 1, "the other one was not on the list");
    }

    #[test]
    fn an_earlier_run_gives_a_later_one_no_details() {
        let mut unit_cache = UnitCache::default();
        let mut old = reported(S::Running, "1");
        old.labels = Some(Labels::from_iter([("a", "1")]));
        unit_cache.saw(&old, Some("/a.slice/a.service"), None, None);
        let one = Incarnation::from("1");
        assert!(unit_cache.details(&"a.service".into(), Some(&one)).is_some());
        assert!(unit_cache.details(&"a.service".into(), Some(&"2".into())).is_none());
        unit_cache.told(reported(S::Running, "2"), false, || None, &mut Vec::new());
        unit_cache.saw(&old, Some("/a.slice/a.service"), None, None);
        let two = unit_cache.details(&"a.service".into(), Some(&"2".into())).unwrap();
        assert_eq!(two.labels, None, "a late inspection of the earlier run changes nothing of this one");
    }

    #[test]
    fn a_unit_that_is_unloaded_has_stopped() {
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.told(reported(S::Running, "1"), false, || None, &mut out);
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(states(&out), [(S::Stopped, Some("1-"), None)]);
        assert!(matches!(out.last().unwrap().body, SignalBody::Gone(_)));
        out.clear();
        unit_cache.unloaded("a.service".into(), &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn an_instance_whose_run_is_over_is_compared_no_longer() {
        let compared = |unit_cache: &mut UnitCache| -> Vec<bool> {
            unit_cache.take_freezables().values().map(Option::is_some).collect()
        };
        let (mut unit_cache, mut out) = (UnitCache::default(), Vec::new());
        unit_cache.saw(&reported(S::Running, "1"), Some("/a.slice/a.service"), None, None);
        assert_eq!(compared(&mut unit_cache), [true]);
        unit_cache.told(reported(S::Running, "1"), false, || None, &mut out);
        unit_cache.told(reported(S::Stopped, "1"), true, || None, &mut out);
        assert_eq!(compared(&mut unit_cache), [false], "it ended");
        unit_cache.told(reported(S::Running, "2"), false, || None, &mut out);
        assert_eq!(compared(&mut unit_cache), [true]);
        unit_cache.unloaded("a.service".into(), &mut out);
        unit_cache.forget_told();
        assert_eq!(compared(&mut unit_cache), [false], "it was unloaded, and the subscription ended");
        unit_cache.saw(&reported(S::Running, "3"), Some("/a.slice/a.service"), None, None);
        assert_eq!(compared(&mut unit_cache), [true]);
        let at = unit_cache.tick();
        unit_cache.keep(&HashSet::new(), at);
        assert_eq!(compared(&mut unit_cache), [false], "a listing leaves it out");
    }
}
