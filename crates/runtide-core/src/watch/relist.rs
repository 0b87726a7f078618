//! One look at everything, from the request to its conclusion: what was told meanwhile is looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    cache::Cache,
    merge,
    source::{Edge, Inspection, Listing},
};
use crate::{
    event::Gap,
    instance::{BackendId, Instance, InstanceId},
    options::Detail,
};

/// How long the stream must be quiet after a look before the look counts as the later of the two.
pub(super) const SETTLE: Duration = Duration::from_millis(10);

/// A stream that is never quiet is not waited for any longer.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// What was told during a look is looked at again, at most so often; what is still open then is looked at afterwards.
const ROUNDS: u8 = 3;

/// The pause before a look that came back empty is taken for the truth.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// The pause after a look that was not complete, or failed; it doubles up to `AGAIN_MAX`.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// What the look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everybody is shown what is there.
    Bracket(Gap),
    /// Nobody is shown anything unless it differs from what was told.
    Confirm,
}

#[derive(Debug)]
enum Stage {
    /// Not yet asked.
    Waiting {
        until: Instant,
    },
    Asked,
    /// Answered; the stream may still tell of what lay before the answer.
    Settling {
        until: Instant,
        most: Instant,
    },
    /// What was told meanwhile is being looked at.
    Inspecting,
    Done,
}

/// One look at everything.
#[derive(Debug)]
pub(super) struct Relist {
    purpose: Purpose,
    stage: Stage,
    detail: Detail,
    rows: Cache,
    complete: bool,
    /// Told of since the look was asked for, or since it was looked at again, and what was told last.
    touched: BTreeMap<InstanceId, Told>,
    /// The same for those that are being looked at again.
    asked: BTreeMap<InstanceId, Told>,
    rounds: u8,
    doubted: bool,
    /// Those whose life the look leaves open: a close look proves it. `None`: not asked yet.
    proof: Option<BTreeSet<InstanceId>>,
    failures: u32,
}

/// What was told of an instance while a look was under way.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// That something changed.
    Something,
    Edge(Edge),
    State(Arc<Instance>),
    Gone,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) rows: Cache,
    pub(super) complete: bool,
    /// What was told of these last, and is not settled by the look.
    pub(super) open: BTreeMap<InstanceId, Told>,
    pub(super) detail: Detail,
}

impl Relist {
    pub(super) fn new(purpose: Purpose, now: Instant) -> Self {
        Self {
            purpose,
            stage: Stage::Waiting { until: now },
            detail: Detail::Summary,
            rows: Cache::default(),
            complete: false,
            touched: BTreeMap::new(),
            asked: BTreeMap::new(),
            rounds: 0,
            doubted: false,
            proof: None,
            failures: 0,
        }
    }

    /// A look after one that was not complete.
    pub(super) fn later(now: Instant) -> Self {
        let mut relist = Self::new(Purpose::Confirm, now);
        relist.wait_until(now + AGAIN);
        relist
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// How closely to look at what must be looked at again.
    pub(super) fn closeness(&self) -> Detail {
        if self.proof.is_some() { Detail::Full } else { self.detail }
    }

    /// Once, when the look is settled: those whose life it leaves open are looked at closely.
    pub(super) fn prove(&mut self, now: Instant, known: &Cache) {
        let settled = matches!(self.stage, Stage::Settling { until, .. } if until <= now);
        if settled && self.proof.is_none() && self.detail != Detail::Full {
            let rows = self.rows.beside(known);
            let open = rows.filter(|(row, known)| known.is_some_and(|known| merge::life_is_open(known, row)));
            self.proof = Some(open.map(|(row, _)| row.id.clone()).collect());
        }
    }

    pub(super) fn wait_until(&mut self, until: Instant) {
        self.stage = Stage::Waiting { until };
    }

    /// Something was told of this instance.
    pub(super) fn touch(&mut self, id: &InstanceId, told: Told, now: Instant) {
        if let Stage::Settling { until, most } = &mut self.stage {
            *until = (now + SETTLE).min(*most).max(*until);
        }
        match self.touched.get_mut(id) {
            Some(_) if matches!(told, Told::Something) => {}
            Some(last) => *last = told,
            None => drop(self.touched.insert(id.clone(), told)),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } | Stage::Settling { until, .. } => Some(until),
            Stage::Asked | Stage::Inspecting | Stage::Done => None,
        }
    }

