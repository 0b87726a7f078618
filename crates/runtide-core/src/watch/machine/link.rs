//! Phases of the link: connected, replaying, live, disconnected, and their announcements.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, Machine, Mode, Phase};
use crate::{
    backend::saturating_add,
    error::{Error, Failure, Retry},
    event::{Continuity, Gap, RuntimeEventKind},
    watch::{
        relist::{Purpose, Relist, Reported},
        source::Opened,
    },
};

/// From this failure in a row on, a link must stay up for a moment before it is announced: a link that flaps is one
/// outage, not many.
const FLAPPING: u32 = 4;

/// Longest such moment.
const PROBATION: Duration = Duration::from_secs(5);

/// Shortest time between two resyncs of one link.
const RESYNC_SPACING: Duration = Duration::from_secs(1);

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
        self.phase = Phase::Open { mode, last_signal: now, live_since: None };
        match opened {
            Opened::Resumed if replaying => self.reconnected(Continuity::Resumed),
            Opened::Resumed => {}
            Opened::Fresh(gap) => {
                self.next_token = None;
                let gap = match gap {
                    Gap::Initial if self.last_resync.is_some() => Gap::Disconnected,
                    Gap::Initial if self.resuming => Gap::ForeignCursor,
                    gap => gap,
                };
                let mut relist = Relist::new(Purpose::Resync(gap), now);
                if flapping {
                    relist.wait_until(now + PROBATION);
                }
                self.relist = Some(relist);
            }
        }
    }

    pub(super) fn signal_received(&mut self, now: Instant) {
        if let Phase::Open { last_signal, .. } = &mut self.phase {
            *last_signal = now;
        }
    }

    /// The link is gone; `None`: closed cleanly.
    pub(super) fn disconnect(&mut self, now: Instant, error: Option<&Error>) {
        let up_for = match &self.phase {
            Phase::Open { live_since: Some(since), .. } => now.saturating_duration_since(*since),
            _ => Duration::ZERO,
        };
        let healthy = up_for >= self.healthy_after;
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
        self.phase = Phase::Down { retry_at: saturating_add(now, pause) };
        self.relist = None;
        self.next_token = None;
        self.inspect_queue.clear();
        self.full = false;
        self.commands.push(Command::Abandon);
        if self.outage.is_none() {
            self.outage = Some(cause.clone());
            self.emit(RuntimeEventKind::BackendDisconnected { cause }, None, None, None);
        }
    }

    /// Announces the end of an outage; also once after a run that began with a cursor has resumed.
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
        if self.next_token.is_none() {
            self.next_token.clone_from(&self.token);
        }
        self.commands.push(Command::Abandon);
        let mut relist = Relist::new(Purpose::Resync(gap), now);
        for id in self.inspect_queue.drain() {
            relist.touch(&id, Reported::Hint, now);
        }
        if let Some(last) = self.last_resync {
            relist.wait_until(last + RESYNC_SPACING);
        }
        self.relist = Some(relist);
    }

    /// The replay is over: from here on the link is live, and a comparison finds the changes that the replay did not report.
    pub(super) fn caught_up(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open { mode: Mode::Replaying, .. }) {
            return;
        }
        if self.has_baseline {
            self.go_live(now);
            self.relist = Some(Relist::new(Purpose::Confirm, now));
        } else {
            self.lost(now, Gap::Disconnected); // without the consumer's rows, only a resync shows all
        }
    }
}
