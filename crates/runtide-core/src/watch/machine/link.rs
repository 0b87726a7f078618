//! The link's phases: how it comes up, what is missed, how it falls, and when it is announced.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, Machine, Mode, Phase};
use crate::{
    error::{Error, Failure, Retry},
    event::{Continuity, Gap, RuntimeEventKind},
    watch::{
        relist::{Purpose, Relist, Told},
        source::Opened,
    },
};

/// From this failure in a row on, a link must stay up for a moment before it is announced: a link that flaps is one
/// outage, not many.
const FLAPPING: u32 = 4;

/// How long that moment is at most.
const PROBATION: Duration = Duration::from_secs(5);

/// The shortest time between two brackets of one link.
const BRACKET_SPACING: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn opened(&mut self, now: Instant, opened: Opened) {
        if !matches!(self.phase, Phase::Opening) {
            return;
        }
        let flapping = self.backoff.failures() >= FLAPPING;
        let mode = match opened {
            Opened::Resumed if flapping => Mode::Held { until: now + PROBATION, signals: Vec::new() },
            Opened::Resumed => Mode::Replaying,
            Opened::Fresh(_) => Mode::Listing,
        };
        tracing::debug!(backend = %self.backend, ?opened, flapping, "connected");
        let replaying = matches!(mode, Mode::Replaying);
        self.phase = Phase::Open { mode, heard: now, live_since: None };
        match opened {
            Opened::Resumed if replaying => self.reconnected(Continuity::Resumed),
            Opened::Resumed => {}
            Opened::Fresh(gap) => {
                self.ahead = None;
                let gap = match gap {
                    Gap::Initial if self.last_bracket.is_some() => Gap::Disconnected,
                    Gap::Initial if self.resuming => Gap::ForeignCursor,
                    gap => gap,
                };
                let mut relist = Relist::new(Purpose::Bracket(gap), now);
                if flapping {
                    relist.wait_until(now + PROBATION);
                }
                self.relist = Some(relist);
            }
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if let Phase::Open { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    /// The link is gone; `None`: closed cleanly.
    pub(super) fn fall(&mut self, now: Instant, error: Option<&Error>) {
        let lived = match &self.phase {
            Phase::Open { live_since: Some(since), .. } => now.saturating_duration_since(*since),
            _ => Duration::ZERO,
        };
        let healthy = lived >= self.healthy_after;
        if healthy {
            self.backoff.reset();
        }
        let mut pause = self.backoff.next();
        if healthy && error.is_none() {
            pause = Duration::ZERO; // routine: proxies close old streams
        }
        if let Some(Retry::After(asked)) = error.map(Error::retry) {
            pause = pause.max(asked);
        }
        let cause = error.map(Failure::from);
        if let Some(cause) = &cause {
            tracing::info!(backend = %self.backend, %cause, retry_in = ?pause, "disconnected");
        } else {
            tracing::info!(backend = %self.backend, retry_in = ?pause, "the runtime closed the stream");
        }
        self.phase = Phase::Down { retry_at: now + pause };
        self.relist = None;
        self.ahead = None;
        self.inspect_queue.clear();
        self.full = false;
        self.commands.push(Command::Abandon);
        if self.outage.is_none() {
            self.outage = Some(cause.clone());
            self.emit(RuntimeEventKind::BackendDisconnected { cause }, None, None, None);
        }
    }

    /// Ends an outage that was announced; `resuming` is said once, in place of it.
    pub(super) fn reconnected(&mut self, continuity: Continuity) {
        let resumed = self.resuming && continuity == Continuity::Resumed;
        if self.outage.take().is_some() || resumed {
            self.emit(RuntimeEventKind::BackendReconnected { continuity }, None, None, None);
        }
        self.resuming = false;
    }

    pub(super) fn go_live(&mut self, now: Instant) {
        if let Phase::Open { mode, live_since, .. } = &mut self.phase {
            *mode = Mode::Live;
            live_since.get_or_insert(now);
        }
    }

    /// Something was missed while the link stayed up.
    pub(super) fn lost(&mut self, now: Instant, gap: Gap) {
        tracing::info!(backend = %self.backend, ?gap, "something was missed");
        if let Phase::Open { mode, .. } = &mut self.phase {
            *mode = Mode::Listing;
        }
        if self.ahead.is_none() {
            self.ahead.clone_from(&self.token);
        }
        self.commands.push(Command::Abandon);
        let mut relist = Relist::new(Purpose::Bracket(gap), now);
        for id in self.inspect_queue.drain() {
            relist.touch(&id, Told::Something, now);
        }
        if let Some(last) = self.last_bracket {
            relist.wait_until(last + BRACKET_SPACING);
        }
        self.relist = Some(relist);
    }

    /// The replay is over: from here on it is live, and what it did not explain is found by a comparison.
    pub(super) fn caught_up(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open { mode: Mode::Replaying, .. }) {
            return;
        }
        if self.grounded {
            self.go_live(now);
            self.relist = Some(Relist::new(Purpose::Confirm, now));
        } else {
            self.lost(now, Gap::Disconnected); // nobody said what was known: show everything
        }
    }
}
