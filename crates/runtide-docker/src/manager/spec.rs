//! From an [`InstanceSpec`] to the Engine's request: pure, and the only place that refuses an invalid spec.

mod health;
mod resolver;
mod rights;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, path::Path, time::Duration};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, Mount, MountType, NetworkingConfig, PortBinding,
    PortMap, RestartPolicy, RestartPolicyNameEnum,
};
use runtide_core::{
    ErrorKind, Port, UnixSignal,
    manager::{InstanceSpec, MountSource, NetworkAttachment, RestartPolicy as Restart},
};

use runtide_engine::image::unmistakable;
pub(super) use runtide_engine::{is_host_name, shown};

use super::{
    container::is_name,
    native::{self, host},
};

/// The create request, and the objects that it depends on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) name: Option<String>,
    pub(super) body: ContainerCreateBody,
    /// Networks that must exist: a create without one succeeds, and the start would fail.
    pub(super) networks: Vec<NetworkAttachment>,
    /// Volumes that must exist: Docker would create a missing one.
    pub(super) volumes: Vec<String>,
    /// Field that an older server drops in silence, and the minor of the first API version that has it.
    pub(super) since: Option<(&'static str, usize)>,
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

pub(super) fn unsupported<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { kind: ErrorKind::Unsupported, field, message: message.into() })
}

/// Fields that a native key can set as well.
const NATIVE_TWINS: [(&str, &str); 10] = [
    ("cap_add", "cap_add"),
    ("cap_drop", "cap_drop"),
    ("dns", "dns"),
    ("dns_options", "dns"),
    ("dns_search", "dns"),
    ("extra_hosts", "extra_hosts"),
    ("healthcheck", "health_check"),
    ("init", "init"),
    ("read_only", "read_only_root"),
    ("ulimits", "ulimits"),
];

/// Network modes that the daemon lists among its networks; each excludes every other network.
const NO_NETWORKS: [&str; 2] = ["host", "none"];

impl Request {
    pub(super) fn new(spec: &InstanceSpec) -> Result<Self, Refused> {
        let mut body = ContainerCreateBody { image: Some(image(spec)?), ..ContainerCreateBody::default() };
        process(spec, &mut body)?;
        ports(&spec.ports, &mut body)?;
        let volumes = mounts(spec, &mut body)?;
        limits(spec, &mut body)?;
        rights::apply(spec, &mut body)?;
        resolver::apply(spec, &mut body)?;
        let since = health::apply(spec, &mut body)?;
        let given = spec.given();
        for (key, value) in &spec.native {
            if let Some((_, field)) = NATIVE_TWINS.iter().find(|(twin, field)| key == twin && given.contains(field)) {
                return invalid("native", format!("{key} says what {field} says: give one of the two"));
            }
            if let Err(message) = native::apply(&mut body, key, value) {
                return invalid("native", format!("{}: {message}", key.escape_debug()));
            }
        }
        if host(&mut body).auto_remove == Some(true) && !matches!(spec.restart, Restart::No) {
            return invalid("restart", "a container that is removed when it ends (auto_remove) cannot be restarted");
        }
        let networks = networks(spec, &mut body)?;
        Ok(Self { name: name(spec)?, body, networks, volumes, since })
    }

    /// Joins the networks on create and returns those to connect afterwards: before API 1.44 (`several`) a create takes one.
    pub(super) fn join(&mut self, several: bool) -> Vec<NetworkAttachment> {
        let (now, later) = match self.networks.split_first() {
            Some((first, rest)) if !several => (std::slice::from_ref(first), rest.to_vec()),
            _ => (self.networks.as_slice(), Vec::new()),
        };
        let now: Vec<_> = now.iter().filter(|joined| !NO_NETWORKS.contains(&joined.network.as_str())).collect();
        if !now.is_empty() {
            let endpoints = now.into_iter().map(|joined| (joined.network.as_str().to_owned(), endpoint(joined)));
            self.body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints.collect()) });
        }
        later
    }
}

