//! Which instances must be looked at, and when: hints coalesced per id, many ids in one request, one request at a time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::instance::InstanceId;

/// How long a look that ran ahead of the stream waits for the edge that explains it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// From one request to the next, at least: under churn hints come by the thousand, and most of what they speak of is gone
/// or told of again a moment later. The first hint after a pause is looked at once.
const PACE: Duration = Duration::from_millis(10);

/// Ids in one request; a source may cut it further.
const BATCH: usize = 512;

/// The pause after a look that failed; it doubles up to `RETRY_MAX`.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One instance that must be looked at.
#[derive(Debug)]
struct Look {
    due: Instant,
    /// The request is under way.
    asked: bool,
    /// Something was told meanwhile: the answer may be older than that.
    raced: bool,
    /// Whether the answer counts at once, also where it runs ahead of the stream: nobody described the instance, and a look
    /// is all there will be.
    forced: bool,
    /// Since when a look disagrees with what was told.
    doubt: Option<Instant>,
    failures: u32,
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Nobody waits for it, or it may be older than what was told since.
    Nothing,
    /// It counts, unless it runs ahead of the stream.
    Look,
    /// The same, and the stream had its time to explain an earlier one.
    Unexplained,
    /// It counts.
    Truth,
}

/// Instances that must be looked at.
#[derive(Debug, Default)]
pub(super) struct InspectQueue {
    wanted: BTreeMap<InstanceId, Look>,
    asking: bool,
    /// No look is due before this; `None`: none at all.
    soonest: Option<Instant>,
    /// Not before this, whatever is due.
    paced: Option<Instant>,
}

impl InspectQueue {
    /// Something may have changed.
    pub(super) fn hint(&mut self, id: &InstanceId, now: Instant, forced: bool) {
        self.sooner(now);
        if let Some(look) = self.wanted.get_mut(id) {
            look.raced |= look.asked;
            look.forced |= forced;
            if look.doubt.is_none() {
                look.due = look.due.min(now);
            }
            return;
        }
        let look = Look { due: now, asked: false, raced: false, forced, doubt: None, failures: 0 };
        self.wanted.insert(id.clone(), look);
    }

    /// Something was told of it: an answer that is under way may be older, and a doubt is explained.
    pub(super) fn told(&mut self, id: &InstanceId) {
        if let Some(look) = self.wanted.get_mut(id) {
            look.raced |= look.asked;
            look.forced = false;
            look.doubt = None;
        }
    }

    pub(super) fn is_wanted(&self, id: &InstanceId) -> bool {
        self.wanted.contains_key(id)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the next request is due; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.asking {
            None
        } else {
            self.soonest.map(|soonest| self.paced.map_or(soonest, |paced| paced.max(soonest)))
        }
    }

    fn sooner(&mut self, at: Instant) {
        self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
    }

    /// What to ask now, in one request.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<InstanceId> {
        if self.asking {
            return Vec::new();
        }
        let mut ids = Vec::new();
        for (id, look) in self.wanted.iter_mut().filter(|(_, look)| look.due <= now).take(BATCH) {
            (look.asked, look.raced) = (true, false);
            ids.push(id.clone());
        }
        self.asking = !ids.is_empty();
        if self.asking {
            self.paced = Some(now + PACE);
        }
        self.soonest = self.wanted.values().filter(|look| !look.asked).map(|look| look.due).min();
        ids
    }

    /// The request is over.
    pub(super) fn answered(&mut self) {
        self.asking = false;
    }

    /// What the answer for this id is worth. If nothing or a doubt follows from it, the id stays wanted.
    pub(super) fn take(&mut self, id: &InstanceId, now: Instant) -> Worth {
        let Some(look) = self.wanted.get_mut(id).filter(|look| look.asked) else { return Worth::Nothing };
        look.asked = false;
        let (forced, explained) = (look.forced, look.doubt.is_none_or(|since| now < since + GRACE));
        if look.raced {
            look.due = now;
            self.sooner(now);
            return Worth::Nothing;
        }
        match (forced, explained) {
            (true, _) => Worth::Truth,
            (false, true) => Worth::Look,
            (false, false) => Worth::Unexplained,
        }
    }

    /// The answer was taken in.
    pub(super) fn settle(&mut self, id: &InstanceId) {
        self.wanted.remove(id);
    }

    /// The answer disagrees with what was told: give the stream a moment, then look again.
    pub(super) fn doubt(&mut self, id: &InstanceId, now: Instant) {
        if let Some(look) = self.wanted.get_mut(id) {
            let due = *look.doubt.get_or_insert(now) + GRACE;
            look.due = due;
            self.sooner(due);
        }
    }

    /// There was no answer: try again later.
    pub(super) fn failed(&mut self, id: &InstanceId, now: Instant) {
        if let Some(look) = self.wanted.get_mut(id) {
            look.asked = false;
            let due = now + RETRY.saturating_mul(1 << look.failures.min(10)).min(RETRY_MAX);
            look.due = due;
            look.failures += 1;
            self.sooner(due);
        }
    }

    /// The request is over, and said nothing of this id.
    pub(super) fn failed_if_asked(&mut self, id: &InstanceId, now: Instant) {
        if self.wanted.get(id).is_some_and(|look| look.asked) {
            self.failed(id, now);
        }
    }

    /// What is wanted, for a look at everything that answers it all.
    pub(super) fn drain(&mut self) -> Vec<InstanceId> {
        std::mem::take(self).wanted.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hints_are_coalesced_and_one_request_is_under_way() {
        let (mut looks, now) = (InspectQueue::default(), Instant::now());
        for _ in 0..1_000 {
            looks.hint(&"a".into(), now, false);
            looks.hint(&"b".into(), now, false);
        }
        assert_eq!(looks.ask(now).len(), 2);
        looks.hint(&"c".into(), now, false);
        assert!(looks.ask(now).is_empty(), "one at a time");
        assert_eq!(looks.take(&"a".into(), now), Worth::Look);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_a_pace() {
        let (mut looks, now) = (InspectQueue::default(), Instant::now());
        looks.hint(&"a".into(), now, false);
        assert_eq!(looks.due(), Some(now), "the first one at once");
        looks.ask(now);
        looks.hint(&"b".into(), now, false);
        looks.answered();
        looks.settle(&"a".into());
        assert_eq!(looks.due(), Some(now + PACE));
        let later = now + PACE * 2;
        assert_eq!(looks.ask(later), [InstanceId::from("b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_overtaken_is_worth_nothing_and_asked_again() {
        let (mut looks, now) = (InspectQueue::default(), Instant::now());
        looks.hint(&"a".into(), now, false);
        looks.ask(now);
        looks.told(&"a".into());
        looks.answered();
        assert_eq!(looks.take(&"a".into(), now), Worth::Nothing);
        assert_eq!(looks.ask(now), [InstanceId::from("a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_has_its_time_to_be_explained() {
        let (mut looks, now) = (InspectQueue::default(), Instant::now());
        let id = InstanceId::from("a");
        looks.hint(&id, now, false);
        looks.ask(now);
        looks.answered();
        assert_eq!(looks.take(&id, now), Worth::Look);
        looks.doubt(&id, now);
        assert_eq!(looks.due(), Some(now + GRACE));
        assert!(looks.ask(now).is_empty());
        looks.ask(now + GRACE);
        looks.answered();
        assert_eq!(looks.take(&id, now + GRACE), Worth::Unexplained);
    }
}
