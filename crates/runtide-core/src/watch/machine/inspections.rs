//! Answers: listings, for a resync or a comparison, and inspections, for hints.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Command, Machine};
use crate::{
    error::{Error, ErrorKind, Result},
    event::{Continuity, Gap},
    instance::{Instance, InstanceId},
    options::Detail,
    watch::{
        inspect_queue::Worth,
        merge,
        relist::{Purpose, Relist, Reported, SETTLE},
        ring::{Entry, Resync},
        source::{Inspection, Listing},
    },
};

impl Machine {
    /// The next step of the listing, if it is due.
    pub(super) fn drive_relist(&mut self, now: Instant) {
        let Some(relist) = &mut self.relist else { return };
        relist.prove(now, &self.cache);
        if relist.must_ask(now) {
            let detail = self.wanted;
            relist.asked(detail);
            self.commands.push(Command::Relist(detail));
        } else if let Some(ids) = relist.must_inspect(now) {
            let detail = relist.inspection_detail();
            self.commands.push(Command::Reinspect(ids, detail));
        } else if relist.is_done(now)
            && let Some(relist) = self.relist.take()
        {
            self.conclude(now, relist);
        }
    }

    /// Time in which a stream that reports every edge may report the changes that an answer shows.
    fn settle(&self) -> Duration {
        if self.reports_edges { SETTLE } else { Duration::ZERO }
    }

    pub(super) fn relisted(&mut self, now: Instant, answer: Result<Listing>) {
        let held = self.cache.len();
        let settle = self.settle();
        let Some(relist) = &mut self.relist else { return };
        match answer {
            Ok(snapshot)
                if snapshot.is_complete() && snapshot.instances.is_empty() && held > 0 && !relist.doubted() =>
            {
                tracing::info!(backend = %self.backend, held, "every instance vanished: listing again");
                relist.doubt(now);
            }
            Ok(snapshot) => relist.answered(snapshot, now, settle),
            Err(error) if relist.purpose() == Purpose::Confirm => {
                tracing::warn!(backend = %self.backend, error = format_args!("{error:#}"), "the listing failed");
                relist.failed(now);
            }
            Err(error) => self.disconnect(now, Some(&error)),
        }
    }

    /// Takes in the inspection of the instances that the listing left open.
    pub(super) fn reinspected(&mut self, now: Instant, answer: Result<Vec<Inspection>>) {
        let settle = self.settle();
        if let Some(relist) = &mut self.relist {
            relist.inspected(answer.unwrap_or_default(), now, settle);
        }
    }

