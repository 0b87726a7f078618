//! Pods as the server shows them, read without the code under test.

use runtide_core::{Address, ExitStatus, Health, Instance, InstanceKind, InstanceState, Labels};
use serde_json::Value;

/// A pod of this harness: one container, whose state the harness wrote. Fields that are not read here stay unknown.
pub(crate) fn instance(backend: &str, pod: &Value) -> Option<Instance> {
    let (meta, status) = (&pod["metadata"], &pod["status"]);
    let container = &status["containerStatuses"][0];
    let (running, ended) = (&container["state"]["running"], &container["state"]["terminated"]);
    let is_deleted = meta["deletionTimestamp"].is_string();
    let state = if running.is_object() {
        if is_deleted { InstanceState::Stopping } else { InstanceState::Running }
    } else if ended.is_object() {
        match (is_deleted || pod["spec"]["restartPolicy"] == "Never", ended["exitCode"].as_i64()) {
            (false, _) => InstanceState::Restarting,
            (true, Some(0)) => InstanceState::Stopped,
            (true, _) => InstanceState::Failed,
        }
    } else if is_deleted {
        InstanceState::Created
    } else {
        InstanceState::Starting
    };
    let uid = meta["uid"].as_str()?;
    let mut instance = Instance::new(backend, uid, meta["name"].as_str()?, InstanceKind::Pod, state);
    let restarts = container["restartCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    instance.restarts = Some(restarts);
    instance.incarnation = Some(format!("{uid}/{restarts}").as_str().into());
    if ended.is_object() {
        let code = ended["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok())?;
        let exit = ExitStatus::code(code);
        instance.exit = Some(if ended["reason"] == "OOMKilled" { exit.with_oom_killed(true) } else { exit });
    }
    instance.image = pod["spec"]["containers"][0]["image"].as_str().map(Into::into);
    instance.node = pod["spec"]["nodeName"].as_str().map(str::to_owned);
    let labels = meta["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    instance.labels = Some(labels.collect::<Labels>());
    if state.is_alive() {
        let ips = status["podIPs"].as_array().into_iter().flatten();
        let mut addresses: Vec<_> =
            ips.filter_map(|one| Some(Address::new(one["ip"].as_str()?.parse().ok()?, None))).collect();
        addresses.sort();
        instance.addresses = Some(addresses);
    }
    if state == InstanceState::Running && pod["spec"]["containers"][0]["readinessProbe"].is_object() {
        instance.health = Some(if container["ready"] == true { Health::Healthy } else { Health::Unhealthy });
    }
    Some(instance)
}