/// The container's side of a network.
pub(super) fn endpoint(joined: &NetworkAttachment) -> EndpointSettings {
    let mut endpoint = EndpointSettings::default();
    if !joined.aliases.is_empty() {
        endpoint.aliases = Some(joined.aliases.clone());
    }
    if let Some(address) = joined.address {
        let mut ipam = EndpointIpamConfig::default();
        match address {
            IpAddr::V4(ip) => ipam.ipv4_address = Some(ip.to_string()),
            IpAddr::V6(ip) => ipam.ipv6_address = Some(ip.to_string()),
        }
        endpoint.ipam_config = Some(ipam);
    }
    endpoint
}

fn name(spec: &InstanceSpec) -> Result<Option<String>, Refused> {
    match spec.name.as_deref() {
        Some(name) if !is_container_name(name) => invalid("name", format!("'{}' {NO_CONTAINER_NAME}", shown(name))),
        name => Ok(name.map(str::to_owned)),
    }
}

/// The daemon's rule for the names that it gives.
pub(super) fn is_container_name(name: &str) -> bool {
    name.len() >= 2 && is_name(name)
}

/// Why a name is refused.
pub(super) const NO_CONTAINER_NAME: &str =
    "is not a container's name: expected two or more letters, digits, '_', '.', '-', the first a letter or digit";

fn image(spec: &InstanceSpec) -> Result<String, Refused> {
    match spec.image.as_ref().map(runtide_core::ImageRef::as_str) {
        None | Some("") => invalid("image", "Docker needs one"),
        Some(image) if !image.bytes().all(|byte| byte.is_ascii_graphic()) => {
            invalid("image", format!("'{}' is not an image's name", shown(image)))
        }
        Some(image) => Ok(unmistakable(image).into_owned()),
    }
}