    /// Takes in an inspection that hints asked for.
    pub(super) fn inspected(&mut self, now: Instant, ids: &[InstanceId], answer: Result<Vec<Inspection>>) {
        self.inspect_queue.answered();
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(backend = %self.backend, error = format_args!("{error:#}"), "the inspection failed");
                Vec::new()
            }
        };
        let mut unexplained = None;
        for answer in &answers {
            let id = answer.id();
            let worth = self.inspect_queue.take(id, now);
            let ahead = |known: Option<&Arc<Instance>>| match (known, answer) {
                (Some(known), Inspection::Present(seen)) => merge::lifecycle_differs(known, seen),
                (Some(_), Inspection::Absent(_)) | (None, Inspection::Present(_)) => true,
                _ => false,
            };
            if worth == Worth::Stale {
                continue;
            }
            if matches!(answer, Inspection::Unknown { .. }) {
                self.inspect_queue.failed(id, now);
                continue;
            }
            if worth != Worth::Final && self.reports_edges {
                let known = self.cache.get(id);
                let explained = worth == Worth::Tentative;
                if explained && (ahead(known) || self.names_an_incarnation(known, answer)) {
                    self.inspect_queue.doubt(id, now);
                    continue;
                }
                if ahead(known) {
                    unexplained = Some(id.clone());
                    continue;
                }
            }
            self.inspect_queue.settle(id);
            if let Some(relist) = &mut self.relist {
                relist.touch(id, Reported::Hint, now); // its answer may be older than this one
            }
            match answer {
                Inspection::Present(instance) => self.take_answer(instance),
                Inspection::Absent(id) => self.gone(id, None, None),
                Inspection::Unknown { .. } => {}
            }
        }
        for id in ids {
            self.inspect_queue.failed_if_asked(id, now); // no answer at all
        }
        if let Some(id) = unexplained {
            // The stream should have reported it by now: it is late or dead. A new one reports it again, or begins with a resync.
            let message = "an inspection shows a change that the stream does not report";
            self.disconnect(
                now,
                Some(&Error::new(ErrorKind::Protocol, "watch.inspect", message).with_context("instance", id)),
            );
        }
    }

    /// True if the answer has the incarnation of a running instance of which only that was not known. If edges name theirs, it
    /// may be one that the stream has not reached yet, and would make the edges before it seem old.
    fn names_an_incarnation(&self, known: Option<&Arc<Instance>>, answer: &Inspection) -> bool {
        let (Some(known), Inspection::Present(seen)) = (known, answer) else { return false };
        self.edges_name_incarnations
            && known.state.is_alive()
            && known.incarnation.is_none()
            && seen.incarnation.is_some()
    }

    /// Takes in an answer. If the stream reports no edges, a run may have begun and ended unseen.
    fn take_answer(&mut self, instance: &Arc<Instance>) {
        let before = self.cache.get(&instance.id).cloned();
        let after = match &before {
            Some(before) if self.reports_edges => merge::merged(before, instance),
            Some(before) => merge::merged_over_gap(before, instance),
            None => Instance::clone(instance),
        };
        self.adopt(before.as_ref(), after, None, None);
    }

    /// The listing is done.
    fn conclude(&mut self, now: Instant, relist: Relist) {
        match relist.purpose() {
            Purpose::Resync(gap) => self.resync(now, gap, relist),
            Purpose::Confirm => self.confirm(now, relist),
        }
    }

    /// Replaces the rows by the listing, and shows them to every subscriber.
    fn resync(&mut self, now: Instant, gap: Gap, mut relist: Relist) {
        let missed = relist.take_missed();
        let outcome = relist.into_outcome(&self.backend);
        let mut rows = outcome.rows;
        rows.join_mut(&self.cache, |seen, before| {
            merge::take_over_gap(before, Arc::make_mut(seen));
            if merge::is_same(before, seen) {
                seen.clone_from(before);
            } else {
                Arc::make_mut(seen).generation = before.generation.wrapping_add(1);
            }
        });
        self.unconfirmed.clear();
        let is_complete = outcome.completeness.is_complete();
        if !is_complete {
            tracing::warn!(backend = %self.backend, "the listing was not complete");
            for (before, _) in self.cache.join(&rows.view()).filter(|(_, seen)| seen.is_none()) {
                self.unconfirmed.insert(before.id.clone());
                rows.insert(Arc::new(merge::unseen(before)));
            }
        }
        self.cache = rows;
        self.completeness = outcome.completeness;
        self.was_partial = !is_complete;
        self.full = outcome.detail == Detail::Full;
        self.has_baseline = true;
        self.reconnected(Continuity::Lost); // with the old token: a consumer that resumes from it has not seen the resync
        // A consumer resumes from before the reports that were missed during the listing.
        self.token = match &missed {
            Some(missed) => missed.reached.clone(),
            None => self.next_token.take(),
        };
        self.show(now, gap);
        self.go_live(now);
        for (id, reported) in outcome.open {
            // No report described it: an inspection is all there will be.
            let undescribed = matches!(reported, Reported::Edge(_)) && self.cache.get(&id).is_none();
            self.inspect_queue.hint(&id, now, undescribed);
        }
        if let Some(missed) = missed {
            self.lost(now, missed.gap);
        } else if !is_complete {
            self.relist = Some(Relist::later(now));
        }
    }

    /// Puts a resync into the ring.
    fn show(&mut self, now: Instant, gap: Gap) {
        tracing::debug!(backend = %self.backend, ?gap, instances = self.cache.len(), "resync");
        let resync = Resync {
            gap,
            epoch: self.resync_epoch(),
            native: self.token.clone(),
            observed_at: self.wall,
            view: Some(self.cache.view()),
            full: self.full,
            completeness: self.completeness.clone(),
        };
        self.last_resync = Some(now);
        self.seq += 1;
        self.entries.push(Entry::Resync(Box::new(resync)));
    }

    /// Compares the rows with the listing. Instances that were reported during it are left to the stream.
    ///
    /// If the listing changes what is known of the rows' completeness, a resync says so, though no row may differ.
    fn confirm(&mut self, now: Instant, relist: Relist) {
        let outcome = relist.into_outcome(&self.backend);
        let is_complete = outcome.completeness.is_complete();
        let left = |id: &InstanceId| outcome.open.contains_key(id) || self.inspect_queue.is_wanted(id);
        let (mut missing, mut changed, mut contradicted, mut met) = (Vec::new(), Vec::new(), false, 0);
        for (seen, known) in outcome.rows.join(&self.cache) {
            met += usize::from(known.is_some());
            if left(&seen.id) {
                continue;
            }
            if known.is_none_or(|known| !merge::is_same(known, seen)) {
                // Compared with what the row would become: an end that the runtime wrote over stays as it is, and differs for good.
                contradicted |=
                    known.is_none_or(|known| known.contradicts(seen) && known.contradicts(&merge::merged(known, seen)));
                changed.push(Arc::clone(seen));
            }
        }
        if is_complete && met < self.cache.len() {
            let unseen = self.cache.join(&outcome.rows).filter(|(known, seen)| seen.is_none() && !left(&known.id));
            missing.extend(unseen.map(|(known, _)| known.id.clone()));
        }
        self.unconfirmed.retain(|id| outcome.rows.get(id).is_none() || left(id));
        let is_news = match (self.completeness.is_complete(), is_complete) {
            (false, true) => true,
            // Rows that are complete stay so where the stream reports what comes. Elsewhere only a listing shows it; one that is
            // partial alone may have met an item that was being written.
            (true, false) => !self.reports_edges && self.was_partial,
            _ => false,
        };
        self.was_partial = !is_complete;
        if is_news || !self.completeness.is_complete() {
            self.completeness = outcome.completeness;
        }
        if self.reports_edges && (contradicted || !missing.is_empty()) {
            tracing::info!(backend = %self.backend, "the reports and the listing differ");
            for id in missing {
                self.cache.remove(&id);
            }
            for seen in changed {
                let mut after = match self.cache.get(&seen.id) {
                    Some(before) => merge::merged(before, &seen),
                    None => Instance::clone(&seen),
                };
                after.generation = after.generation.wrapping_add(1);
                self.cache.insert(Arc::new(after));
            }
            self.full = outcome.detail == Detail::Full;
            self.show(now, if is_news { Gap::PartialListing } else { Gap::Disconnected });
        } else {
            for id in missing {
                self.gone(&id, None, None);
            }
            for instance in changed {
                self.take_answer(&instance);
            }
            self.full |= outcome.detail == Detail::Full;
            if is_news {
                self.show(now, Gap::PartialListing);
            }
        }
        for id in outcome.open.keys() {
            self.inspect_queue.hint(id, now, false);
        }
        if !is_complete {
            self.relist = Some(Relist::later(now));
        }
    }
}
