//! Wait for the end of a run, and say how it ended only where systemd said so of that very run.
//!
//! The changes of the unit are asked for first, then it is looked at. From there on every change tells all that matters, of
//! the service and then of the unit, so that an end is seen also if the unit is gone, or in its next run, right after.

use std::time::Duration;

use futures_util::StreamExt;
use runtide_core::{Error, ErrorKind, ExitStatus, Incarnation, Result};
use tokio::time::Instant;
use zbus::{Connection, Message, MessageStream};

use super::{
    job::{listen, owner_changes, signals},
    unit::{Call, Seen},
};
use crate::{
    client::{MANAGER, PROPERTIES, SERVICE, UNIT},
    names,
    properties::{ServiceProperties, UnitProperties},
    subscription::is_from,
};

/// How long a manager may be away before waiting for it to come back is given up.
const TIMEOUT: Duration = Duration::from_secs(120);
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// More changes of one unit than come between two polls; what does not fit waits in the socket.
const QUEUE: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(255);

pub(super) async fn wait(call: Call<'_>) -> Result<Option<ExitStatus>> {
    let mut life = None;
    let mut away_since = None;
    let mut pause = RETRY_AFTER.0;
    loop {
        let lost = match end_of(call, &mut life).await {
            Ok(End::Over(exit)) => return Ok(exit),
            // The link broke while all was well.
            Ok(End::Lost) => {
                (away_since, pause) = (None, RETRY_AFTER.0);
                None
            }
            Err(error) if life.is_some() && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                Some(error)
            }
            Err(error) => return Err(error),
        };
        let since = *away_since.get_or_insert_with(Instant::now);
        if let Some(error) = lost.filter(|_| since.elapsed() >= TIMEOUT) {
            return Err(error);
        }
        tracing::debug!(backend = %call.client.id(), instance = call.unit, "the wait broke off; it is begun again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AFTER.1);
    }
}

enum End {
    Over(Option<ExitStatus>),
    Lost,
}

/// What was changed, and by whom systemd is.
struct Changes {
    unit: MessageStream,
    removed: MessageStream,
    owner: MessageStream,
}

async fn end_of(call: Call<'_>, life: &mut Option<Incarnation>) -> Result<End> {
    let path = names::path_of(call.unit);
    let (_link, systemd, mut changes) = listen(call, async |connection: &Connection| {
        let changed = signals(PROPERTIES, "PropertiesChanged").path(path.clone()).build()?;
        let removed = signals(MANAGER, "UnitRemoved").arg(0, call.unit).build()?;
        Ok(Changes {
            unit: MessageStream::for_match_rule(changed, connection, Some(QUEUE)).await?,
            removed: MessageStream::for_match_rule(removed, connection, Some(QUEUE)).await?,
            owner: owner_changes(connection).await?,
        })
    })
    .await?;
    // From here on nothing is missed.
    let first = match life {
        None => call.look().await?,
        Some(_) => call.look_if_loaded().await?.ok_or_else(|| gone(call))?,
    };
    if life.is_none() {
        *life = first.life();
    }
    let Some(of) = life.clone() else { return Err(call.conflict("it never ran", &first)) };
    let mut told = Told::default();
    if let Some(Over(exit)) = told.over(&first, &of) {
        return Ok(End::Over(exit));
    }
    loop {
        let look = tokio::select! {
            biased;
            change = changes.unit.next() => match change {
                Some(Ok(change)) if !is_from(&change, &systemd) => false,
                Some(Ok(change)) => {
                    if let Some(Over(exit)) = told.hear(&change, &of) {
                        return Ok(End::Over(exit));
                    }
                    false
                }
                _ => return Ok(End::Lost),
            },
            // So it is also when systemd reads all its units again.
            _ = changes.removed.next() => true,
            _ = changes.owner.next() => return Ok(End::Lost),
            // A link that is dead at the other end says nothing: ask on another one.
            () = tokio::time::sleep(call.client.config().max_silence) => true,
        };
        if look {
            let seen = call.look_if_loaded().await?;
            // What came in the meantime is older than the inspection, and may say more.
            while let Some(Some(Ok(change))) = futures_util::FutureExt::now_or_never(changes.unit.next()) {
                if is_from(&change, &systemd)
                    && let Some(Over(exit)) = told.hear(&change, &of)
                {
                    return Ok(End::Over(exit));
                }
            }
            let Some(seen) = seen else { return Err(gone(call)) };
            if let Some(Over(exit)) = told.over(&seen, &of) {
                return Ok(End::Over(exit));
            }
        }
    }
}