    pub(super) fn must_ask(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Waiting { until } if until <= now)
    }

    /// The answer will be later than whatever was told so far, which is then no more than a reason to look again.
    pub(super) fn asked(&mut self, detail: Detail) {
        (self.stage, self.detail) = (Stage::Asked, detail);
        (self.rounds, self.proof) = (0, None);
        self.touched.values_mut().for_each(|told| *told = Told::Something);
    }

    /// Start over: something was missed.
    pub(super) fn again(&mut self, now: Instant) {
        self.wait_until(now + SECOND_LOOK);
    }

    pub(super) fn doubted(&self) -> bool {
        self.doubted
    }

    /// Everything vanished: once more before that is believed.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        self.wait_until(now + SECOND_LOOK);
    }

    /// The look failed: try again later.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = AGAIN.saturating_mul(1 << self.failures.min(10)).min(AGAIN_MAX);
        self.failures += 1;
        self.wait_until(now + pause);
    }

    pub(super) fn answered(&mut self, snapshot: Listing, now: Instant, settle: Duration) {
        self.complete = snapshot.is_complete();
        self.rows = snapshot.instances.into_iter().collect();
        self.stage = Stage::Settling { until: now + settle, most: now + SETTLE_MAX };
    }

    /// What must be looked at again before the look can be concluded.
    pub(super) fn must_inspect(&mut self, now: Instant) -> Option<Vec<InstanceId>> {
        if !matches!(self.stage, Stage::Settling { until, .. } if until <= now) {
            return None;
        }
        let proof = self.proof.as_mut().map(std::mem::take).unwrap_or_default();
        let mut asked = BTreeMap::new();
        if self.rounds < ROUNDS {
            // A comparison leaves what was told meanwhile to the stream.
            if self.purpose != Purpose::Confirm {
                asked = std::mem::take(&mut self.touched);
            }
            for id in proof {
                if !self.touched.contains_key(&id) {
                    asked.entry(id).or_insert(Told::Something);
                }
            }
        }
        if asked.is_empty() {
            self.stage = Stage::Done;
            return None;
        }
        self.rounds += 1;
        self.stage = Stage::Inspecting;
        self.asked = asked;
        Some(self.asked.keys().cloned().collect())
    }

    /// The answers may run ahead of the stream as the first one may: it is given the same time to tell what they show.
    pub(super) fn inspected(&mut self, answers: Vec<Inspection>, now: Instant, settle: Duration) {
        if !matches!(self.stage, Stage::Inspecting) {
            return;
        }
        for answer in answers {
            match answer {
                Inspection::Present(instance) => {
                    self.asked.remove(&instance.id);
                    self.rows.insert(instance);
                }
                Inspection::Absent(id) => {
                    self.asked.remove(&id);
                    self.rows.remove(&id);
                }
                Inspection::Unknown { .. } => {}
            }
        }
        if !self.asked.is_empty() {
            self.rounds = ROUNDS; // a look that fails is not repeated here
            for (id, told) in std::mem::take(&mut self.asked) {
                match self.touched.get(&id) {
                    Some(Told::Edge(_) | Told::State(_) | Told::Gone) => {}
                    Some(Told::Something) | None => drop(self.touched.insert(id, told)),
                }
            }
        }
        self.stage = Stage::Settling { until: now + settle, most: now + SETTLE_MAX };
    }

    pub(super) fn is_done(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Done => true,
            Stage::Settling { until, .. } => until <= now && self.touched.is_empty(),
            _ => false,
        }
    }

    /// What no second look settled is as it was told last: a look from before that is older, and one from behind it agrees.
    pub(super) fn into_outcome(mut self, backend: &BackendId) -> Outcome {
        for (id, told) in &self.touched {
            let row = match (told, self.rows.get(id)) {
                (Told::Something, _) => continue,
                (Told::Gone, _) => {
                    self.rows.remove(id);
                    continue;
                }
                (Told::Edge(edge), Some(row)) => merge::after_edge(row, edge),
                (Told::Edge(edge), None) => merge::from_edge(backend, edge),
                (Told::State(state), Some(row)) => Some(merge::merged(row, state)),
                (Told::State(state), None) => Some(Instance::clone(state)),
            };
            if let Some(row) = row {
                self.rows.insert(Arc::new(row));
            }
        }
        Outcome { rows: self.rows, complete: self.complete, open: self.touched, detail: self.detail }
    }
}
