//! From an [`InstanceSpec`] to the Engine's request: pure, and the only place that refuses an invalid spec.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, Mount, MountType, NetworkingConfig, PortBinding, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};
use runtide_core::{
    Port, UnixSignal,
    manager::{InstanceSpec, MountSource, RestartPolicy as Restart},
};

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
    pub(super) networks: Vec<String>,
    /// Volumes that must exist: Docker would create a missing one.
    pub(super) volumes: Vec<String>,
}

/// An invalid field of the spec, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) field: &'static str,
    pub(super) message: String,
}

fn invalid<T>(field: &'static str, message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field, message: message.into() })
}

/// Network modes that the daemon lists among its networks; each excludes every other network.
const NO_NETWORKS: [&str; 2] = ["host", "none"];

impl Request {
    pub(super) fn new(spec: &InstanceSpec) -> Result<Self, Invalid> {
        let mut body = ContainerCreateBody { image: Some(image(spec)?), ..ContainerCreateBody::default() };
        process(spec, &mut body)?;
        ports(&spec.ports, &mut body);
        let volumes = mounts(spec, &mut body)?;
        limits(spec, &mut body)?;
        for (key, value) in &spec.native {
            if let Err(message) = native::apply(&mut body, key, value) {
                return invalid("native", format!("{}: {message}", key.escape_debug()));
            }
        }
        let networks = networks(spec, &mut body)?;
        Ok(Self { name: name(spec)?, body, networks, volumes })
    }

    /// Joins the networks on create and returns those to connect afterwards: before API 1.44 (`several`) a create takes one.
    pub(super) fn join(&mut self, several: bool) -> Vec<String> {
        let (now, later) = match self.networks.split_first() {
            Some((first, rest)) if !several => (std::slice::from_ref(first), rest.to_vec()),
            _ => (self.networks.as_slice(), Vec::new()),
        };
        let now: Vec<_> = now.iter().filter(|network| !NO_NETWORKS.contains(&network.as_str())).collect();
        if !now.is_empty() {
            let endpoints = now.into_iter().map(|network| (network.clone(), EndpointSettings::default())).collect();
            self.body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
        }
        later
    }
}

fn name(spec: &InstanceSpec) -> Result<Option<String>, Invalid> {
    match spec.name.as_deref() {
        Some(name) if name.len() < 2 || !is_name(name) => invalid(
            "name",
            format!(
                "'{}' is not a container's name: expected two or more letters, digits, '_', '.', '-', the first a letter or digit",
                shown(name)
            ),
        ),
        name => Ok(name.map(str::to_owned)),
    }
}

fn image(spec: &InstanceSpec) -> Result<String, Invalid> {
    match spec.image.as_ref().map(runtide_core::ImageRef::as_str) {
        None | Some("") => invalid("image", "Docker needs one"),
        Some(image) if !image.bytes().all(|byte| byte.is_ascii_graphic()) => {
            invalid("image", format!("'{}' is not an image's name", shown(image)))
        }
        Some(image) => Ok(image.to_owned()),
    }
}

