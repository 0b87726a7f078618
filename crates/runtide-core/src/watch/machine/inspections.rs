//! What looking says: at everything, for a bracket or a comparison, and at some, for hints.

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
        relist::{Purpose, Relist, SETTLE, Told},
        ring::{Bracket, Entry},
        source::{Inspection, Listing},
    },
};

impl Machine {
    /// The next step of a look at everything, if it is due.
    pub(super) fn drive_relist(&mut self, now: Instant) {
        let Some(relist) = &mut self.relist else { return };
        relist.prove(now, &self.cache);
        if relist.must_ask(now) {
            let detail = self.wanted;
            relist.asked(detail);
            self.commands.push(Command::Relist(detail));
        } else if let Some(ids) = relist.must_inspect(now) {
            let detail = relist.closeness();
            self.commands.push(Command::Reinspect(ids, detail));
        } else if relist.is_done(now)
            && let Some(relist) = self.relist.take()
        {
            self.conclude(now, relist);
        }
    }

    /// Where the stream tells all, it is given a moment to tell what a look saw.
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
                tracing::info!(backend = %self.backend, held, "everything vanished: looking again");
                relist.doubt(now);
            }
            Ok(snapshot) => relist.answered(snapshot, now, settle),
            Err(error) if relist.purpose() == Purpose::Confirm => {
                tracing::warn!(backend = %self.backend, %error, "the look failed");
                relist.failed(now);
            }
            Err(error) => self.fall(now, Some(&error)),
        }
    }

    /// A second look at what a look at everything left open.
    pub(super) fn reinspected(&mut self, now: Instant, answer: Result<Vec<Inspection>>) {
        let settle = self.settle();
        if let Some(relist) = &mut self.relist {
            relist.inspected(answer.unwrap_or_default(), now, settle);
        }
    }

    /// InspectQueue at some, as hints asked for them.
    pub(super) fn inspected(&mut self, now: Instant, ids: &[InstanceId], answer: Result<Vec<Inspection>>) {
        self.inspect_queue.answered();
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(backend = %self.backend, %error, "the look failed");
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
            if worth == Worth::Nothing {
                continue;
            }
            if matches!(answer, Inspection::Unknown { .. }) {
                self.inspect_queue.failed(id, now);
                continue;
            }
            if worth != Worth::Truth && self.reports_edges {
                let known = self.cache.get(id);
                let explained = worth == Worth::Look;
                if explained && (ahead(known) || self.names_a_life(known, answer)) {
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
                relist.touch(id, Told::Something, now); // its answer may be older than this one
            }
            match answer {
                Inspection::Present(instance) => self.take_look(instance),
                Inspection::Absent(id) => self.gone(id, None, None),
                Inspection::Unknown { .. } => {}
            }
        }
        for id in ids {
            self.inspect_queue.failed_if_asked(id, now); // no answer at all
        }
        if let Some(id) = unexplained {
            // The stream should have told it by now: it is late, deaf or dead. A new one tells it again, or shows everything.
            let message = "a look shows what the stream does not tell";
            self.fall(now, Some(&Error::new(ErrorKind::Protocol, "watch.look", message).with_context("instance", id)));
        }
    }

    /// Whether a look says in which life a running instance is of which only that was unknown. Where the edges name lives, it
    /// may be one that the stream did not come to yet, and would make the edges before it look old.
    fn names_a_life(&self, known: Option<&Arc<Instance>>, answer: &Inspection) -> bool {
        let (Some(known), Inspection::Present(seen)) = (known, answer) else { return false };
        self.edges_name_lives && known.state.is_alive() && known.incarnation.is_none() && seen.incarnation.is_some()
    }

    /// Takes in what a look saw. Where the stream does not tell of lives, one may have begun and ended unseen.
    fn take_look(&mut self, instance: &Arc<Instance>) {
        let before = self.cache.get(&instance.id).cloned();
        let after = match &before {
            Some(before) if self.reports_edges => merge::merged(before, instance),
            Some(before) => merge::merged_over_gap(before, instance),
            None => Instance::clone(instance),
        };
        self.adopt(before.as_ref(), after, None, None);
    }

    /// A look at everything is complete, as far as it goes.
    fn conclude(&mut self, now: Instant, relist: Relist) {
        match relist.purpose() {
            Purpose::Bracket(gap) => self.bracket(now, gap, relist),
            Purpose::Confirm => self.confirm(now, relist),
        }
    }

    /// The rows are replaced by what was seen, and everybody is shown them.
    fn bracket(&mut self, now: Instant, gap: Gap, relist: Relist) {
        let outcome = relist.into_outcome(&self.backend);
        let mut rows = outcome.rows;
        rows.change_beside(&self.cache, |seen, before| {
            merge::take_over_gap(before, Arc::make_mut(seen));
            if merge::is_same(before, seen) {
                seen.clone_from(before);
            } else {
                Arc::make_mut(seen).generation = before.generation.wrapping_add(1);
            }
        });
        self.unsure.clear();
        if !outcome.complete {
            tracing::warn!(backend = %self.backend, "the look at everything was not complete");
            for (before, _) in self.cache.beside(&rows.view()).filter(|(_, seen)| seen.is_none()) {
                self.unsure.insert(before.id.clone());
                rows.insert(Arc::new(merge::unseen(before)));
            }
        }
        self.cache = rows;
        self.full = outcome.detail == Detail::Full;
        self.grounded = true;
        self.reconnected(Continuity::Lost); // at the old place: whoever resumes from there has not seen the bracket
        self.token = self.ahead.take();
        self.show(now, gap);
        self.go_live(now);
        for (id, told) in outcome.open {
            // Of what nobody described, a look is all there will be.
            let undescribed = matches!(told, Told::Edge(_)) && self.cache.get(&id).is_none();
            self.inspect_queue.hint(&id, now, undescribed);
        }
        if !outcome.complete {
            self.relist = Some(Relist::later(now));
        }
    }

    /// A bracket goes into the ring.
    fn show(&mut self, now: Instant, gap: Gap) {
        tracing::debug!(backend = %self.backend, ?gap, instances = self.cache.len(), "resync");
        let bracket = Bracket {
            gap,
            epoch: self.bracket_epoch(),
            native: self.token.clone(),
            observed_at: self.wall,
            view: Some(self.cache.view()),
            full: self.full,
        };
        self.last_bracket = Some(now);
        self.seq += 1;
        self.entries.push(Entry::Bracket(bracket));
    }

    /// The rows are compared with what was seen. What was told while looking is left to the stream.
    fn confirm(&mut self, now: Instant, relist: Relist) {
        let outcome = relist.into_outcome(&self.backend);
        let left = |id: &InstanceId| outcome.open.contains_key(id) || self.inspect_queue.is_wanted(id);
        let (mut missing, mut changed, mut contradicted, mut met) = (Vec::new(), Vec::new(), false, 0);
        for (seen, known) in outcome.rows.beside(&self.cache) {
            met += usize::from(known.is_some());
            if left(&seen.id) {
                continue;
            }
            if known.is_none_or(|known| !merge::is_same(known, seen)) {
                contradicted |= known.is_none_or(|known| known.contradicts(seen));
                changed.push(Arc::clone(seen));
            }
        }
        if outcome.complete && met < self.cache.len() {
            let unseen = self.cache.beside(&outcome.rows).filter(|(known, seen)| seen.is_none() && !left(&known.id));
            missing.extend(unseen.map(|(known, _)| known.id.clone()));
        }
        self.unsure.retain(|id| outcome.rows.get(id).is_none() || left(id));
        if self.reports_edges && (contradicted || !missing.is_empty()) {
            tracing::info!(backend = %self.backend, "what was told and what is there differ");
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
            self.show(now, Gap::Disconnected);
        } else {
            for id in missing {
                self.gone(&id, None, None);
            }
            for instance in changed {
                self.take_look(&instance);
            }
            self.full |= outcome.detail == Detail::Full;
        }
        for id in outcome.open.keys() {
            self.inspect_queue.hint(id, now, false);
        }
        if !outcome.complete {
            self.relist = Some(Relist::later(now));
        }
    }
}
