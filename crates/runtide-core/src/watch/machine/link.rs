//! Phases of the link: connected, replaying, live, disconnected, and their announcements.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, Machine, Mode, Phase};
use crate::{
    backend::saturating_add,
    error::{Error, ErrorKind, Failure, Retry},
    event::{Continuity, Gap, RuntimeEventKind},
    watch::{
        relist::{Purpose, Relist, Reported},
        source::Opened,
    },
};

/// After so many links in a row that fell before they were healthy, a link must stay up for a moment before it is announced: a
/// link that flaps is one outage, not many.
const FLAPPING: u32 = 4;

/// Longest such moment.
const PROBATION: Duration = Duration::from_secs(5);

/// Least time between two dials that no daemon answered though the connection was made: one that boots answers when it is
/// ready, so that a request should wait there.
const UNANSWERED: Duration = Duration::from_secs(1);

/// Shortest time between two resyncs of one link.
const RESYNC_SPACING: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn opened(&mut self, now: Instant, opened: Opened) {
        if !matches!(self.phase, Phase::Opening) {
            return;
        }
        let flapping = self.falls >= FLAPPING;
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

    /// The stream could not be opened.
    ///
    /// An attempt that no daemon answered is not counted as a failure: nothing listens there, or the daemon is booting. It
    /// cannot lead to a storm of answered dials, since the pause after each of those has passed before it.
    pub(super) fn not_opened(&mut self, now: Instant, error: &Error) {
        let next = match error.retry() {
            Retry::Poll(interval) => now + self.backoff.poll(interval),
            _ if error.kind() == ErrorKind::Timeout => {
                (self.dialled + UNANSWERED).max(now + self.backoff.poll(Duration::ZERO))
            }
            _ => return self.disconnect(now, Some(error)),
        };
        self.go_down(now, Some(error), next);
    }

    /// The link is gone, or the daemon refused it; `None`: closed cleanly.
    pub(super) fn disconnect(&mut self, now: Instant, error: Option<&Error>) {
        self.fall(now, now, error);
    }

    /// As [`disconnect`](Self::disconnect), for a link that was up until an earlier moment.
    pub(super) fn fall(&mut self, now: Instant, up_until: Instant, error: Option<&Error>) {
        if let Phase::Open { mode, live_since, .. } = &self.phase
            && (live_since.is_some() || matches!(mode, Mode::Replaying))
        {
            // The link was announced: what failed before is over with it.
            let up_for = live_since.map_or(Duration::ZERO, |since| up_until.saturating_duration_since(since));
            let healthy = up_for >= self.healthy_after;
            self.falls = if healthy { 0 } else { self.falls.saturating_add(1) };
            self.backoff.set(self.falls.saturating_sub(1));
        }
        // Counted from the dial: a link that was up for longer is dialled at once.
        let next = saturating_add(self.dialled, self.backoff.next());
        self.go_down(now, error, next);
    }

    fn go_down(&mut self, now: Instant, error: Option<&Error>, next: Instant) {
        let mut next = next.max(now);
        if let Some(Retry::After(asked)) = error.map(Error::retry) {
            next = next.max(saturating_add(now, asked));
        }
        let (retry_in, cause) = (next.saturating_duration_since(now), error.map(Failure::from));
        match &cause {
            // Attempts are many while nothing listens.
            Some(cause) if self.outage.is_some() => {
                tracing::debug!(backend = %self.backend, %cause, ?retry_in, "not connected");
            }
            Some(cause) => tracing::info!(backend = %self.backend, %cause, ?retry_in, "disconnected"),
            None => tracing::info!(backend = %self.backend, ?retry_in, "the runtime closed the stream"),
        }
        self.phase = Phase::Down { retry_at: next };
        self.relist = None;
        self.next_token = None;
        self.inspect_queue.clear();
        self.full = false;
        self.commands.push(Command::Abandon);
        if self.outage.is_none() {
            self.outage = Some(cause);
            let cause = self.outage.clone().flatten();
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
        if let Phase::Open { mode, live_since, .. } = &mut self.phase {
            if matches!(mode, Mode::Replaying) {
                live_since.get_or_insert(now); // the link was announced: a fall from here on counts
            }
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
            self.emit(RuntimeEventKind::CaughtUp, None, None, None);
            self.relist = Some(Relist::new(Purpose::Confirm, now));
        } else {
            self.lost(now, Gap::Disconnected); // without the consumer's rows, only a resync shows all
        }
    }
}
