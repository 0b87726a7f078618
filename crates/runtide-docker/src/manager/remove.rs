//! Remove, and what the daemon may say to it.

use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use runtide_core::{
    ErrorKind, Result,
    manager::{Effect, RemoveOptions},
};

use super::container::{Call, is_answer, is_status};

/// How often to look while somebody else's removal goes on.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

pub(super) async fn remove(call: Call<'_>, options: &RemoveOptions) -> Result<Effect> {
    let docker = call.docker().await?;
    let mut pause = LOOK_AFTER.0;
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
        let Some(container) = call.look_if_there().await? else { return Ok(Effect::Unchanged) };
        let state = container.state;
        if state.running && !options.kill {
            let message = "it runs, and the options do not say to kill it";
            return Err(call.error(ErrorKind::Conflict, message).with_context("state", &state.status));
        }
        // Refused though it may be removed: somebody else removes it, or it ended or started this moment. Look until it is
        // gone, ask again in case that the other one gave up, and let the deadline say when it is too long.
        if !is_status(&refusal, 409) {
            return Err(call.refused(refusal));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_AFTER.1);
    }
}
