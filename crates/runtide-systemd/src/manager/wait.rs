//! Wait for the end of a run, and return its exit only if systemd reported it for that very run.
//!
//! The unit's changes are subscribed to first, then the unit is inspected. After that each change carries the whole
//! state, of the service and then of the unit, so that an end is seen even if the unit is gone, or in its next run,
//! right after.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use runtide_core::{Error, ErrorKind, ExitStatus, Incarnation, Result, Retry};
use tokio::time::Instant;
use zbus::{Connection, MessageStream};

use super::{
    changes::Changes,
    job::{QUEUE, listen, owner_changes},
    unit::{Call, Seen},
};
use crate::{client::MANAGER, subscription::signals};

/// Longest absence of a manager before the wait fails.
const TIMEOUT: Duration = Duration::from_secs(120);
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

pub(super) async fn wait(call: Call<'_>) -> Result<Option<ExitStatus>> {
    let mut incarnation = None;
    let mut away_since = None;
    let mut pause = RETRY_AFTER.0;
    loop {
        let lost = match end_of(call, &mut incarnation).await {
            Ok(End::Over(exit)) => return Ok(exit),
            // The connection broke without an error.
            Ok(End::Lost) => {
                (away_since, pause) = (None, RETRY_AFTER.0);
                None
            }
            Err(error)
                if incarnation.is_some() && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) =>
            {
                Some(error)
            }
            Err(error) => return Err(error),
        };
        let retry = lost.as_ref().map(Error::retry);
        let since = *away_since.get_or_insert_with(Instant::now);
        if let Some(error) = lost.filter(|_| since.elapsed() >= TIMEOUT) {
            return Err(error);
        }
        tracing::debug!(backend = %call.client.id(), instance = call.unit, "the wait broke off; it is begun again");
        if let Some(Retry::Poll(interval)) = retry {
            tokio::time::sleep(interval).await; // nothing listens: no manager is spared by a longer pause
            continue;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AFTER.1);
    }
}

enum End {
    Over(Option<ExitStatus>),
    Lost,
}

async fn end_of(call: Call<'_>, incarnation: &mut Option<Incarnation>) -> Result<End> {
    let (_link, systemd, (changes, mut removed, mut owner)) = listen(call, async |connection: &Connection| {
        let rule = signals(MANAGER, "UnitRemoved").arg(0, call.unit).build()?;
        let removed = MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await?;
        Ok((Changes::of(call.unit, connection).await?, removed, owner_changes(connection).await?))
    })
    .await?;
    let mut changes = Changes::new(changes, systemd);
    // From here on no change is missed.
    let first = match incarnation {
        None => call.look().await?,
        Some(_) => call.look_if_loaded().await?.ok_or_else(|| gone(call))?,
    };
    if incarnation.is_none() {
        *incarnation = first.run();
    }
    let Some(of) = incarnation.clone() else { return Err(call.conflict("it never ran", &first)) };
    let mut reported = Reported::default();
    if let Some(Over(exit)) = reported.over(&first, &of) {
        return Ok(End::Over(exit));
    }
    loop {
        let inspect = tokio::select! {
            biased;
            change = changes.next() => {
                let Some(seen) = change else { return Ok(End::Lost) };
                if let Some(Over(exit)) = reported.over(&seen, &of) {
                    return Ok(End::Over(exit));
                }
                false
            }
            // A reload of all units also sends `UnitRemoved`.
            _ = removed.next() => true,
            _ = owner.next() => return Ok(End::Lost),
            // A connection whose peer is dead receives nothing: inspect on another one.
            () = tokio::time::sleep(call.client.config().max_silence) => true,
        };
        if inspect {
            let seen = call.look_if_loaded().await?;
            // Queued changes are older than the inspection, and may have more details.
            while let Some(Some(queued)) = changes.next().now_or_never() {
                if let Some(Over(exit)) = reported.over(&queued, &of) {
                    return Ok(End::Over(exit));
                }
            }
            let Some(seen) = seen else { return Err(gone(call)) };
            if let Some(Over(exit)) = reported.over(&seen, &of) {
                return Ok(End::Over(exit));
            }
        }
    }
}

fn gone(call: Call<'_>) -> Error {
    call.error(ErrorKind::NotFound, "the unit is gone, and its end was not seen")
}

/// The end of a run, with its exit if that was reported.
#[derive(Debug, PartialEq)]
struct Over(Option<ExitStatus>);

/// State that the changes have reported so far.
#[derive(Default)]
struct Reported {
    /// Exit of the main process, if the run then went on (its remaining processes are being stopped).
    exit: Option<ExitStatus>,
}

impl Reported {
    /// Returns the end of the run if this state has one.
    fn over(&mut self, seen: &Seen, incarnation: &Incarnation) -> Option<Over> {
        if seen.run().as_ref() != Some(incarnation) {
            return Some(Over(self.exit.take()));
        }
        if let Some(exit) = seen.exit() {
            self.exit = Some(exit);
        }
        (!seen.runs()).then(|| Over(self.exit.take()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{ServiceProperties, UnitProperties};

    fn seen(id: u8, active: &str, code: i32, status: i32, times: [u64; 2]) -> Seen {
        let [began, started] = times;
        Seen {
            about: UnitProperties {
                active_state: Some(active.into()),
                sub_state: Some(if active == "activating" { "auto-restart" } else { "x" }.into()),
                invocation_id: Some(vec![id; 16]),
                inactive_exit_timestamp_monotonic: Some(began),
                condition_timestamp_monotonic: Some(started.saturating_sub(2)),
                ..UnitProperties::default()
            },
            service: ServiceProperties {
                exec_main_code: Some(code),
                exec_main_status: Some(status),
                exec_main_start_timestamp_monotonic: Some(started),
                ..ServiceProperties::default()
            },
            ..Seen::default()
        }
    }

    #[test]
    fn an_end_is_that_of_the_awaited_run() {
        let incarnation = seen(1, "active", 0, 0, [9, 10]).run().unwrap();
        let over = |seens: &[Seen]| {
            let mut reported = Reported::default();
            seens.iter().find_map(|seen| reported.over(seen, &incarnation))
        };
        let alive = seen(1, "active", 0, 0, [9, 10]);
        assert_eq!(over(std::slice::from_ref(&alive)), None);
        let three = || Some(Over(Some(ExitStatus::code(3))));
        assert_eq!(over(&[alive.clone(), seen(1, "failed", 1, 3, [9, 10])]), three());
        // It waits for its restart.
        assert_eq!(over(&[alive.clone(), seen(1, "activating", 1, 3, [21, 10])]), three());
        // Its end was reported while its other processes were being stopped; then the next run began.
        let next = seen(2, "active", 0, 0, [30, 31]);
        assert_eq!(over(&[alive.clone(), seen(1, "deactivating", 1, 3, [9, 10]), next.clone()]), three());
        // Not reported: the next run's exit is not this one's.
        assert_eq!(over(&[alive.clone(), next]), Some(Over(None)));
        assert_eq!(over(&[alive, seen(2, "failed", 1, 7, [30, 31])]), Some(Over(None)));
        // A start that failed before its program ran: systemd reset the exit of the run before.
        assert_eq!(over(&[seen(1, "failed", 0, 0, [9, 0])]), Some(Over(None)));
    }
}
