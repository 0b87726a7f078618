//! Rename.

use runtide_core::{ErrorKind, Result, manager::Effect};
use runtide_engine::Request;

use super::{
    container::Call,
    spec::{NO_CONTAINER_NAME, is_container_name, shown},
};

pub(super) async fn rename(call: Call<'_>, name: &str) -> Result<Effect> {
    if !is_container_name(name) {
        return Err(call.error(ErrorKind::InvalidInput, format!("'{}' {NO_CONTAINER_NAME}", shown(name))));
    }
    // The daemon refuses the name that a container has already.
    let container = call.inspect().await?;
    if container.name.trim_start_matches('/') == name {
        return Ok(Effect::Unchanged);
    }
    let call = call.of(&container);
    let request = Request::post(format!("/containers/{}/rename", call.id)).with_query("name", name);
    let renamed = Box::pin(call.client.call(call.operation, request, call.client.deadline())).await;
    renamed.map(|_| Effect::Changed).map_err(|error| call.located(error))
}
