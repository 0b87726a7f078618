//! The changes of an instance, one verb at a time. Every verb holds the whole state: no caller sees half of one.

use std::{mem, sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, InstanceState, Result, UnixSignal,
    manager::{Effect, RestartPolicy, TtySize},
};

use super::{
    Blueprint, FactKind, Phase, Program, Reboot, Record, State, Timer, check_name,
    refusal::{conflict, missing},
    wait::End,
};
use crate::fault::Call;

/// Pause before the runtime starts an instance again; it doubles each time, as Docker's does.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Length of a run after which the pause is reset.
const LONG_LIFE: Duration = Duration::from_secs(10);

impl State {
    pub(crate) fn record(&self, id: &InstanceId, call: Call) -> Result<&Arc<Record>> {
        self.records.get(id).ok_or_else(|| missing(id, call))
    }

    /// Changes an instance, if it exists, and records the fact.
    fn change(&mut self, id: &InstanceId, kind: FactKind, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(id) {
            change(Arc::make_mut(record));
            let record = Arc::clone(record);
            self.record_fact(&record, kind);
        }
    }

    pub(crate) fn create(&mut self, mut design: Blueprint) -> Result<InstanceId> {
        design.check()?;
        if design.name.is_empty() {
            // An id that is already taken is passed over.
            while self.check_free(&self.id_after(self.next_id), Call::Create).is_err() {
                self.next_id += 1;
            }
            design.name = self.id_after(self.next_id);
        }
        self.check_free(&design.name, Call::Create)?;
        let id = InstanceId::from(self.id_after(self.next_id));
        self.next_id += 1;
        let record = Arc::new(Record::new(id.clone(), design, self.wall()));
        self.names.insert(record.design.name.clone());
        self.records.insert(id.clone(), Arc::clone(&record));
        self.record_fact(&record, FactKind::Created);
        Ok(id)
    }

    fn id_after(&self, last: u64) -> String {
        self.boot.id("mem", last + 1)
    }

    fn check_free(&self, name: &str, call: Call) -> Result<()> {
        if self.names.contains(name) {
            let taken = Error::new(ErrorKind::AlreadyExists, call.operation(), "this name is taken");
            return Err(taken.with_context("name", name));
        }
        Ok(())
    }

    pub(crate) fn start(&mut self, id: &InstanceId, call: Call) -> Result<Effect> {
        match self.record(id, call)?.phase {
            Phase::Running | Phase::Stopping => Ok(Effect::Unchanged),
            Phase::Paused => Err(conflict(id, call, "it is paused: unpause it")),
            _ => {
                self.begin(id, 0);
                Ok(Effect::Changed)
            }
        }
    }

    fn begin(&mut self, id: &InstanceId, restarts: u32) {
        let started_at = self.wall();
        self.change(id, FactKind::Started, |record| {
            record.life += 1;
            record.phase = Phase::Running;
            record.exit = None;
            record.started_at = Some(started_at);
            record.finished_at = None;
            record.restarts = restarts;
        });
        let Some(record) = self.records.get(id).cloned() else { return };
        // The program writes to the log of an instance that exists.
        let (by_program, exit) = match Program::of(&record.surroundings()) {
            Program::Print(source, bytes, code) => {
                let _ = self.write_log(id, source, &bytes);
                (Some(Duration::ZERO), ExitStatus::code(code))
            }
            Program::Emit(source, emission) => {
                let _ = self.emit_log(id, source, emission);
                (Some(Duration::ZERO), ExitStatus::code(0))
            }
            Program::Cat => (Some(Duration::ZERO), ExitStatus::code(0)), // its input is empty
            Program::Sleep(life) => (Some(life), ExitStatus::code(0)),
            Program::Size | Program::Other => (None, ExitStatus::code(0)),
        };
        if let Some(life) = record.design.run_length.or(by_program) {
            let exit = record.design.exit.unwrap_or(exit);
            self.schedule(life, Timer::End(id.clone(), record.life, exit));
        }
    }

    /// A run ends; `None`: its exit is unknown. An instance that was `asked` to end is not started again.
    fn end(&mut self, id: &InstanceId, exit: Option<ExitStatus>, asked: bool) {
        let finished_at = self.wall();
        let Some(record) = self.records.get(id) else { return };
        let (life, restarts) = (record.life, record.restarts);
        let calm = record.started_at.and_then(|began| finished_at.duration_since(began).ok()) >= Some(LONG_LIFE);
        let again = !asked
            && match record.design.restart {
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
                RestartPolicy::OnFailure { attempts } => {
                    exit.is_some_and(|exit| exit.end != ExitStatus::code(0).end)
                        && attempts.is_none_or(|most| restarts < most)
                }
                _ => false,
            };
        self.change(id, FactKind::Stopped, |record| {
            record.phase = if again { Phase::Restarting } else { Phase::Exited };
            record.exit = exit;
            record.finished_at = Some(finished_at);
            record.pending.clear();
            record.overdue = None;
        });
        self.tell_waiting(id, Some(life), End::Exited(exit));
        if again {
            let doubled = if calm { 0 } else { restarts.min(9) };
            self.schedule(FIRST_PAUSE * 2_u32.pow(doubled), Timer::Again(id.clone(), life));
        }
    }