fn process(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Refused> {
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
    body.entrypoint.clone_from(&spec.entrypoint);
    body.cmd = (!spec.command.is_empty()).then(|| spec.command.clone());
    body.env = (!spec.env.is_empty()).then(|| spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect());
    body.user.clone_from(&spec.user);
    body.working_dir.clone_from(&spec.working_dir);
    body.labels = (!spec.labels.is_empty())
        .then(|| spec.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
    body.stop_signal = spec.stop_signal.map(stop_signal);
    body.stop_timeout = spec.stop_timeout.map(whole_seconds).transpose()?;
    Ok(())
}

/// The signal's name where every version knows it; the daemon has its own names for real-time signals.
fn stop_signal(signal: UnixSignal) -> String {
    if signal.number() < 32 { signal.to_string() } else { signal.number().to_string() }
}

/// The daemon counts whole seconds; rounded up, so that no container gets less time than the caller gave it.
fn whole_seconds(timeout: Duration) -> Result<i64, Refused> {
    let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
    i32::try_from(seconds).map(i64::from).or_else(|_| invalid("stop_timeout", "longer than the daemon can count"))
}

fn ports(ports: &[Port], body: &mut ContainerCreateBody) -> Result<(), Refused> {
    let mut exposed = Vec::new();
    let mut bindings: PortMap = HashMap::new();
    let mut taken = HashMap::new();
    for port in ports {
        let key = format!("{}/{}", port.number, port.protocol);
        for address in port.published.iter().filter(|address| address.port() != 0) {
            if taken.insert((*address, port.protocol), port.number).is_some_and(|other| other != port.number) {
                return invalid("ports", format!("{address}/{} would publish two ports", port.protocol));
            }
        }
        let published = port.published.iter().map(|address| PortBinding {
            host_ip: Some(address.ip().to_string()),
            host_port: Some(if address.port() == 0 { String::new() } else { address.port().to_string() }),
        });
        let published: Vec<_> = published.collect();
        if !published.is_empty() {
            bindings.entry(key.clone()).or_default().get_or_insert_default().extend(published);
        }
        if !exposed.contains(&key) {
            exposed.push(key);
        }
    }
    body.exposed_ports = (!exposed.is_empty()).then_some(exposed);
    if !bindings.is_empty() {
        host(body).port_bindings = Some(bindings);
    }
    Ok(())
}

fn mounts(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<Vec<String>, Refused> {
    let (mut mounts, mut volumes): (Vec<Mount>, Vec<String>) = (Vec::new(), Vec::new());
    for mount in &spec.mounts {
        let target = absolute(&mount.target)?;
        if target == "/" || target.split('/').any(|part| part == "..") {
            return invalid("mounts", format!("'{}' cannot be mounted at", shown(&target)));
        }
        if mounts.iter().any(|other| other.target.as_ref() == Some(&target)) {
            return invalid("mounts", format!("'{}' is mounted at twice", shown(&target)));
        }
        let (typ, source) = match &mount.source {
            MountSource::Bind(path) => (MountType::BIND, Some(absolute(path)?)),
            MountSource::Volume(volume) if is_name(volume.as_str()) => {
                volumes.push(volume.as_str().to_owned());
                (MountType::VOLUME, Some(volume.as_str().to_owned()))
            }
            MountSource::Volume(volume) => {
                return invalid("mounts", format!("'{}' is not a volume's name", shown(volume.as_str())));
            }
            MountSource::Tmpfs => (MountType::TMPFS, None),
            _ => return invalid("mounts", "Docker has no such source"),
        };
        mounts.push(Mount {
            target: Some(target),
            source,
            typ: Some(typ),
            read_only: Some(mount.read_only),
            ..Mount::default()
        });
    }
    if !mounts.is_empty() {
        host(body).mounts = Some(mounts);
    }
    Ok(volumes)
}

fn absolute(path: &Path) -> Result<String, Refused> {
    match path.to_str() {
        Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.to_owned()),
        Some(text) => invalid("mounts", format!("'{}' is not an absolute path", shown(text))),
        None => invalid("mounts", format!("{} is not UTF-8, and Docker's interface is", path.display())),
    }
}

fn limits(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Refused> {
    if let Some(bytes) = spec.memory_bytes {
        let Ok(bytes) = i64::try_from(bytes.get()) else { return invalid("memory_bytes", "more than can be counted") };
        host(body).memory = Some(bytes);
    }
    if let Some(milli) = spec.milli_cpus {
        host(body).nano_cpus = Some(i64::from(milli.get()) * 1_000_000);
    }
    if let Some(pids) = spec.pids {
        host(body).pids_limit = Some(i64::from(pids.get()));
    }
    let (name, attempts) = match spec.restart {
        // 0 attempts means without a limit to Docker.
        Restart::No | Restart::OnFailure { attempts: Some(0) } => (RestartPolicyNameEnum::NO, None),
        Restart::OnFailure { attempts } => (RestartPolicyNameEnum::ON_FAILURE, attempts.map(i64::from)),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        _ => return invalid("restart", "Docker has no such policy"),
    };
    host(body).restart_policy = Some(RestartPolicy { name: Some(name), maximum_retry_count: attempts });
    Ok(())
}

fn networks(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<Vec<NetworkAttachment>, Refused> {
    let mut networks: Vec<NetworkAttachment> = Vec::with_capacity(spec.networks.len());
    for joined in &spec.networks {
        let network = joined.network.as_str();
        if !is_name(network) {
            return invalid("networks", format!("'{}' is not a network's name", shown(network)));
        }
        if let Some(alias) = joined.aliases.iter().find(|alias| !is_host_name(alias)) {
            return invalid("networks", format!("'{}' is not an alias: it is no host name", shown(alias)));
        }
        if PREDEFINED.contains(&network) && (!joined.aliases.is_empty() || joined.address.is_some()) {
            return unsupported("networks", NO_ENDPOINT_OPTIONS);
        }
        match networks.iter().find(|other| other.network == joined.network) {
            None => networks.push(joined.clone()),
            Some(other) if other == joined => {}
            Some(_) => return invalid("networks", format!("'{network}' is joined twice, in different ways")),
        }
    }
    let is_no_network = |joined: &NetworkAttachment| NO_NETWORKS.contains(&joined.network.as_str());
    if networks.len() > 1 && networks.iter().any(is_no_network) {
        return invalid("networks", "'host' and 'none' cannot be joined together with other networks");
    }
    if let Some(first) = networks.first() {
        if host(body).network_mode.is_some() {
            return invalid("networks", "the native key network_mode says otherwise: give one of the two");
        }
        host(body).network_mode = Some(first.network.as_str().to_owned());
    }
    Ok(networks)
}

/// Docker's own networks.
pub(super) const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// Why an alias or a fixed address is refused on one of Docker's own networks.
pub(super) const NO_ENDPOINT_OPTIONS: &str =
    "Docker has aliases and fixed addresses on networks that were created, not on its own 'bridge', 'host' and 'none'";
