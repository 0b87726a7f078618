//! Create a transient unit from a spec: loaded, never started, and present until it is removed.
//!
//! A scope is made of processes that run already, so that it runs from its creation on, and is gone with the last of
//! them.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{InstanceSpec, ProvisionManager},
};
use zbus::{Connection, Variant};

use super::{
    fragment, holder,
    job::{Jobs, failed},
    property::shown,
    remove,
    spec::{Refusal, Request},
    unit::{Call, Seen},
};
use crate::{
    client::{Client, MANAGER, PROPERTIES, ROOT, SERVICE, SYSTEMD, Settings, UNIT},
    error::BusErrors,
    names,
};

const OPERATION: &str = "systemd.create";

/// Number of attempts to create a unit whose file systemd read before it was repaired.
const ATTEMPTS: usize = 3;

/// Creates transient units.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    client: Client,
}

impl Provision {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl ProvisionManager for Provision {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        self.client.check_open(OPERATION)?;
        let request = Request::new(spec).map_err(|refusal| refused(&self.client, refusal))?;
        let unit = request.unit.clone().unwrap_or_else(any_name);
        if !self.client.config().selection.takes_name(&unit) {
            let message = format!("name: '{}' is none of those that this backend selects", shown(&unit));
            return Err(self.client.invalid(OPERATION, message).with_context("field", "name"));
        }
        let call = Call { client: &self.client, operation: OPERATION, unit: &unit };
        call.within(Duration::ZERO, create(call, &request)).await?;
        Ok(InstanceId::from(unit))
    }
}

fn refused(client: &Client, refusal: Refusal) -> Error {
    let site = client.site(OPERATION);
    match refusal {
        Refusal::Invalid { field, message } => {
            site.error(ErrorKind::InvalidInput, format!("{field}: {message}")).with_context("field", field)
        }
        Refusal::Unsupported { feature, reason } => site
            .error(ErrorKind::Unsupported, format!("{feature}: {reason}"))
            .with_context("feature", feature)
            .with_context("reason", reason),
    }
}

/// Returns a random name.
fn any_name() -> String {
    format!("runtide-{:016x}{:016x}.service", random(), random())
}

fn random() -> u64 {
    // Each hasher has a new seed from the system's randomness.
    RandomState::new().build_hasher().finish()
}

async fn create(call: Call<'_>, request: &Request) -> Result<()> {
    has_controllers(call, request).await?;
    if request.is_at_risk && call.client.config().root.is_none() {
        return Err(garbled(call, "the manager's files cannot be seen from here"));
    }
    if request.is_scope {
        return scope(call, request).await;
    }
    for _ in 0..ATTEMPTS {
        if service(call, request).await? {
            return Ok(());
        }
    }
    Err(call.error(ErrorKind::Conflict, "systemd reloaded its units again and again during the call"))
}

/// Classifies the refusal of a value: systemd has no error name for it, but its message always begins the same.
fn not_taken(call: Call<'_>, error: Error) -> Error {
    if error.kind() == ErrorKind::Unexpected && error.message().starts_with("Failed to set unit properties") {
        return call.error(ErrorKind::InvalidInput, error.message());
    }
    error
}

/// Creates a service; `false`: systemd changed its command, and it was removed again.
async fn service(call: Call<'_>, request: &Request) -> Result<bool> {
    let name = holder::of(call.unit);
    let mut jobs = Jobs::open(call, &name).await?;
    let token = format!("Holds {} ({:016x})", call.unit, random());
    let holding: Settings<'_> =
        vec![("Description", Variant::from(token.clone())), ("Before", Variant::from(vec![call.unit.to_owned()]))];
    let units = vec![(call.unit, settings(call, request)?)];
    // From here on the unit may exist before the caller has its id.
    let (client, link, unit) = (call.client.clone(), jobs.link(), call.unit.to_owned());
    let guard = CreateGuard::new(call.client.site(OPERATION), call.unit, call.client.config().deadline, move || {
        let (client, link, token, unit) = (client.clone(), link.clone(), token.clone(), unit.clone());
        async move { undo(&client, &link, &token, &unit).await }
    });
    let finished = async {
        let job = jobs.send("StartTransientUnit", &(&name, "fail", holding, units)).await;
        let job = job.map_err(|error| not_taken(call, error))?;
        let end = jobs.end(&job).await?;
        if !end.may_be_done() {
            return Err(failed(call, "its holder did not start", &end));
        }
        let seen = call.look_if_loaded().await?;
        let seen = seen.ok_or_else(|| call.error(ErrorKind::NotFound, "it was removed while it was made"))?;
        if seen.about.load_state.as_deref() != Some("loaded") {
            let why = seen.more.load_error.map_or_else(String::new, |(_, why)| why);
            return Err(
                call.error(ErrorKind::InvalidInput, format!("systemd refuses this combination of settings: {why}"))
            );
        }
        if request.is_at_risk { mended(call, request, &seen).await } else { Ok(true) }
    };
    match finished.await {
        Ok(false) => {
            guard.undo().await;
            Ok(false)
        }
        finished => guard.settle(finished).await,
    }
}