    pub(super) fn end_by_itself(&mut self, id: &InstanceId, life: u64, exit: ExitStatus) {
        match self.records.get_mut(id).filter(|record| record.life == life) {
            Some(record) if record.phase == Phase::Paused => {
                Arc::make_mut(record).overdue = Some(exit); // a frozen process cannot even end
            }
            Some(record) if record.phase.is_alive() => self.end(id, Some(exit), false),
            _ => {}
        }
    }

    pub(super) fn start_again(&mut self, id: &InstanceId, life: u64) {
        let waits = |record: &&Arc<Record>| record.life == life && record.phase == Phase::Restarting;
        if let Some(restarts) = self.records.get(id).filter(waits).map(|record| record.restarts) {
            self.begin(id, restarts.saturating_add(1));
        }
    }

    /// The main process ended by itself.
    pub(crate) fn exit(&mut self, id: &InstanceId, exit: Option<ExitStatus>) -> Result<()> {
        self.check_alive(id, Call::Kill)?;
        self.end(id, exit, false);
        Ok(())
    }

    /// Stops an instance on request, gracefully.
    pub(crate) fn stop_now(&mut self, id: &InstanceId, call: Call) -> Result<Effect> {
        let record = self.record(id, call)?;
        if record.phase.is_alive() {
            let exit = record.design.exit.unwrap_or_else(|| ExitStatus::signal(record.design.stop_signal));
            self.end(id, Some(exit), true);
            Ok(Effect::Changed)
        } else {
            Ok(self.stay_down(id))
        }
    }

    /// Cancels a pending restart of an instance that does not run.
    pub(crate) fn stay_down(&mut self, id: &InstanceId) -> Effect {
        if self.records.get(id).is_some_and(|record| matches!(record.phase, Phase::Restarting | Phase::Starting)) {
            self.change(id, FactKind::Moved, |record| record.phase = Phase::Exited);
            return Effect::Changed;
        }
        Effect::Unchanged
    }

    /// Delivers a signal, which need not end anything.
    pub(crate) fn signal(&mut self, id: &InstanceId, signal: UnixSignal, call: Call) -> Result<()> {
        self.check_alive(id, call)?;
        let record = self.record(id, call)?;
        let (design, frozen) = (&record.design, record.phase == Phase::Paused);
        if signal == UnixSignal::KILL {
            self.end(id, Some(ExitStatus::signal(signal)), true);
        } else if frozen {
            self.change(id, FactKind::Signalled(signal), |record| record.pending.push(signal));
        } else if design.ends_on.contains(&signal) {
            let exit = design.exit.unwrap_or_else(|| ExitStatus::signal(signal));
            self.end(id, Some(exit), true);
        } else {
            self.change(id, FactKind::Signalled(signal), |_| {});
        }
        Ok(())
    }

    pub(crate) fn pause(&mut self, id: &InstanceId) -> Result<Effect> {
        match self.record(id, Call::Pause)?.phase {
            Phase::Paused => Ok(Effect::Unchanged),
            Phase::Running => {
                self.change(id, FactKind::Paused, |record| record.phase = Phase::Paused);
                Ok(Effect::Changed)
            }
            _ => Err(conflict(id, Call::Pause, "it does not run")),
        }
    }

    pub(crate) fn unpause(&mut self, id: &InstanceId) -> Result<Effect> {
        match self.record(id, Call::Unpause)?.phase {
            Phase::Running => Ok(Effect::Unchanged),
            Phase::Paused => {
                let (mut pending, mut overdue, mut life) = (Vec::new(), None, 0);
                self.change(id, FactKind::Unpaused, |record| {
                    record.phase = Phase::Running;
                    (pending, overdue, life) =
                        (mem::take(&mut record.pending), mem::take(&mut record.overdue), record.life);
                });
                for signal in pending {
                    // An earlier one may have ended it.
                    let _ = self.signal(id, signal, Call::Unpause);
                }
                if let Some(exit) = overdue {
                    self.end_by_itself(id, life, exit);
                }
                Ok(Effect::Changed)
            }
            _ => Err(conflict(id, Call::Unpause, "it does not run")),
        }
    }

