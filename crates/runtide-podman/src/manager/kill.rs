//! Kill: one signal, sent once.

use runtide_core::{ErrorKind, Result, UnixSignal, manager::Effect};
use runtide_engine::Request;

use super::container::Call;

pub(super) async fn kill(call: Call<'_>, signal: UnixSignal) -> Result<()> {
    let container = call.inspect().await?;
    if !container.state.is_alive() {
        let error = call.error(ErrorKind::Conflict, "it does not run").with_context("state", &container.state.status);
        return Err(container.named(error));
    }
    let call = call.of(&container);
    // A number: names differ between versions for the real-time signals.
    match call.send(Request::post(call.path("kill")).with_query("signal", signal.number())).await {
        Ok(_) => Ok(()),
        Err(refusal) => call.settle(refusal, |_| None, |state| !state.is_alive()).await.map(|_: Effect| ()),
    }
}
