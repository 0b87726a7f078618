//! From an [`InstanceSpec`] to Podman's `SpecGenerator`: pure, and the only place that refuses an invalid spec.
//!
//! The keys of `InstanceSpec::native`:
//!
//! | keys | value |
//! |---|---|
//! | `auto_remove` `open_stdin` `privileged` `tty` | `true` or `false` |
//! | `hostname` `log_driver` `pod` `runtime` | text |
//! | `oom_score_adj` `shm_size` | a whole number; sizes in bytes |
//! | `groups` | a list: `a,b` |
//! | `annotations` `log_options` `secrets` `sysctls` | JSON as libpod has it |

mod health;
mod resolver;
mod rights;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path, time::Duration};

use runtide_core::{
    ErrorKind, Port,
    manager::{InstanceSpec, MountSource, NetworkAttachment, RestartPolicy as Restart},
};
use serde_json::{Map, Value, json};

use runtide_engine::{image::unmistakable, is_host_name, shown};

use super::container::{NO_NAME, is_name};

/// The create request, and the objects that it depends on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) name: Option<String>,
    pub(super) image: String,
    pub(super) body: Value,
    /// Networks that must exist: a create without one succeeds, and the start would fail.
    pub(super) networks: Vec<String>,
    /// Volumes that must exist: Podman would create a missing one.
    pub(super) volumes: Vec<String>,
}

impl Request {
    /// Adds a label.
    pub(super) fn label(&mut self, (key, value): (&str, &str)) {
        let labels = self.body.as_object_mut().map(|body| body.entry("labels").or_insert_with(|| json!({})));
        if let Some(labels) = labels.and_then(Value::as_object_mut) {
            labels.insert(key.to_owned(), Value::from(value));
        }
    }
}

/// A field of the spec that is refused, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// `InvalidInput`, or `Unsupported` for a field that makes sense elsewhere.
    pub(super) kind: ErrorKind,
    pub(super) field: &'static str,
    pub(super) message: String,
}

fn invalid<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { kind: ErrorKind::InvalidInput, field, message: message.into() })
}

fn unsupported<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { kind: ErrorKind::Unsupported, field, message: message.into() })
}

/// Fields that are honoured; any other that is given is refused.
const HONOURED: [&str; 26] = [
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
    "extra_hosts",
    "dns",
    "memory_bytes",
    "milli_cpus",
    "pids",
    "ulimits",
    "cap_add",
    "cap_drop",
    "read_only_root",
    "init",
    "health_check",
    "restart",
    "stop_signal",
    "stop_timeout",
    "native",
];

/// Modes in place of a network; each excludes every network.
const MODES: [&str; 2] = ["host", "none"];

/// Microseconds in which a container may use its quota: the usual period, and the longest, for a share so small that the kernel would
/// refuse its quota of the usual one.
const PERIODS: (u64, u64) = (100_000, 1_000_000);

impl Request {
    pub(super) fn new(spec: &InstanceSpec) -> Result<Self, Refused> {
        if let Some(field) = spec.given().into_iter().find(|field| !HONOURED.contains(field)) {
            return unsupported(field, "this version does not know the field");
        }
        let mut body = Map::new();
        let name = name(spec)?;
        if let Some(name) = &name {
            body.insert("name".to_owned(), json!(name));
        }
        let image = image(spec)?;
        body.insert("image".to_owned(), json!(image));
        process(spec, &mut body)?;
        ports(&spec.ports, &mut body)?;
        let volumes = mounts(spec, &mut body)?;
        limits(spec, &mut body)?;
        rights::apply(spec, &mut body)?;
        resolver::apply(spec, &mut body)?;
        health::apply(spec, &mut body)?;
        let networks = networks(spec, &mut body)?;
        for (key, value) in &spec.native {
            if let Err(message) = native(&mut body, key, value) {
                return invalid("native", format!("{}: {message}", key.escape_debug()));
            }
        }
        if body.contains_key("pod") && (body.contains_key("networks") || body.contains_key("portmappings")) {
            return invalid("native", "pod: networks and published ports are the pod's, and not the container's");
        }
        if body.get("remove") == Some(&Value::Bool(true)) && !matches!(spec.restart, Restart::No) {
            return invalid("restart", "a container that is removed when it ends (auto_remove) cannot be restarted");
        }
        Ok(Self { name, image, body: Value::Object(body), networks, volumes })
    }
}

