//! Create from a description in the common words.

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result,
    manager::{InstanceSpec, MountSource, ProvisionManager},
};

use crate::{
    client::Client,
    fault::Call,
    runtime::{Blueprint, Order},
};

#[async_trait]
impl ProvisionManager for Client {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        let order = order(spec).map_err(|error| error.with_context("backend", &self.config.id))?;
        self.ask(Call::Create, |state| state.provision(order)).await
    }
}

/// The fields that a simulated instance has.
const HONOURED: [&str; 16] = [
    "name",
    "image",
    "entrypoint",
    "command",
    "env",
    "user",
    "working_dir",
    "labels",
    "mounts",
    "ports",
    "networks",
    "memory_bytes",
    "restart",
    "stop_signal",
    "stop_timeout",
    "native",
];

/// Every field is carried out or refused; none is dropped in silence.
fn order(spec: &InstanceSpec) -> Result<Order> {
    let refused = |kind, message: String| Err(Error::new(kind, Call::Create.operation(), message));
    let cannot = |field: &str| {
        let reason = format!("nothing in memory honours '{field}'");
        refused(ErrorKind::Unsupported, reason.clone())
            .map_err(|error: Error| error.with_context("feature", field).with_context("reason", reason))
    };
    if let Some(field) = spec.given().into_iter().find(|field| !HONOURED.contains(field)) {
        return cannot(field);
    }
    if spec.networks.iter().any(|attachment| !attachment.aliases.is_empty()) {
        return cannot("networks: aliases");
    }
    for mount in &spec.mounts {
        if !matches!(mount.source, MountSource::Volume(_)) {
            return cannot("mounts: anything but a volume");
        }
        if !mount.target.to_str().is_some_and(|target| target.starts_with('/') && !target.contains('\0')) {
            return refused(ErrorKind::InvalidInput, "the target of a mount is not an absolute path".to_owned());
        }
    }
    let usual = Blueprint::default();
    let mut design = Blueprint::named(spec.name.clone().unwrap_or_default())
        .with_image(spec.image.clone())
        .with_labels(spec.labels.clone())
        .with_ports(spec.ports.clone())
        .with_restart(spec.restart)
        .with_stop_signal(spec.stop_signal.unwrap_or(usual.stop_signal))
        .with_stop_timeout(spec.stop_timeout.unwrap_or(usual.stop_timeout))
        .with_env(spec.env.clone())
        .with_command(spec.command.clone())
        .with_working_dir(spec.working_dir.clone().unwrap_or(usual.working_dir))
        .with_mounts(spec.mounts.clone())
        .with_memory_limit(spec.memory_bytes.map(std::num::NonZero::get));
    for (key, value) in &spec.native {
        let understood = match key.as_str() {
            "exit_code" => value.parse().map(|code| design.exit = Some(ExitStatus::code(code))).is_ok(),
            // A stored description may have the name of earlier versions.
            "run_ms" | "life_ms" => {
                value.parse().map(|ms| design.run_length = Some(std::time::Duration::from_millis(ms))).is_ok()
            }
            "tty" => value.parse().map(|tty| design.tty = tty).is_ok(),
            _ => false,
        };
        if !understood {
            let known = "the runtime's own keys are 'exit_code' and 'run_ms' (numbers) and 'tty' ('true' or 'false')";
            return refused(ErrorKind::InvalidInput, known.to_owned())
                .map_err(|error: Error| error.with_context("key", key.escape_debug()));
        }
    }
    if spec.entrypoint.iter().flatten().chain(&spec.user).any(|word| word.contains('\0')) {
        return refused(ErrorKind::InvalidInput, "the entry point or the user holds a NUL".to_owned());
    }
    Ok(Order { design, entrypoint: spec.entrypoint.clone(), user: spec.user.clone(), networks: spec.networks.clone() })
}