fn process(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Invalid> {
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
fn whole_seconds(timeout: Duration) -> Result<i64, Invalid> {
    let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
    i32::try_from(seconds).map(i64::from).or_else(|_| invalid("stop_timeout", "longer than the daemon can count"))
}

fn ports(ports: &[Port], body: &mut ContainerCreateBody) {
    let mut exposed = Vec::new();
    let mut bindings: PortMap = HashMap::new();
    for port in ports {
        let key = format!("{}/{}", port.number, port.protocol);
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
}

fn mounts(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<Vec<String>, Invalid> {
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

fn absolute(path: &Path) -> Result<String, Invalid> {
    match path.to_str() {
        Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.to_owned()),
        Some(text) => invalid("mounts", format!("'{}' is not an absolute path", shown(text))),
        None => invalid("mounts", format!("{} is not UTF-8, and Docker's interface is", path.display())),
    }
}

fn limits(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Invalid> {
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

fn networks(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<Vec<String>, Invalid> {
    let mut networks: Vec<String> = Vec::with_capacity(spec.networks.len());
    for network in spec.networks.iter().map(runtide_core::manager::NetworkId::as_str) {
        if !is_name(network) {
            return invalid("networks", format!("'{}' is not a network's name", shown(network)));
        }
        if !networks.iter().any(|other| other == network) {
            networks.push(network.to_owned());
        }
    }
    if networks.len() > 1 && networks.iter().any(|network| NO_NETWORKS.contains(&network.as_str())) {
        return invalid("networks", "'host' and 'none' cannot be joined together with other networks");
    }
    if let Some(first) = networks.first() {
        if host(body).network_mode.is_some() {
            return invalid("networks", "the native key network_mode says otherwise: give one of the two");
        }
        host(body).network_mode = Some(first.clone());
    }
    Ok(networks)
}

/// Hostile text for a message: escaped, and at most 80 characters.
fn shown(text: &str) -> String {
    text.escape_debug().take(80).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use runtide_core::{
        Protocol,
        manager::{Mount as CoreMount, NetworkId, VolumeId},
    };
    use serde_json::json;

    use super::*;

    fn spec() -> InstanceSpec {
        InstanceSpec::of_image("busybox:1")
    }

    fn body(spec: &InstanceSpec) -> serde_json::Value {
        serde_json::to_value(Request::new(spec).unwrap().body).unwrap()
    }

    fn refused(spoil: impl FnOnce(&mut InstanceSpec)) -> &'static str {
        let mut spec = spec();
        spoil(&mut spec);
        Request::new(&spec).unwrap_err().field
    }

    #[test]
    fn an_empty_spec_asks_for_the_images_defaults() {
        let policy = json!({"RestartPolicy": {"Name": "no"}});
        assert_eq!(body(&spec()), json!({"Image": "busybox:1", "HostConfig": policy}));
    }

    #[test]
    fn an_empty_entry_point_clears_and_an_empty_command_does_not() {
        let mut spec = spec();
        spec.entrypoint = Some(vec![]);
        let body = body(&spec);
        assert_eq!(body["Entrypoint"], json!([]));
        assert_eq!(body.get("Cmd"), None);
    }

    #[test]
    fn ports_keep_every_protocol_and_address() {
        let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
        let mut spec = spec();
        spec.ports = vec![
            port(53, Protocol::Udp)
                .published_at("0.0.0.0:53".parse().unwrap())
                .published_at("[::1]:0".parse().unwrap()),
            port(53, Protocol::Tcp),
            port(53, Protocol::Udp).published_at("127.0.0.2:53".parse().unwrap()),
            port(9, Protocol::Sctp),
        ];
        let body = body(&spec);
        assert_eq!(body["ExposedPorts"], json!({"53/udp": {}, "53/tcp": {}, "9/sctp": {}}));
        let bindings = json!({"53/udp": [
            {"HostIp": "0.0.0.0", "HostPort": "53"}, {"HostIp": "::1", "HostPort": ""}, {"HostIp": "127.0.0.2", "HostPort": "53"},
        ]});
        assert_eq!(body["HostConfig"]["PortBindings"], bindings);
    }

    #[test]
    fn counts_with_another_meaning_to_the_daemon_are_translated() {
        let policy = |restart| {
            let mut spec = spec();
            spec.restart = restart;
            body(&spec)["HostConfig"]["RestartPolicy"].clone()
        };
        assert_eq!(
            policy(Restart::OnFailure { attempts: Some(0) }),
            json!({"Name": "no"}),
            "0 is without a limit to Docker"
        );
        assert_eq!(policy(Restart::OnFailure { attempts: None }), json!({"Name": "on-failure"}));
        assert_eq!(
            policy(Restart::OnFailure { attempts: Some(3) }),
            json!({"Name": "on-failure", "MaximumRetryCount": 3})
        );
        assert_eq!(policy(Restart::UnlessStopped), json!({"Name": "unless-stopped"}));
        let mut spec = spec();
        (spec.stop_timeout, spec.stop_signal) = (Some(Duration::from_nanos(1)), "RTMIN+16".parse().ok());
        spec.milli_cpus = std::num::NonZeroU32::new(1);
        let body = body(&spec);
        assert_eq!((&body["StopTimeout"], &body["StopSignal"]), (&json!(1), &json!("50")));
        assert_eq!(body["HostConfig"]["NanoCpus"], 1_000_000);
    }

    #[test]
    fn networks_are_joined_at_once_or_one_after_the_other() {
        let mut spec = spec();
        spec.networks = ["a", "b", "a", "c"].map(NetworkId::from).to_vec();
        let mut request = Request::new(&spec).unwrap();
        assert_eq!(request.networks, ["a", "b", "c"]);
        assert_eq!(request.clone().join(true), Vec::<String>::new());
        assert_eq!(request.join(false), ["b", "c"]);
        let body = serde_json::to_value(&request.body).unwrap();
        assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {"a": {}}}));
        assert_eq!(body["HostConfig"]["NetworkMode"], "a");

        spec.networks = vec![NetworkId::from("host")];
        let mut request = Request::new(&spec).unwrap();
        assert_eq!(request.join(true), Vec::<String>::new());
        assert_eq!(request.body.networking_config, None);
    }

    #[test]
    fn hostile_words_are_refused() {
        for name in ["", "a", "../a", "-ab", "a b", "a/b", "a\0b", "é2"] {
            assert_eq!(refused(|spec| spec.name = Some(name.to_owned())), "name", "{name}");
        }
        for image in ["", "a b", "a\nb", "é"] {
            assert_eq!(refused(|spec| spec.image = Some(image.into())), "image");
        }
        for key in ["", "A=B", "A\0"] {
            assert_eq!(refused(|spec| drop(spec.env.insert(key.to_owned(), String::new()))), "env");
        }
        assert_eq!(refused(|spec| drop(spec.env.insert("A".to_owned(), "\0".to_owned()))), "env");
        assert_eq!(refused(|spec| spec.command = vec!["a\0".to_owned()]), "command");
        assert_eq!(refused(|spec| spec.entrypoint = Some(vec!["a\0".to_owned()])), "entrypoint");
        assert_eq!(refused(|spec| spec.working_dir = Some("relative".to_owned())), "working_dir");
        assert_eq!(refused(|spec| spec.user = Some(String::new())), "user");
        assert_eq!(refused(|spec| spec.stop_timeout = Some(Duration::MAX)), "stop_timeout");
        assert_eq!(refused(|spec| spec.memory_bytes = std::num::NonZeroU64::new(u64::MAX)), "memory_bytes");
        for networks in [&["../a"][..], &["host", "a"], &[""]] {
            assert_eq!(
                refused(|spec| spec.networks = networks.iter().copied().map(NetworkId::from).collect()),
                "networks"
            );
        }
        let both = |spec: &mut InstanceSpec| {
            spec.networks = vec![NetworkId::from("a")];
            spec.native.insert("network_mode".to_owned(), "host".to_owned());
        };
        assert_eq!(refused(both), "networks");
    }

    #[test]
    fn impossible_mounts_are_refused() {
        #[cfg(unix)]
        let bytes = std::path::PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff"));
        #[cfg(not(unix))]
        let bytes = std::path::PathBuf::from("relative");
        let mounts = [
            CoreMount::new(MountSource::Tmpfs, "relative"),
            CoreMount::new(MountSource::Tmpfs, "/"),
            CoreMount::new(MountSource::Tmpfs, "/a/../b"),
            CoreMount::new(MountSource::Tmpfs, bytes.clone()),
            CoreMount::new(MountSource::Bind(bytes), "/a"),
            CoreMount::new(MountSource::Bind("relative".into()), "/a"),
            CoreMount::new(MountSource::Volume(VolumeId::from("../v")), "/a"),
        ];
        for mount in mounts {
            assert_eq!(refused(|spec| spec.mounts = vec![mount.clone()]), "mounts", "{mount:?}");
        }
        let twice = CoreMount::new(MountSource::Tmpfs, "/a");
        assert_eq!(refused(|spec| spec.mounts = vec![twice.clone(), twice]), "mounts");
    }
}