fn name(spec: &InstanceSpec) -> Result<Option<String>, Refused> {
    match spec.name.as_deref() {
        Some(name) if !is_name(name) => invalid("name", format!("'{}' {NO_NAME}", shown(name))),
        name => Ok(name.map(str::to_owned)),
    }
}

fn image(spec: &InstanceSpec) -> Result<String, Refused> {
    match spec.image.as_ref().map(runtide_core::ImageRef::as_str) {
        None | Some("") => invalid("image", "Podman needs one"),
        Some(image) if !image.bytes().all(|byte| byte.is_ascii_graphic()) => {
            invalid("image", format!("'{}' is not an image's name", shown(image)))
        }
        Some(image) => Ok(unmistakable(image).into_owned()),
    }
}

fn process(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<(), Refused> {
    let arguments = spec.entrypoint.iter().flatten().map(|word| ("entrypoint", word.as_str()));
    let arguments = arguments.chain(spec.command.iter().map(|word| ("command", word.as_str())));
    let texts = [("user", spec.user.as_deref()), ("working_dir", spec.working_dir.as_deref())];
    for (field, text) in arguments.chain(texts.into_iter().filter_map(|(field, text)| Some((field, text?)))) {
        if text.contains('\0') {
            return invalid(field, "NUL cannot be in it");
        }
    }
    if let Some(dir) = spec.working_dir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return invalid("working_dir", format!("'{}' is not an absolute path", shown(dir)));
    }
    if spec.user.as_deref() == Some("") {
        return invalid("user", "expected user[:group], got nothing");
    }
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) {
            return invalid("env", format!("'{}' is not a variable's name", shown(key)));
        }
        if value.contains('\0') {
            return invalid("env", format!("the value of '{}' has a NUL in it", shown(key)));
        }
    }
    let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
    if let Some(entrypoint) = &spec.entrypoint {
        set("entrypoint", json!(entrypoint));
    }
    if !spec.command.is_empty() {
        set("command", json!(spec.command));
    }
    if !spec.env.is_empty() {
        set("env", json!(spec.env));
    }
    if let Some(user) = &spec.user {
        set("user", json!(user));
    }
    if let Some(dir) = &spec.working_dir {
        set("work_dir", json!(dir));
    }
    if !spec.labels.is_empty() {
        set("labels", json!(spec.labels.iter().collect::<BTreeMap<_, _>>()));
    }
    if let Some(signal) = spec.stop_signal {
        set("stop_signal", json!(signal.number()));
    }
    if let Some(timeout) = spec.stop_timeout {
        set("stop_timeout", json!(whole_seconds(timeout)?));
    }
    Ok(())
}

/// Podman counts whole seconds; rounded up, so that no container gets less time than the caller gave it.
fn whole_seconds(timeout: Duration) -> Result<u32, Refused> {
    let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
    let seconds = i32::try_from(seconds).ok().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.map_or_else(|| invalid("stop_timeout", "longer than Podman can count"), Ok)
}

fn ports(ports: &[Port], body: &mut Map<String, Value>) -> Result<(), Refused> {
    let mut taken = BTreeMap::new();
    let (mut mappings, mut exposed) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for port in ports {
        let protocol = port.protocol.to_string();
        for address in &port.published {
            let is_other = |other: std::num::NonZeroU16| other != port.number;
            if address.port() != 0 && taken.insert((*address, port.protocol), port.number).is_some_and(is_other) {
                return invalid("ports", format!("{address}/{protocol} would publish two ports"));
            }
            mappings.push(json!({
                "container_port": port.number, "host_port": address.port(), "host_ip": address.ip(), "protocol": protocol,
            }));
        }
        if port.published.is_empty() {
            let protocols = exposed.entry(port.number.to_string()).or_default();
            if !protocols.contains(&protocol) {
                protocols.push(protocol);
            }
        }
    }
    if !mappings.is_empty() {
        body.insert("portmappings".to_owned(), json!(mappings));
    }
    if !exposed.is_empty() {
        let exposed: BTreeMap<_, _> =
            exposed.into_iter().map(|(port, protocols)| (port, protocols.join(","))).collect();
        body.insert("expose".to_owned(), json!(exposed));
    }
    Ok(())
}