async fn scope(call: Call<'_>, request: &Request) -> Result<()> {
    let mut jobs = Jobs::open(call, call.unit).await?;
    let none: Vec<(&str, Settings<'_>)> = Vec::new();
    let made = (call.unit, "fail", settings(call, request)?, none);
    let end = jobs.run("StartTransientUnit", &made).await?;
    if end.may_be_done() { Ok(()) } else { Err(failed(call, "its start", &end)) }
}

fn settings(call: Call<'_>, request: &Request) -> Result<Settings<'static>> {
    let copied = request.properties.iter().map(|(name, value)| Ok((*name, value.try_clone()?)));
    copied.collect::<zbus::Result<_>>().map_err(|error| call.error(ErrorKind::InvalidInput, error.to_string()))
}

/// Refuses a limit whose controller is not enabled, since nothing would enforce it.
async fn has_controllers(call: Call<'_>, request: &Request) -> Result<()> {
    let config = call.client.config();
    let (Some(root), false) = (&config.root, request.controllers.is_empty()) else { return Ok(()) };
    let group: String = call.client.get(call.operation, ROOT, MANAGER, "ControlGroup").await?;
    let group = group.strip_suffix("/init.scope").unwrap_or(&group);
    let path = fragment::seen_from(root, &format!("/sys/fs/cgroup{group}/cgroup.controllers"));
    // With another layout of the control groups, systemd's own check is relied on.
    let Ok(Ok(there)) = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await else { return Ok(()) };
    for (field, controller) in &request.controllers {
        if !there.split_whitespace().any(|one| one == *controller) {
            let reason = format!("the control groups have no controller {controller} here");
            return Err(refused(call.client, Refusal::Unsupported { feature: field, reason }));
        }
    }
    Ok(())
}

fn garbled(call: Call<'_>, why: &str) -> Error {
    let reason = format!("systemd changes them when it reloads its units, and that cannot be corrected: {why}");
    call.error(ErrorKind::Unsupported, format!("a command with ';' or '$': {reason}"))
        .with_context("feature", "a command with ';' or '$'")
        .with_context("reason", reason)
}

/// A command as the bus reports it: program, arguments, and the result of its last execution.
type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// Repairs the file, and checks if systemd read it before.
async fn mended(call: Call<'_>, request: &Request, seen: &Seen) -> Result<bool> {
    let (Some(root), Some(path)) = (&call.client.config().root, &seen.about.fragment_path) else { return Ok(true) };
    let (root, path) = (root.clone(), path.clone());
    let mended = tokio::task::spawn_blocking(move || fragment::mend(&root, &path)).await;
    match mended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // The file is gone with its unit, or with the whole machine: then the call fails with that.
            let gone = error.kind() == std::io::ErrorKind::NotFound && call.look_if_loaded().await?.is_none();
            return Err(if gone {
                call.error(ErrorKind::NotFound, "it was removed while it was made")
            } else {
                garbled(call, &error.to_string())
            });
        }
        Err(_) => return Err(call.error(ErrorKind::Cancelled, "the program is ending")),
    }
    let path = call.client.get_unit(call.operation, call.unit).await?;
    let answer = call.client.call(call.operation, (&path, PROPERTIES, "Get"), &(SERVICE, "ExecStart")).await?;
    let body = answer.body();
    let value: Variant<'_> = body.deserialize().map_err(|error| call.client.site(call.operation).undecodable(error))?;
    let commands: Vec<Command> = match value {
        Variant::Array(commands) => {
            Vec::try_from(commands).map_err(|error| call.client.site(call.operation).undecodable(error))?
        }
        _ => Vec::new(),
    };
    Ok(commands.iter().any(|(_, words, ..)| *words == request.command))
}

/// Removes the unit of this call, unless another call created it under the same name; `token` distinguishes the two.
/// The calls are made on the connection that created the unit: systemd answers in order, so that it finds the unit if
/// there is one.
async fn undo(client: &Client, link: &Connection, token: &str, unit: &str) -> Result<()> {
    let path = names::path_of(&holder::of(unit));
    let body = (UNIT, "Description");
    let answer = link.call_method(Some(SYSTEMD), path.as_str(), Some(PROPERTIES), "Get", &body).await;
    let answer = answer.map_err(|error| client.site(OPERATION).dbus(error))?;
    let body = answer.body();
    match body.deserialize::<Variant<'_>>() {
        Ok(Variant::Str(found)) if found.as_str() == token => {
            remove::forget(Call { client, operation: OPERATION, unit }).await
        }
        _ => Ok(()),
    }
}
