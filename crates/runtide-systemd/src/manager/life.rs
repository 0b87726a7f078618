//! The run that a unit is in, and its end.

use std::time::{Duration, SystemTime};

use runtide_core::{ErrorKind, Incarnation, InstanceState, Result};
use tokio::time::Instant;

use crate::{
    client::{Client, UNIT},
    normalize,
    properties::UnitProperties,
};

/// How often a unit is asked whether it is still in the same run. Two calls each time, of 0.2 ms in the manager.
const PERIOD: Duration = Duration::from_millis(250);

/// For how long nobody may answer before the end of a run is given up on: longer than a re-execution of the manager.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A run that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) incarnation: Option<Incarnation>,
    pub(super) began: Option<SystemTime>,
}

impl Life {
    /// `None`: the unit rests, or waits for its next run.
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
        let lives = state.is_alive() || state == InstanceState::Starting;
        lives.then(|| Self {
            incarnation: about.invocation_id.as_deref().and_then(normalize::incarnation),
            began: about.inactive_exit_timestamp.and_then(normalize::time),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the manager's silence is, if it lasts.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ended(&self, client: &Client, operation: &'static str, unit: &str) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match about(client, operation, unit).await {
                Ok(about) => {
                    heard = Instant::now();
                    let life = about.as_ref().and_then(Self::of);
                    if life.is_none_or(|life| life.incarnation != self.incarnation) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Cancelled || heard.elapsed() > TIMEOUT => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// What the manager says of a unit; `None`: it is not loaded.
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
    fn what_rests_or_waits_for_its_next_life_has_none() {
        for (active, sub) in
            [("inactive", "dead"), ("failed", "failed"), ("active", "exited"), ("activating", "auto-restart")]
        {
            assert_eq!(Life::of(&unit(active, sub)), None, "{active} {sub}");
        }
        for (active, sub) in [("active", "running"), ("activating", "start-pre"), ("deactivating", "stop-sigterm")] {
            let life = Life::of(&unit(active, sub)).unwrap();
            assert_eq!(life.incarnation, Some(Incarnation::from("01".repeat(16))), "{active} {sub}");
        }
    }
}
