//! One listing, from the request to its outcome. An instance that the stream reports while the listing is under way is inspected:
//! the order of the report and the listing's answer is not known.

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
    completeness::Completeness,
    event::{Gap, ResumeToken},
    instance::{BackendId, Instance, InstanceId},
    options::Detail,
};

/// Time for which the stream must be quiet after an answer. Reports that arrive until then may be of changes that the answer
/// already has; later ones count as newer than the answer.
pub(super) const SETTLE: Duration = Duration::from_millis(10);

/// Longest such wait, for a stream that is never quiet.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// Most rounds of inspections within one listing; instances that are not settled then are inspected after it.
const ROUNDS: u8 = 3;

/// Pause before a listing is repeated: an empty one, to confirm it, or one during which reports were missed.
const RELIST_AGAIN: Duration = Duration::from_millis(200);

/// Times that a listing starts over because reports were missed during it. Losses may come faster than a listing takes: it then
/// ends with what it shows, and the next one covers the last loss.
const RESTARTS: u8 = 3;

/// Pause after a listing that was incomplete or failed; with each failure it doubles, up to `RELIST_RETRY_MAX`.
const RELIST_RETRY: Duration = Duration::from_secs(5);
const RELIST_RETRY_MAX: Duration = Duration::from_secs(60);

/// Purpose of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A resync: every subscriber gets its rows.
    Resync(Gap),
    /// A comparison with the rows: only differences are emitted.
    Confirm,
}

#[derive(Debug)]
enum Stage {
    /// The listing is requested at `until`.
    Waiting {
        until: Instant,
    },
    /// The listing was requested.
    Asked,
    /// Answered; the stream may still report changes from before the answer.
    Settling {
        until: Instant,
        most: Instant,
    },
    /// Instances that the stream reported in the meantime are being inspected.
    Inspecting,
    Done,
}

/// One listing.
#[derive(Debug)]
pub(super) struct Relist {
    purpose: Purpose,
    stage: Stage,
    detail: Detail,
    rows: Cache,
    completeness: Completeness,
    /// Instances that the stream reported since the listing (or their last inspection) was requested, each with its last report.
    /// Those reported before the request have become hints.
    touched: BTreeMap<InstanceId, Reported>,
    /// Instances that are being inspected, each with its last report before the request.
    asked: BTreeMap<InstanceId, Reported>,
    rounds: u8,
    /// `true` if a listing in which every instance was missing is being repeated.
    doubted: bool,
    /// Instances that the listing shows without their incarnation, though the cache has one: an inspection in full detail must
    /// prove that the run is the same. `None`: not determined yet.
    proof: Option<BTreeSet<InstanceId>>,
    failures: u32,
    restarts: u8,
    /// Reports that were missed since the listing was requested, if it does not start over for them.
    missed: Option<Missed>,
}

/// Reports that were missed during a listing, and that its rows may lack.
#[derive(Debug)]
pub(super) struct Missed {
    /// Reason of the last loss.
    pub(super) gap: Gap,
    /// Resume token from before the first loss: the rows have every change up to it.
    pub(super) reached: Option<ResumeToken>,
}

/// Report of an instance during a listing.
#[derive(Debug, Clone)]
pub(super) enum Reported {
    /// The instance may have changed: a reason to inspect it.
    Hint,
    Edge(Edge),
    State(Arc<Instance>),
    Gone,
}

/// Outcome of a listing.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) rows: Cache,
    pub(super) completeness: Completeness,
    /// Instances that the listing did not settle, each with its last report.
    pub(super) open: BTreeMap<InstanceId, Reported>,
    pub(super) detail: Detail,
}

impl Relist {
    pub(super) fn new(purpose: Purpose, now: Instant) -> Self {
        Self {
            purpose,
            stage: Stage::Waiting { until: now },
            detail: Detail::Summary,
            rows: Cache::default(),
            completeness: Completeness::Unknown,
            touched: BTreeMap::new(),
            asked: BTreeMap::new(),
            rounds: 0,
            doubted: false,
            proof: None,
            failures: 0,
            restarts: 0,
            missed: None,
        }
    }