fn gone(call: Call<'_>) -> Error {
    call.error(ErrorKind::NotFound, "the unit is gone, and its end was not seen")
}

/// A run is over, and this is how it ended, if that was said.
#[derive(Debug, PartialEq)]
struct Over(Option<ExitStatus>);

/// What the changes said so far.
#[derive(Default)]
struct Told {
    /// systemd reports of the service first, and then of the unit, both as they are at one moment.
    service: ServiceProperties,
    /// How the main process of the run ended, if the run then went on (what it left behind is being stopped).
    exit: Option<ExitStatus>,
}

impl Told {
    /// How the run ended, if this says that it did.
    fn over(&mut self, seen: &Seen, life: &Incarnation) -> Option<Over> {
        if seen.life().as_ref() != Some(life) {
            return Some(Over(self.exit.take()));
        }
        if let Some(exit) = seen.exit() {
            self.exit = Some(exit);
        }
        (!seen.lives()).then(|| Over(self.exit.take()))
    }

    fn hear(&mut self, change: &Message, life: &Incarnation) -> Option<Over> {
        let body = change.body();
        let (about, service) = match body.deserialize::<(String, UnitProperties, Vec<String>)>() {
            Ok((interface, about, _)) if interface == UNIT => (about, std::mem::take(&mut self.service)),
            Ok((interface, ..)) if interface == SERVICE => {
                if let Ok((_, service, _)) = body.deserialize::<(String, ServiceProperties, Vec<String>)>() {
                    self.service = service;
                }
                return None;
            }
            _ => return None,
        };
        // Only what tells of the state can tell of an end.
        about.active_state.as_ref()?;
        about.invocation_id.as_ref()?;
        self.over(&Seen { about, service, ..Seen::default() }, life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_end_is_that_of_the_life_that_is_waited_for() {
        let life = seen(1, "active", 0, 0, [9, 10]).life().unwrap();
        let over = |seens: &[Seen]| {
            let mut told = Told::default();
            seens.iter().find_map(|seen| told.over(seen, &life))
        };
        let alive = seen(1, "active", 0, 0, [9, 10]);
        assert_eq!(over(std::slice::from_ref(&alive)), None);
        let three = || Some(Over(Some(ExitStatus::code(3))));
        assert_eq!(over(&[alive.clone(), seen(1, "failed", 1, 3, [9, 10])]), three());
        // It waits to be started again.
        assert_eq!(over(&[alive.clone(), seen(1, "activating", 1, 3, [21, 10])]), three());
        // Its end was reported while its rest was being stopped; then the next run began.
        let next = seen(2, "active", 0, 0, [30, 31]);
        assert_eq!(over(&[alive.clone(), seen(1, "deactivating", 1, 3, [9, 10]), next.clone()]), three());
        // Not reported: the next run's exit is not this one's.
        assert_eq!(over(&[alive.clone(), next]), Some(Over(None)));
        assert_eq!(over(&[alive, seen(2, "failed", 1, 7, [30, 31])]), Some(Over(None)));
        // What failed before its program ran shows the exit of an earlier run.
        let mut earlier = seen(1, "failed", 1, 3, [9, 5]);
        earlier.about.condition_timestamp_monotonic = Some(8);
        assert_eq!(over(&[earlier]), Some(Over(None)));
    }
}
