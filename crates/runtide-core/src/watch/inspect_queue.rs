//! Instances to inspect, and the time of each inspection: hints are coalesced per id, many ids go into one request, and one
//! request is under way at a time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::instance::InstanceId;

/// Time in which the stream may report the edge that explains an inspection which ran ahead of it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Shortest time between two requests: under churn hints come by the thousand, and most of their instances are gone or
/// reported again a moment later. The first hint after a pause is inspected at once. While hints go on, the time doubles up to
/// `PACE_MAX`: each request and its answer delay the events that come meanwhile, and take the daemon's time.
const PACE: Duration = Duration::from_millis(10);
const PACE_MAX: Duration = Duration::from_millis(40);

/// Ids in one request; a source may cut it further.
const BATCH: usize = 512;

/// The pause after an inspection that failed; it doubles up to `RETRY_MAX`.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One instance to inspect.
#[derive(Debug)]
struct Request {
    due: Instant,
    /// True while the request is under way.
    asked: bool,
    /// The stream reported the instance during the request: the answer may be older than the report.
    raced: bool,
    /// The answer counts at once, also where it runs ahead of the stream: no report described the instance, and none will.
    forced: bool,
    /// Time of the first inspection that disagreed with the reports.
    doubt: Option<Instant>,
    failures: u32,
}

/// Weight of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// The answer was not requested, or may be older than a report.
    Stale,
    /// The answer counts, unless it runs ahead of the stream.
    Tentative,
    /// As `Tentative`, and the stream has had its time to explain an earlier one.
    Unexplained,
    /// The answer counts in any case.
    Final,
}

/// Instances to inspect.
#[derive(Debug, Default)]
pub(super) struct InspectQueue {
    wanted: BTreeMap<InstanceId, Request>,
    asking: bool,
    /// Time of the earliest request; `None`: there is none.
    soonest: Option<Instant>,
    /// Lower bound of the time of the next request, and the time from the last request to it.
    paced: Option<(Instant, Duration)>,
}

impl InspectQueue {
    /// Asks for an inspection: something may have changed.
    pub(super) fn hint(&mut self, id: &InstanceId, now: Instant, forced: bool) {
        self.sooner(now);
        if let Some(request) = self.wanted.get_mut(id) {
            request.raced |= request.asked;
            request.forced |= forced;
            if request.doubt.is_none() {
                request.due = request.due.min(now);
            }
            return;
        }
        let request = Request { due: now, asked: false, raced: false, forced, doubt: None, failures: 0 };
        self.wanted.insert(id.clone(), request);
    }

    /// The stream reported the instance: an answer that is under way may be older, and a doubt is explained.
    pub(super) fn reported(&mut self, id: &InstanceId) {
        if let Some(request) = self.wanted.get_mut(id) {
            request.raced |= request.asked;
            request.forced = false;
            request.doubt = None;
        }
    }

    pub(super) fn is_wanted(&self, id: &InstanceId) -> bool {
        self.wanted.contains_key(id)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Time of the next request; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.asking {
            None
        } else {
            self.soonest.map(|soonest| self.paced.map_or(soonest, |(paced, _)| paced.max(soonest)))
        }
    }

    fn sooner(&mut self, at: Instant) {
        self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
    }