fn mounts(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<Vec<String>, Refused> {
    let (mut mounts, mut volumes, mut targets) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let mut named = Vec::new();
    for mount in &spec.mounts {
        let target = absolute(&mount.target)?;
        if target == "/" || target.split('/').any(|part| part == "..") {
            return invalid("mounts", format!("'{}' cannot be mounted at", shown(&target)));
        }
        if targets.contains(&target) {
            return invalid("mounts", format!("'{}' is mounted at twice", shown(&target)));
        }
        let mode = if mount.read_only { "ro" } else { "rw" };
        match &mount.source {
            MountSource::Bind(path) => {
                let options = json!(["rbind", mode]);
                mounts.push(
                    json!({"destination": target, "type": "bind", "source": absolute(path)?, "options": options}),
                );
            }
            MountSource::Volume(volume) if is_name(volume.as_str()) => {
                volumes.push(volume.as_str().to_owned());
                named.push(json!({"Name": volume.as_str(), "Dest": target, "Options": [mode]}));
            }
            MountSource::Volume(volume) => {
                return invalid("mounts", format!("'{}' is not a volume's name", shown(volume.as_str())));
            }
            MountSource::Tmpfs => {
                mounts.push(json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": [mode]}));
            }
            _ => return unsupported("mounts", "Podman has no such source"),
        }
        targets.push(target);
    }
    if !mounts.is_empty() {
        body.insert("mounts".to_owned(), json!(mounts));
    }
    if !named.is_empty() {
        body.insert("volumes".to_owned(), json!(named));
    }
    Ok(volumes)
}

fn absolute(path: &Path) -> Result<String, Refused> {
    match path.to_str() {
        Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.to_owned()),
        Some(text) => invalid("mounts", format!("'{}' is not an absolute path", shown(text))),
        None => invalid("mounts", format!("{} is not UTF-8, and Podman's interface is", path.display())),
    }
}

fn limits(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<(), Refused> {
    let mut limits = Map::new();
    if let Some(bytes) = spec.memory_bytes {
        let Ok(bytes) = i64::try_from(bytes.get()) else { return invalid("memory_bytes", "more than can be counted") };
        limits.insert("memory".to_owned(), json!({ "limit": bytes }));
    }
    if let Some(milli) = spec.milli_cpus {
        let period = if milli.get() < 10 { PERIODS.1 } else { PERIODS.0 };
        let quota = u64::from(milli.get()).saturating_mul(period) / 1_000;
        limits.insert("cpu".to_owned(), json!({ "quota": quota, "period": period }));
    }
    if let Some(pids) = spec.pids {
        limits.insert("pids".to_owned(), json!({ "limit": pids }));
    }
    if !limits.is_empty() {
        body.insert("resource_limits".to_owned(), Value::Object(limits));
    }
    let (name, attempts) = match spec.restart {
        // 0 attempts means without a limit to Podman.
        Restart::No | Restart::OnFailure { attempts: Some(0) } => ("no", None),
        Restart::OnFailure { attempts } => ("on-failure", attempts),
        Restart::Always => ("always", None),
        Restart::UnlessStopped => ("unless-stopped", None),
        _ => return unsupported("restart", "Podman has no such policy"),
    };
    body.insert("restart_policy".to_owned(), json!(name));
    if let Some(attempts) = attempts {
        body.insert("restart_tries".to_owned(), json!(attempts));
    }
    Ok(())
}

fn networks(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<Vec<String>, Refused> {
    let mut networks: Vec<&NetworkAttachment> = Vec::with_capacity(spec.networks.len());
    for joined in &spec.networks {
        let network = joined.network.as_str();
        if !is_name(network) {
            return invalid("networks", format!("'{}' is not a network's name", shown(network)));
        }
        if let Some(alias) = joined.aliases.iter().find(|alias| !is_host_name(alias)) {
            return invalid("networks", format!("'{}' is not an alias: it is no host name", shown(alias)));
        }
        match networks.iter().find(|other| other.network == joined.network) {
            None => networks.push(joined),
            Some(other) if *other == joined => {}
            Some(_) => return invalid("networks", format!("'{network}' is joined twice, in different ways")),
        }
    }
    if let Some(mode) = networks.iter().find(|joined| MODES.contains(&joined.network.as_str())) {
        if networks.len() > 1 {
            return invalid("networks", "'host' and 'none' cannot be joined together with other networks");
        }
        if !mode.aliases.is_empty() || mode.address.is_some() {
            return invalid("networks", "'host' and 'none' have neither aliases nor addresses");
        }
        body.insert("netns".to_owned(), json!({ "nsmode": mode.network.as_str() }));
        return Ok(Vec::new());
    }
    if !networks.is_empty() {
        let joined: BTreeMap<_, _> =
            networks.iter().map(|joined| (joined.network.as_str(), endpoint(joined))).collect();
        body.insert("netns".to_owned(), json!({ "nsmode": "bridge" }));
        body.insert("networks".to_owned(), json!(joined));
    }
    Ok(networks.into_iter().map(|joined| joined.network.as_str().to_owned()).collect())
}

/// The container's side of a network.
fn endpoint(joined: &NetworkAttachment) -> Value {
    let mut endpoint = Map::new();
    if !joined.aliases.is_empty() {
        endpoint.insert("aliases".to_owned(), json!(joined.aliases));
    }
    if let Some(address) = joined.address {
        endpoint.insert("static_ips".to_owned(), json!([address]));
    }
    Value::Object(endpoint)
}

/// Sets one native key; the error message names the accepted keys or values.
fn native(body: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), String> {
    if value.contains('\0') {
        return Err("NUL cannot be in it".to_owned());
    }
    let Some((_, field, form)) = KEYS.iter().find(|(known, ..)| *known == key) else {
        let known: Vec<_> = KEYS.iter().map(|(known, ..)| *known).collect();
        return Err(format!("no such key; accepted are {}", known.join(", ")));
    };
    let value = form.read(value)?;
    match field.split_once('.') {
        None => drop(body.insert((*field).to_owned(), value)),
        Some((outer, inner)) => {
            let object = body.entry(outer).or_insert_with(|| json!({}));
            if let Some(object) = object.as_object_mut() {
                object.insert(inner.to_owned(), value);
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Form {
    Flag,
    Text,
    Number,
    List,
    Json,
}

impl Form {
    fn read(self, value: &str) -> Result<Value, String> {
        let shown = || value.escape_debug().take(80).collect::<String>();
        match self {
            Self::Flag => {
                value.parse::<bool>().map(Value::Bool).map_err(|_| format!("expected true or false, got '{}'", shown()))
            }
            Self::Text if value.is_empty() => Err("expected a value, got nothing".to_owned()),
            Self::Text => Ok(Value::from(value)),
            Self::Number => {
                value.parse::<i64>().map(Value::from).map_err(|_| format!("expected a whole number, got '{}'", shown()))
            }
            Self::List => Ok(value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
            Self::Json => {
                serde_json::from_str(value).map_err(|error| format!("expected JSON as in libpod's API: {error}"))
            }
        }
    }
}

/// Key, field of the `SpecGenerator`, form of the value.
const KEYS: [(&str, &str, Form); 15] = [
    ("annotations", "annotations", Form::Json),
    ("auto_remove", "remove", Form::Flag),
    ("groups", "groups", Form::List),
    ("hostname", "hostname", Form::Text),
    ("log_driver", "log_configuration.driver", Form::Text),
    ("log_options", "log_configuration.options", Form::Json),
    ("oom_score_adj", "oom_score_adj", Form::Number),
    ("open_stdin", "stdin", Form::Flag),
    ("pod", "pod", Form::Text),
    ("privileged", "privileged", Form::Flag),
    ("runtime", "oci_runtime", Form::Text),
    ("secrets", "secrets", Form::Json),
    ("shm_size", "shm_size", Form::Number),
    ("sysctls", "sysctl", Form::Json),
    ("tty", "terminal", Form::Flag),
];
