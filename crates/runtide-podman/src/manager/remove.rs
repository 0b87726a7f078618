//! Remove, also while another client removes the same container.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Result,
    manager::{Effect, RemoveOptions},
};
use runtide_engine::Request;

use super::container::Call;
use crate::client::is_answer;

/// Shortest and longest pause between two inspections while another client's removal goes on.
const POLL_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Most repetitions of a removal that the container's state does not forbid.
const ATTEMPTS: u32 = 5;

pub(super) async fn remove(call: Call<'_>, options: &RemoveOptions) -> Result<Effect> {
    let (mut pause, mut attempts) = (POLL_AFTER.0, 0);
    let Some(mut container) = call.inspect_if_present().await? else { return Ok(Effect::Unchanged) };
    let id = container.id_or(call.id).to_owned();
    let call = Call { id: &id, ..call };
    loop {
        if container.state.is_alive() && !options.kill {
            let message = "the container runs, and the options do not ask to kill it";
            let error = call.error(ErrorKind::Conflict, message).with_context("state", &container.state.status);
            return Err(container.named(error));
        }
        // Without a timeout Podman gives a running container the time of a stop first.
        let request = Request::delete(format!("/containers/{}", call.id))
            .with_query("force", options.kill)
            .with_query("volumes", options.anonymous_volumes)
            .with_query("timeout", 0);
        let refusal = match call.send(request).await {
            Ok(_) => return Ok(Effect::Changed),
            Err(refusal) if refusal.kind() == ErrorKind::NotFound => return Ok(Effect::Unchanged),
            Err(refusal) if is_answer(&refusal) => refusal,
            Err(refusal) => return Err(refusal),
        };
        // Refused though the state allows it: another client is removing it, or it ended or started this moment. Podman has no
        // status for that, so a few repetitions tell it from a refusal that stays.
        attempts += 1;
        container = match call.inspect_if_present().await? {
            None => return Ok(Effect::Unchanged),
            Some(now) if now.state.status != "removing" && attempts >= ATTEMPTS => return Err(now.named(refusal)),
            Some(now) => now,
        };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_AFTER.1);
    }
}
