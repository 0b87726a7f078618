//! Runs that the server's reports imply: it folds reports together, so that a short run may be seen only by its end, and the end of a
//! run only by the next.

use std::{collections::HashMap, sync::Arc};

use runtide_core::{
    Incarnation, Instance, InstanceId, InstanceState,
    watch::{Edge, SignalBody},
};

use crate::normalize::{Seen, uid_of};

/// The last run of each instance that was reported.
#[derive(Debug, Default)]
pub(crate) struct Runs(HashMap<InstanceId, Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    number: u32,
    is_alive: bool,
    has_ended: bool,
}

impl Runs {
    /// Takes in the rows of the process that watched before: a run that it saw is not reported again.
    pub(crate) fn learn(&mut self, known: &[Arc<Instance>]) {
        for instance in known {
            let incarnation = instance.incarnation.as_ref().and_then(|run| run.as_str().rsplit_once('/'));
            let Some(number) = incarnation.and_then(|(_, number)| number.parse().ok()) else { continue };
            let run = Run { number, is_alive: instance.state.is_alive(), has_ended: instance.state.is_ended() };
            self.0.insert(instance.id.clone(), run);
        }
    }

    /// Takes in a listing.
    pub(crate) fn listed(&mut self, listed: &[Seen]) {
        for seen in listed {
            self.note(seen);
        }
    }

    fn note(&mut self, seen: &Seen) {
        let state = seen.instance.state;
        let run = Run { number: seen.run, is_alive: state.is_alive(), has_ended: state.is_ended() };
        self.0.insert(seen.instance.id.clone(), run);
    }

    pub(crate) fn forget(&mut self, id: &InstanceId) {
        self.0.remove(id);
    }

    pub(crate) fn of_pod(&self, uid: &str) -> Vec<InstanceId> {
        if self.0.contains_key(uid) {
            return vec![InstanceId::from(uid)];
        }
        let mut all: Vec<_> = self.0.keys().filter(|id| uid_of(id.as_str()) == uid).cloned().collect();
        all.sort();
        all
    }

    /// The reports that lead from the last run to this state.
    pub(crate) fn reported(&mut self, seen: &Seen, out: &mut Vec<SignalBody>) {
        let instance = &seen.instance;
        let before = self.0.get(&instance.id).copied();
        if let Some(before) = before.filter(|before| before.is_alive && before.number < seen.run) {
            let is_next = seen.run - before.number == 1;
            out.push(SignalBody::Edge(Edge {
                id: instance.id.clone(),
                incarnation: Some(Incarnation::from(format!("{}/{}", instance.id, before.number))),
                state: InstanceState::Stopped,
                exit: seen.previous_exit.filter(|_| is_next),
                described: None,
            }));
        }
        // Of an instance that is met with its end, the start may have been reported to an earlier watch.
        let began_unseen =
            before.is_some_and(|before| before.number < seen.run || !(before.is_alive || before.has_ended));
        if began_unseen && instance.state.is_ended() && instance.started_at.is_some() {
            out.push(SignalBody::Edge(Edge {
                id: instance.id.clone(),
                incarnation: instance.incarnation.clone(),
                state: InstanceState::Running,
                exit: None,
                described: Some(Arc::new(as_it_ran(instance))),
            }));
        }
        self.note(seen);
        out.push(SignalBody::State(Arc::clone(instance)));
    }

    /// The reports of a removal. Its object is the last that is said of the instance, and may have its end.
    pub(crate) fn gone(&mut self, seen: &Seen, out: &mut Vec<SignalBody>) {
        if self.0.contains_key(&seen.instance.id) || seen.instance.state.is_ended() {
            self.reported(seen, out);
        }
        self.forget(&seen.instance.id);
        out.push(SignalBody::Gone(seen.instance.id.clone()));
    }
}

/// The instance in the run whose end was reported.
fn as_it_ran(instance: &Instance) -> Instance {
    let mut running = instance.clone();
    running.state = InstanceState::Running;
    running.exit = None;
    running.reason = None;
    running.finished_at = None;
    running
}
