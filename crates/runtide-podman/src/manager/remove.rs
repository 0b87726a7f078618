//! Remove, also while another client removes the same container.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Result,
    manager::{Effect, RemoveOptions},
};
use runtide_engine::Request;

use super::container::{Call, Container};
use crate::client::{is_answer, is_status};

/// Shortest and longest pause between two inspections while another client's removal goes on.
const POLL_AFTER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Most repetitions of a removal that the container's state does not forbid.
const ATTEMPTS: u32 = 5;

pub(super) async fn remove(call: Call<'_>, options: &RemoveOptions) -> Result<Effect> {
    let (mut pause, mut attempts) = (POLL_AFTER.0, 0);
    let mut seen = inspect(call).await?;
    let id = match &seen {
        Seen::Gone => return Ok(Effect::Unchanged),
        Seen::Here(container) => container.id_or(call.id).to_owned(),
        Seen::Hidden => call.id.to_owned(),
    };
    let call = Call { id: &id, ..call };
    loop {
        if let Seen::Here(container) = &seen
            && container.state.is_alive()
            && !options.kill
        {
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
        seen = inspect(call).await?;
        match &seen {
            Seen::Gone => return Ok(Effect::Unchanged),
            Seen::Here(now) if now.state.status != "removing" && attempts >= ATTEMPTS => return Err(now.named(refusal)),
            Seen::Hidden if attempts >= ATTEMPTS => return Err(refusal),
            Seen::Here(_) | Seen::Hidden => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_AFTER.1);
    }
}

/// Result of an inspection.
enum Seen {
    Here(Box<Container>),
    /// The service refuses to inspect it: it was killed while it removed the container (trap P16). It removes it, and refuses that of one
    /// that runs.
    Hidden,
    Gone,
}

async fn inspect(call: Call<'_>) -> Result<Seen> {
    match call.inspect_if_present().await {
        Ok(Some(container)) => Ok(Seen::Here(Box::new(container))),
        Ok(None) => Ok(Seen::Gone),
        // Only a whole id is certain to be this container's: anything shorter may be the beginning of another one's.
        Err(refusal) if is_status(&refusal, "500") && is_whole_id(call.id) => Ok(Seen::Hidden),
        Err(refusal) => Err(refusal),
    }
}

fn is_whole_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
