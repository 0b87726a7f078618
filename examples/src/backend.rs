//! The choice of a runtime: the requested one, or one that answers on this machine.

use std::{future, sync::Arc, time::Duration};

use runtide_core::{Error, ErrorKind, RuntimeBackend, RuntimeKind};
use runtide_docker::{DockerBackend, Endpoint};
use runtide_memory::{MemoryBackend, MemoryRuntime, RuntimeOptions};
use runtide_podman::PodmanBackend;
use runtide_systemd::SystemdBackend;

#[cfg(feature = "k8s")]
use crate::k8s;
use crate::{
    Choice, Stop, Target,
    engine::{self, Engine, Found},
    note,
    stop::describe,
    systemd,
};

/// Deadline of a runtime's answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The variables that name an engine's address.
const DOCKER_HOST: &str = "DOCKER_HOST";
const CONTAINER_HOST: &str = "CONTAINER_HOST";

/// Seed of the scripted runtime.
const SEED: u64 = 7;

/// The backend that `--backend`, `--host`, `--bus` and `--root` ask for, or the Docker or Podman that answers on this machine.
///
/// A watch would wait for a daemon that is not up yet. The user of an example wants to know at once, so a runtime must answer.
///
/// # Errors
/// `Refused`, with advice.
pub async fn choose(target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    match requested(target).await? {
        Some(backend) => Ok(backend),
        None => Err(Stop::refused(format_args!(
            "no runtime answers on this machine (-v lists the addresses that were asked){}, or see --backend memory",
            advice(ErrorKind::Unavailable, DOCKER_HOST)
        ))),
    }
}

/// As [`choose`]; where no runtime was named and none answers, the one in memory, which follows a script.
///
/// # Errors
/// As [`choose`].
pub async fn choose_or_script(target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    if let Some(backend) = requested(target).await? {
        return Ok(backend);
    }
    note("No runtime answers here: this is one in memory, with scripted events.");
    memory()
}

/// `None`: no runtime was named, and none answers.
async fn requested(target: &Target) -> Result<Option<Arc<dyn RuntimeBackend>>, Stop> {
    if let Some(option) = target.systemd.first_given() {
        return match (&target.backend, &target.host) {
            (_, Some(_)) => Err(Stop::refused(format_args!("{option} is for systemd, and --host for docker"))),
            (Choice::Auto | Choice::Kind(RuntimeKind::Systemd), None) => systemd(target).await.map(Some),
            (Choice::Kind(kind), None) => Err(Stop::refused(format_args!("{option} is for systemd, not for {kind}"))),
        };
    }
    match (&target.backend, &target.host) {
        (Choice::Auto | Choice::Kind(RuntimeKind::Docker), Some(host)) => {
            let config = runtide_docker::Config::default().with_endpoint(host.parse::<Endpoint>()?);
            engine(Engine::Docker(config), target).await.map(Some)
        }
        (Choice::Kind(RuntimeKind::Podman), Some(host)) => {
            let config = runtide_podman::Config::default().with_endpoint(host.parse::<Endpoint>()?);
            engine(Engine::Podman(config), target).await.map(Some)
        }
        (Choice::Kind(kind), Some(_)) => {
            Err(Stop::refused(format_args!("--host is for docker and podman, not for {kind}")))
        }
        (Choice::Kind(RuntimeKind::Docker), None) => {
            only(engine::docker(target.verbose).await, "Docker daemon", DOCKER_HOST, target).await.map(Some)
        }
        (Choice::Kind(RuntimeKind::Podman), None) => {
            only(engine::podman(target.verbose).await, "Podman service", CONTAINER_HOST, target).await.map(Some)
        }
        (Choice::Kind(RuntimeKind::Memory), None) => memory().map(Some),
        (Choice::Kind(RuntimeKind::Systemd), None) => systemd(target).await.map(Some),
        #[cfg(feature = "k8s")]
        (Choice::Kind(RuntimeKind::Kubernetes), None) => k8s::named(target).await.map(Some),
        (Choice::Kind(kind), None) => {
            let feature =
                if *kind == RuntimeKind::Kubernetes { "; with the feature `k8s` it has that, too" } else { "" };
            let kinds = Choice::KINDS.join(", ");
            Err(Stop::refused(format_args!("this build has no backend for {kind}; it has {kinds}{feature}")))
        }
        (Choice::Auto, None) => {
            let found = engine::either(target.verbose).await;
            let refusal = refusal_of(&found, DOCKER_HOST);
            match found.chosen {
                Some(chosen) => engine(chosen, target).await.map(Some),
                None => match refusal {
                    Some(line) => Err(Stop::refused(line)),
                    #[cfg(feature = "k8s")]
                    None => k8s::any(target).await,
                    #[cfg(not(feature = "k8s"))]
                    None => Ok(None),
                },
            }
        }
    }
}

/// The backend of an engine, once it answers.
async fn engine(engine: Engine, target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let (backend, endpoint, variable): (Arc<dyn RuntimeBackend>, _, _) = match engine {
        Engine::Docker(config) => {
            let endpoint = config.endpoint.clone();
            (Arc::new(DockerBackend::new(config)?), endpoint, DOCKER_HOST)
        }
        Engine::Podman(config) => {
            let endpoint = config.endpoint.clone();
            (Arc::new(PodmanBackend::new(config)?), endpoint, CONTAINER_HOST)
        }
    };
    answering(&*backend, target).await.map_err(|error| {
        Stop::refused(format_args!("{endpoint}: {}{}", describe(&error), advice(error.kind(), variable)))
    })?;
    Ok(backend)
}