    /// The ids that are due, for one request.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<InstanceId> {
        if self.asking {
            return Vec::new();
        }
        let waited = self.soonest;
        let mut ids = Vec::new();
        for (id, request) in self.wanted.iter_mut().filter(|(_, request)| request.due <= now).take(BATCH) {
            (request.asked, request.raced) = (true, false);
            ids.push(id.clone());
        }
        self.asking = !ids.is_empty();
        if self.asking {
            let pace = match (self.paced, waited) {
                (Some((paced, pace)), Some(waited)) if waited < paced => (pace * 2).min(PACE_MAX),
                _ => PACE,
            };
            self.paced = Some((now + pace, pace));
        }
        self.soonest = self.wanted.values().filter(|request| !request.asked).map(|request| request.due).min();
        ids
    }

    /// The request is over.
    pub(super) fn answered(&mut self) {
        self.asking = false;
    }

    /// Weight of the answer for this id. The id stays wanted until it is settled.
    pub(super) fn take(&mut self, id: &InstanceId, now: Instant) -> Worth {
        let Some(request) = self.wanted.get_mut(id).filter(|request| request.asked) else { return Worth::Stale };
        request.asked = false;
        let (forced, explained) = (request.forced, request.doubt.is_none_or(|since| now < since + GRACE));
        if request.raced {
            request.due = now;
            self.sooner(now);
            return Worth::Stale;
        }
        match (forced, explained) {
            (true, _) => Worth::Final,
            (false, true) => Worth::Tentative,
            (false, false) => Worth::Unexplained,
        }
    }

    /// Removes an id whose answer was taken in.
    pub(super) fn settle(&mut self, id: &InstanceId) {
        self.wanted.remove(id);
    }

    /// The answer disagrees with the reports: gives the stream a moment, and then inspects again.
    pub(super) fn doubt(&mut self, id: &InstanceId, now: Instant) {
        if let Some(request) = self.wanted.get_mut(id) {
            let due = *request.doubt.get_or_insert(now) + GRACE;
            request.due = due;
            self.sooner(due);
        }
    }

    /// There was no answer: tries again later.
    pub(super) fn failed(&mut self, id: &InstanceId, now: Instant) {
        if let Some(request) = self.wanted.get_mut(id) {
            request.asked = false;
            let due = now + RETRY.saturating_mul(1 << request.failures.min(10)).min(RETRY_MAX);
            request.due = due;
            request.failures += 1;
            self.sooner(due);
        }
    }

    /// The request is over, and had no answer for this id.
    pub(super) fn failed_if_asked(&mut self, id: &InstanceId, now: Instant) {
        if self.wanted.get(id).is_some_and(|request| request.asked) {
            self.failed(id, now);
        }
    }

    /// Every id to inspect, for a listing that answers them all.
    pub(super) fn drain(&mut self) -> Vec<InstanceId> {
        std::mem::take(self).wanted.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hints_are_coalesced_and_one_request_is_under_way() {
        let (mut queue, now) = (InspectQueue::default(), Instant::now());
        for _ in 0..1_000 {
            queue.hint(&"a".into(), now, false);
            queue.hint(&"b".into(), now, false);
        }
        assert_eq!(queue.ask(now).len(), 2);
        queue.hint(&"c".into(), now, false);
        assert!(queue.ask(now).is_empty(), "one at a time");
        assert_eq!(queue.take(&"a".into(), now), Worth::Tentative);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_a_pace() {
        let (mut queue, now) = (InspectQueue::default(), Instant::now());
        queue.hint(&"a".into(), now, false);
        assert_eq!(queue.due(), Some(now), "the first one at once");
        queue.ask(now);
        queue.hint(&"b".into(), now, false);
        queue.answered();
        queue.settle(&"a".into());
        assert_eq!(queue.due(), Some(now + PACE));
        let later = now + PACE * 2;
        assert_eq!(queue.ask(later), [InstanceId::from("b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_slows_down_while_hints_go_on_and_only_then() {
        let (mut queue, mut now) = (InspectQueue::default(), Instant::now());
        let id = InstanceId::from("a");
        let mut pauses = Vec::new();
        for _ in 0..5 {
            queue.hint(&id, now, false);
            let due = queue.due().unwrap();
            pauses.push(due - now);
            now = due;
            assert_eq!(queue.ask(now).len(), 1);
            queue.answered();
            queue.settle(&id);
        }
        assert_eq!(pauses, [Duration::ZERO, PACE, PACE * 2, PACE_MAX, PACE_MAX]);
        now += PACE_MAX;
        queue.hint(&id, now, false);
        assert_eq!(queue.due(), Some(now), "at once after a pause");
        queue.ask(now);
        queue.answered();
        queue.settle(&id);
        queue.hint(&id, now, false);
        assert_eq!(queue.due(), Some(now + PACE), "and as quickly as at first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_overtaken_is_worth_nothing_and_asked_again() {
        let (mut queue, now) = (InspectQueue::default(), Instant::now());
        queue.hint(&"a".into(), now, false);
        queue.ask(now);
        queue.reported(&"a".into());
        queue.answered();
        assert_eq!(queue.take(&"a".into(), now), Worth::Stale);
        assert_eq!(queue.ask(now), [InstanceId::from("a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_has_its_time_to_be_explained() {
        let (mut queue, now) = (InspectQueue::default(), Instant::now());
        let id = InstanceId::from("a");
        queue.hint(&id, now, false);
        queue.ask(now);
        queue.answered();
        assert_eq!(queue.take(&id, now), Worth::Tentative);
        queue.doubt(&id, now);
        assert_eq!(queue.due(), Some(now + GRACE));
        assert!(queue.ask(now).is_empty());
        queue.ask(now + GRACE);
        queue.answered();
        assert_eq!(queue.take(&id, now + GRACE), Worth::Unexplained);
    }
}
