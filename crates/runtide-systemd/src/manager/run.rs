//! The current run of a unit, and its end.

use std::time::{Duration, SystemTime};

use runtide_core::{ErrorKind, Incarnation, InstanceState, Result};
use tokio::time::Instant;

use crate::{
    client::{Client, UNIT},
    normalize,
    properties::UnitProperties,
};

/// Interval of polling whether a unit is still in the same run. Each poll is two calls, of 0.2 ms in the manager.
const PERIOD: Duration = Duration::from_millis(250);

/// Time without any answer after which waiting for the end of a run is given up: longer than a re-execution of the
/// manager.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A run that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) incarnation: Option<Incarnation>,
    pub(super) began: Option<SystemTime>,
}

impl Run {
    /// The current run; `None`: the unit is inactive, or waits for its next run.
    pub(super) fn of(about: &UnitProperties) -> Option<Self> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let began = about.inactive_exit_timestamp_monotonic.unwrap_or(0) != 0;
        let state = normalize::state(
            &text(&about.active_state),
            &text(&about.sub_state),
            &text(&about.freezer_state),
            began,
            false,
            false,
        );
        let is_running = state.is_alive() || state == InstanceState::Starting;
        is_running.then(|| Self {
            incarnation: about.invocation_id.as_deref().and_then(normalize::incarnation),
            began: about.inactive_exit_timestamp.and_then(normalize::time),
        })
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// The error of the last poll, if the manager stays unreachable.
    ///
    /// # Cancel safety
    /// No state is lost.
    pub(super) async fn ended(&self, client: &Client, operation: &'static str, unit: &str) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match about(client, operation, unit).await {
                Ok(about) => {
                    heard = Instant::now();
                    let current = about.as_ref().and_then(Self::of);
                    if current.is_none_or(|current| current.incarnation != self.incarnation) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Cancelled || heard.elapsed() > TIMEOUT => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// The properties of a unit; `None`: it is not loaded.
pub(super) async fn about(client: &Client, operation: &'static str, unit: &str) -> Result<Option<UnitProperties>> {
    let asked = async {
        let path = client.get_unit(operation, unit).await?;
        let answer = client.get_all(operation, path.as_str(), UNIT).await?;
        client.read(operation, &answer)
    };
    match asked.await {
        Ok(about) => Ok(Some(about)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str, sub: &str) -> UnitProperties {
        UnitProperties {
            active_state: Some(active.to_owned()),
            sub_state: Some(sub.to_owned()),
            invocation_id: Some(vec![1; 16]),
            inactive_exit_timestamp: Some(5),
            inactive_exit_timestamp_monotonic: Some(5),
            ..UnitProperties::default()
        }
    }

    #[test]
    fn a_unit_that_is_inactive_or_waits_for_its_next_run_has_none() {
        for (active, sub) in
            [("inactive", "dead"), ("failed", "failed"), ("active", "exited"), ("activating", "auto-restart")]
        {
            assert_eq!(Run::of(&unit(active, sub)), None, "{active} {sub}");
        }
        for (active, sub) in [("active", "running"), ("activating", "start-pre"), ("deactivating", "stop-sigterm")] {
            let current = Run::of(&unit(active, sub)).unwrap();
            assert_eq!(current.incarnation, Some(Incarnation::from("01".repeat(16))), "{active} {sub}");
        }
    }
}