/// The only engine of its kind, or the refusal.
async fn only(found: Found, name: &str, variable: &str, target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let refusal = refusal_of(&found, variable);
    match found.chosen {
        Some(chosen) => engine(chosen, target).await,
        None => Err(Stop::refused(refusal.unwrap_or_else(|| {
            format!(
                "no {name} answers at any of the {} addresses where one may listen (-v lists them){}",
                found.len(),
                advice(ErrorKind::Unavailable, variable)
            )
        }))),
    }
}

async fn systemd(target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let config = target.systemd.config()?;
    let backend = SystemdBackend::new(config.clone())?;
    answering(&backend, target).await.map_err(|error| systemd::refusal(&config, &error))?;
    Ok(Arc::new(backend))
}

/// Checks that it answers in time.
async fn answering(backend: &dyn RuntimeBackend, target: &Target) -> runtide_core::Result<()> {
    let answer = tokio::time::timeout(DEADLINE, backend.connect()).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "example.connect", format!("no answer within {DEADLINE:?}")))
    });
    let info = answer?;
    if target.verbose {
        let api = info.api_version.map(|api| format!(", API {api}")).unwrap_or_default();
        note(format_args!("{}: {} {}{api}, at {}", info.backend, info.kind, info.version, info.endpoint));
    }
    Ok(())
}

/// A scripted runtime that begins and ends with this process; its script is the same each time.
fn memory() -> Result<Arc<dyn RuntimeBackend>, Stop> {
    // Without a seed each process has its own ids: for a journal, the runtime of the last process was another one.
    let runtime = MemoryRuntime::with_options(RuntimeOptions::default().with_facts(10_000_usize));
    let script = runtime.run_script(SEED);
    let backend = MemoryBackend::new(runtide_memory::Config::default(), script.runtime().clone())?;
    tokio::spawn(async move {
        let _script = script;
        future::pending::<()>().await;
    });
    Ok(Arc::new(backend))
}

/// Advice for an error. A denied socket has its own in the message.
fn advice(kind: ErrorKind, variable: &str) -> String {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            format!("; start the daemon, or name its address with --host or {variable}")
        }
        ErrorKind::Unauthenticated if variable == DOCKER_HOST => {
            "; set DOCKER_CERT_PATH to the folder with this client's certificate".to_owned()
        }
        _ => String::new(),
    }
}

fn refusal_of(found: &Found, variable: &str) -> Option<String> {
    found.refusal().map(|(line, kind)| format!("{line}{}", advice(kind, variable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(backend: &str, host: Option<&str>) -> Target {
        Target { backend: backend.parse().unwrap(), host: host.map(str::to_owned), ..Target::default() }
    }

    async fn refusal(target: Target) -> String {
        match choose(&target).await {
            Err(Stop::Refused(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn memory_is_always_available() {
        let backend = choose(&target("memory", None)).await.unwrap();
        assert_eq!(backend.kind(), RuntimeKind::Memory);
        assert!(!backend.list_instances(runtide_core::ListOptions::default()).await.unwrap().instances.is_empty());
    }

    #[tokio::test]
    async fn a_runtime_without_a_backend_in_this_build_is_refused() {
        assert!(refusal(target("proxmox", None)).await.contains("no backend for proxmox"));
        #[cfg(not(feature = "k8s"))]
        {
            let line = refusal(target("k8s", None)).await;
            assert!(line.contains("no backend for kubernetes") && line.contains("feature `k8s`"), "{line}");
        }
        assert!(refusal(target("memory", Some("unix:///x"))).await.contains("--host is for docker"));
    }

    #[tokio::test]
    async fn a_requested_daemon_must_answer() {
        for backend in ["auto", "docker"] {
            let line = refusal(target(backend, Some("unix:///nonexistent/docker.sock"))).await;
            assert!(line.contains("unix:///nonexistent/docker.sock") && line.contains("--host"), "{line}");
        }
        let line = refusal(target("podman", Some("unix:///nonexistent/podman.sock"))).await;
        assert!(line.contains("unix:///nonexistent/podman.sock") && line.contains("CONTAINER_HOST"), "{line}");
        assert!(refusal(target("docker", Some("ssh://host"))).await.contains("ssh"));
    }

    #[tokio::test]
    async fn a_requested_systemd_must_answer() {
        let bus = |backend, bus: &str| {
            let systemd = crate::Systemd { bus: Some(bus.to_owned()), root: None };
            Target { systemd, ..target(backend, None) }
        };
        for backend in ["auto", "systemd"] {
            let line = refusal(bus(backend, "unix:path=/nonexistent/bus")).await;
            assert!(line.contains("unix:path=/nonexistent/bus") && line.contains("--bus"), "{line}");
        }
        assert!(refusal(bus("docker", "unix:path=/x")).await.contains("--bus is for systemd, not for docker"));
        assert!(refusal(bus("systemd", "autolaunch:")).await.contains("autolaunch"));
        let both = Target { host: Some("unix:///x".to_owned()), ..bus("auto", "unix:path=/x") };
        assert!(refusal(both).await.contains("--host for docker"));
    }
}
