//! Verbs that take time: waiting for the end of a run, and stopping with timeout.

use std::time::Duration;

use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal, backend::saturating_add, manager::Effect,
};
use tokio::time::Instant;

use super::{Look, MemoryRuntime, State, refusal::conflict};
use crate::fault::Call;

/// A waiter for the end of a run.
#[derive(Debug)]
pub(super) struct Waited {
    id: InstanceId,
    life: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The run ended, with this exit if it is known.
    Exited(Option<ExitStatus>),
    /// The instance was removed first.
    Gone,
}

/// One registered wait; dropping it forgets it.
#[derive(Debug)]
pub(crate) struct Waiting {
    runtime: MemoryRuntime,
    id: InstanceId,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.runtime.with(|state| state.waits.remove(&self.number));
    }
}

impl Waiting {
    async fn end(&self) -> End {
        let look = |state: &mut State| state.waits.get(&self.number).map_or(Some(End::Gone), |wait| wait.end);
        self.runtime.inner.until(|state| look(state).map_or(Look::Later(None), Look::Ready)).await
    }

    /// The exit of the run; the same for every call.
    pub(crate) async fn exit(&self) -> Result<Option<ExitStatus>> {
        match self.end().await {
            End::Exited(exit) => Ok(exit),
            End::Gone => {
                let gone = "it was removed before its end was seen";
                Err(Error::new(ErrorKind::NotFound, Call::Wait.operation(), gone).with_context("instance", &self.id))
            }
        }
    }
}

impl State {
    /// Notifies the waiters for this run (or, when the instance is gone, for any run of it).
    pub(super) fn tell_waiting(&mut self, id: &InstanceId, life: Option<u64>, end: End) {
        let concerned = |wait: &&mut Waited| wait.id == *id && life.is_none_or(|life| wait.life == life);
        for wait in self.waits.values_mut().filter(concerned) {
            wait.end.get_or_insert(end);
        }
    }

    pub(crate) fn stop_timeout(&self, id: &InstanceId) -> Option<Duration> {
        self.records.get(id).map(|record| record.design.stop_timeout)
    }

    /// Registers a wait for the run `life`; `None`: the present or last one.
    fn register(&mut self, id: &InstanceId, life: Option<u64>) -> Result<u64> {
        let record = self.record(id, Call::Wait)?;
        let life = life.unwrap_or(record.life);
        let end = match (life, record.phase.is_alive()) {
            (0, _) => return Err(conflict(id, Call::Wait, "it never ran")),
            (life, _) if life > record.life => None, // it is about to begin
            (_, true) => None,
            (_, false) => Some(End::Exited(record.exit)),
        };
        let wait = Waited { id: id.clone(), life, end };
        self.next_wait += 1;
        self.waits.insert(self.next_wait, wait);
        Ok(self.next_wait)
    }
}

impl MemoryRuntime {
    /// Waits for the end of this run, or of the present or last one.
    pub(crate) fn waiting(&self, id: &InstanceId, life: Option<u64>) -> Result<Waiting> {
        let number = self.with(|state| state.register(id, life))?;
        Ok(Waiting { runtime: self.clone(), id: id.clone(), number })
    }

    /// Sends the signal, waits, and kills.
    pub(crate) async fn stop_within(
        &self,
        id: &InstanceId,
        signal: Option<UnixSignal>,
        timeout: Option<Duration>,
        call: Call,
    ) -> Result<Effect> {
        let asked = self.with(|state| -> Result<_> {
            if signal.is_some() {
                state.check_verb(call, "lifecycle_stop_signal")?;
            }
            let record = state.record(id, call)?;
            if !record.phase.is_alive() {
                return Ok(Err(state.stay_down(id)));
            }
            let (signal, timeout) =
                (signal.unwrap_or(record.design.stop_signal), timeout.unwrap_or(record.design.stop_timeout));
            let number = state.register(id, None)?;
            state.signal(id, signal, call)?;
            Ok(Ok((number, saturating_add(state.now, timeout))))
        })?;
        let (number, timeout): (u64, Instant) = match asked {
            Ok(asked) => asked,
            Err(held) => return Ok(held),
        };
        let waiting = Waiting { runtime: self.clone(), id: id.clone(), number };
        if tokio::time::timeout_at(timeout, waiting.end()).await.is_err() {
            // It may have ended at this very moment, which counts as stopped.
            let _ = self.with(|state| state.signal(id, UnixSignal::KILL, call));
        }
        Ok(Effect::Changed)
    }
}