    /// A comparison after a pause, because the last listing was incomplete.
    pub(super) fn later(now: Instant) -> Self {
        let mut relist = Self::new(Purpose::Confirm, now);
        relist.wait_until(now + RELIST_RETRY);
        relist
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Detail of the inspections that the listing needs.
    pub(super) fn inspection_detail(&self) -> Detail {
        if self.proof.is_some() { Detail::Full } else { self.detail }
    }

    /// Once the listing has settled, determines the instances that it shows without their incarnation.
    pub(super) fn prove(&mut self, now: Instant, known: &Cache) {
        let settled = matches!(self.stage, Stage::Settling { until, .. } if until <= now);
        if settled && self.proof.is_none() && self.detail != Detail::Full {
            let rows = self.rows.join(known);
            let open = rows.filter(|(row, known)| known.is_some_and(|known| merge::incarnation_is_open(known, row)));
            self.proof = Some(open.map(|(row, _)| row.id.clone()).collect());
        }
    }

    pub(super) fn wait_until(&mut self, until: Instant) {
        self.stage = Stage::Waiting { until };
    }

    /// Records a report of this instance.
    pub(super) fn touch(&mut self, id: &InstanceId, reported: Reported, now: Instant) {
        if let Stage::Settling { until, most } = &mut self.stage {
            *until = (now + SETTLE).min(*most).max(*until);
        }
        match self.touched.get_mut(id) {
            Some(_) if matches!(reported, Reported::Hint) => {}
            Some(last) => *last = reported,
            None => drop(self.touched.insert(id.clone(), reported)),
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

    /// The listing was requested. Its answer will be newer than every report so far, so each of these becomes a hint: a reason to
    /// inspect, and no more.
    pub(super) fn asked(&mut self, detail: Detail) {
        (self.stage, self.detail) = (Stage::Asked, detail);
        (self.rounds, self.proof, self.missed) = (0, None, None);
        self.touched.values_mut().for_each(|reported| *reported = Reported::Hint);
    }

    /// Reports were missed, after this token. If the listing is yet to be requested, its answer will be newer; else it starts over,
    /// unless it has done so too often. Returns true if it starts over.
    pub(super) fn lost(&mut self, gap: Gap, reached: Option<ResumeToken>, now: Instant) -> bool {
        if matches!(self.stage, Stage::Waiting { .. }) {
            return false;
        }
        if self.restarts < RESTARTS {
            self.restarts += 1;
            self.wait_until(now + RELIST_AGAIN);
            return true;
        }
        self.missed.get_or_insert(Missed { gap, reached }).gap = gap;
        false
    }

    pub(super) fn take_missed(&mut self) -> Option<Missed> {
        self.missed.take()
    }

    pub(super) fn doubted(&self) -> bool {
        self.doubted
    }

    /// Every instance vanished: repeats the listing before that is believed.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        self.wait_until(now + RELIST_AGAIN);
    }

    /// The listing failed: tries again later.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = RELIST_RETRY.saturating_mul(1 << self.failures.min(10)).min(RELIST_RETRY_MAX);
        self.failures += 1;
        self.wait_until(now + pause);
    }

    pub(super) fn answered(&mut self, listing: Listing, now: Instant, settle: Duration) {
        self.completeness = listing.completeness.bounded();
        self.rows = listing.instances.into_iter().collect();
        self.stage = Stage::Settling { until: now + settle, most: now + SETTLE_MAX };
    }

    /// The ids that must be inspected before the listing is done.
    pub(super) fn must_inspect(&mut self, now: Instant) -> Option<Vec<InstanceId>> {
        if !matches!(self.stage, Stage::Settling { until, .. } if until <= now) {
            return None;
        }
        let proof = self.proof.as_mut().map(std::mem::take).unwrap_or_default();
        let mut asked = BTreeMap::new();
        if self.rounds < ROUNDS {
            // During a comparison the machine is live and applies these reports itself: the comparison leaves them out.
            if self.purpose != Purpose::Confirm {
                asked = std::mem::take(&mut self.touched);
            }
            for id in proof {
                if !self.touched.contains_key(&id) {
                    asked.entry(id).or_insert(Reported::Hint);
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

    /// Takes the answers of an inspection. Like a listing, they may be ahead of the stream, which therefore gets the same time to
    /// report the changes that they have.
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
            self.rounds = ROUNDS; // an inspection that fails is not repeated here
            for (id, reported) in std::mem::take(&mut self.asked) {
                match self.touched.get(&id) {
                    Some(Reported::Edge(_) | Reported::State(_) | Reported::Gone) => {}
                    Some(Reported::Hint) | None => drop(self.touched.insert(id, reported)),
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

    /// Applies to each row that no inspection settled its last report. This is right in either order: a row from before the
    /// report is outdated, and one from after it agrees with it, since no later report changed the instance.
    pub(super) fn into_outcome(mut self, backend: &BackendId) -> Outcome {
        for (id, reported) in &self.touched {
            let row = match (reported, self.rows.get(id)) {
                (Reported::Hint, _) => continue,
                (Reported::Gone, _) => {
                    self.rows.remove(id);
                    continue;
                }
                (Reported::Edge(edge), Some(row)) => merge::after_edge(row, edge),
                (Reported::Edge(edge), None) => merge::from_edge(backend, edge),
                (Reported::State(state), Some(row)) => Some(merge::merged(row, state)),
                (Reported::State(state), None) => Some(Instance::clone(state)),
            };
            if let Some(row) = row {
                self.rows.insert(Arc::new(row));
            }
        }
        Outcome { rows: self.rows, completeness: self.completeness, open: self.touched, detail: self.detail }
    }
}
