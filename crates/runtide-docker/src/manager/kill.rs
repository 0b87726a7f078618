//! Kill: one signal, sent once.

use bollard::query_parameters::KillContainerOptions;
use runtide_core::{Result, UnixSignal, manager::Effect};

use super::container::Call;

pub(super) async fn kill(call: Call<'_>, signal: UnixSignal) -> Result<()> {
    let container = call.inspect().await?;
    let call = call.of(&container);
    // A number: names differ between versions for the real-time signals.
    let options = KillContainerOptions { signal: signal.number().to_string() };
    match call.docker().await?.kill_container(call.id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(refusal) => call.settle(refusal, |_| None, |state| !state.is_alive()).await.map(|_: Effect| ()),
    }
}