    pub(crate) fn remove(&mut self, id: &InstanceId, kill: bool) -> Result<Effect> {
        let Some(record) = self.records.get(id) else { return Ok(Effect::Unchanged) };
        if record.phase.is_alive() {
            if !kill {
                return Err(conflict(id, Call::Remove, "it runs"));
            }
            self.end(id, Some(ExitStatus::signal(UnixSignal::KILL)), true);
        }
        self.logs.remove(id);
        self.snapshots.remove(id);
        if let Some(record) = self.records.remove(id) {
            self.names.remove(&record.design.name);
            self.record_fact(&record, FactKind::Removed);
        }
        self.tell_waiting(id, None, End::Gone);
        Ok(Effect::Changed)
    }

    pub(crate) fn rename(&mut self, id: &InstanceId, name: String) -> Result<Effect> {
        check_name(&name)?;
        let before = self.record(id, Call::Rename)?.design.name.clone();
        if before == name {
            return Ok(Effect::Unchanged);
        }
        self.check_free(&name, Call::Rename)?;
        self.names.remove(&before);
        self.names.insert(name.clone());
        self.change(id, FactKind::Changed("name"), |record| record.design.name = name);
        Ok(Effect::Changed)
    }

    /// Changes a field other than the state; without a change there is no fact.
    pub(crate) fn edit(
        &mut self,
        id: &InstanceId,
        field: &'static str,
        edit: impl FnOnce(&mut Blueprint),
    ) -> Result<()> {
        let before = &self.record(id, Call::Inspect)?.design;
        let mut after = before.clone();
        edit(&mut after);
        if after != *before {
            self.change(id, FactKind::Changed(field), |record| record.design = after);
        }
        Ok(())
    }

    /// Changes a field that no inspection shows.
    pub(crate) fn edit_unseen(&mut self, id: &InstanceId, edit: impl FnOnce(&mut Record)) -> Result<()> {
        self.record(id, Call::Inspect)?;
        if let Some(record) = self.records.get_mut(id) {
            edit(Arc::make_mut(record));
            self.dirty = true;
        }
        Ok(())
    }

    /// The main process's terminal.
    pub(crate) fn resize(&mut self, id: &InstanceId, size: TtySize) -> Result<()> {
        self.check_alive(id, Call::Resize)?;
        if !self.record(id, Call::Resize)?.design.tty {
            return Err(conflict(id, Call::Resize, "it has no terminal"));
        }
        self.edit_unseen(id, |record| record.tty = Some(size))
    }

    /// Moves the instance into any state, beginning and ending runs as needed: no run is ever skipped.
    pub(crate) fn set_state(&mut self, id: &InstanceId, state: InstanceState) -> Result<()> {
        let (before, after) = (self.record(id, Call::Inspect)?.phase, Phase::from(state));
        if before == after {
            return Ok(());
        }
        if after.is_alive() && !before.is_alive() {
            self.begin(id, 0);
        } else if before.is_alive() && !after.is_alive() {
            self.end(id, None, true);
        }
        if self.record(id, Call::Inspect)?.phase != after {
            self.change(id, FactKind::Moved, |record| record.phase = after);
        }
        Ok(())
    }

    /// The effects of the runtime's start, after it stopped all instances or none.
    pub(super) fn reboot(&mut self, reboot: Reboot) {
        let mut again = Vec::new();
        self.down = true;
        for record in self.records.values().cloned().collect::<Vec<_>>() {
            let stops = record.phase.is_alive() && reboot.stops_instances;
            if stops {
                self.end(&record.id, None, true);
            }
            let policy = record.design.restart;
            let down = stops || !record.phase.is_alive();
            if down && (policy == RestartPolicy::Always || (stops && policy == RestartPolicy::UnlessStopped)) {
                again.push(record.id.clone());
            }
        }
        if reboot.loses_everything {
            again.clear();
            self.lose_everything();
        }
        self.history.restart(reboot.keeps_history);
        self.down = false;
        for id in again {
            self.begin(&id, 0);
        }
    }

    /// The state of a runtime that was just installed: counters begin again, under another name.
    fn lose_everything(&mut self) {
        for id in self.records.keys().cloned().collect::<Vec<_>>() {
            self.tell_waiting(&id, None, End::Gone);
        }
        self.boot = self.boot.after_loss();
        self.history.begin_again();
        (self.next_id, self.next_volume) = (0, 0);
        self.names.clear();
        self.timers.clear();
        self.records.clear();
        self.logs.clear();
        self.snapshots.clear();
        self.volumes.clear();
        (self.images, self.networks) = Default::default();
        self.dirty = true;
    }

    fn check_alive(&self, id: &InstanceId, call: Call) -> Result<()> {
        if self.record(id, call)?.phase.is_alive() { Ok(()) } else { Err(conflict(id, call, "it does not run")) }
    }
}
