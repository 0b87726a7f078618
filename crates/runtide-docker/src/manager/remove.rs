//! Remove, also while another client removes the same container.

use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use runtide_core::{
    ErrorKind, Result,
    manager::{Effect, RemoveOptions},
};

use super::container::{Call, is_answer, is_status};

/// Shortest and longest pause between two inspections while another client's removal goes on.
const POLL_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

pub(super) async fn remove(call: Call<'_>, options: &RemoveOptions) -> Result<Effect> {
    let Some(found) = call.inspect_if_present().await? else { return Ok(Effect::Unchanged) };
    let call = call.of(&found);
    let docker = call.docker().await?;
    let mut pause = POLL_AFTER.0;
    loop {
        let query = RemoveContainerOptions {
            force: options.kill,
            v: options.anonymous_volumes,
            ..RemoveContainerOptions::default()
        };
        let refusal = match docker.remove_container(call.id, Some(query)).await {
            Ok(()) => return Ok(Effect::Changed),
            Err(refusal) if is_status(&refusal, 404) => return Ok(Effect::Unchanged),
            Err(refusal) if is_answer(&refusal) => refusal,
            Err(refusal) => return Err(call.refused(refusal)),
        };
        let Some(container) = call.inspect_if_present().await? else { return Ok(Effect::Unchanged) };
        let state = container.state;
        if state.running && !options.kill {
            let message = "the container runs, and the options do not ask to kill it";
            return Err(call.error(ErrorKind::Conflict, message).with_context("state", &state.status));
        }
        // Refused though the state allows it: another client is removing it, or it ended or started this moment. Repeat until
        // it is gone, in case the other client gave up; the deadline bounds the loop.
        if !is_status(&refusal, 409) {
            return Err(call.refused(refusal));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_AFTER.1);
    }
}
