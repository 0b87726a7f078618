//! The choice of a runtime: the requested one, or one that answers on this machine.

use std::{future, sync::Arc, time::Duration};

use runtide_core::{Error, ErrorKind, RuntimeBackend, RuntimeKind};
use runtide_docker::{Candidate, Config, Detection, DockerBackend, Endpoint, Origin, Outcome};
use runtide_memory::{MemoryBackend, MemoryRuntime, RuntimeOptions};
use runtide_podman::PodmanBackend;
use runtide_systemd::SystemdBackend;

use crate::{Choice, Stop, Target, note, stop::describe, systemd};

/// Deadline of a runtime's answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Seed of the scripted runtime.
const SEED: u64 = 7;

/// The backend that `--backend`, `--host`, `--bus` and `--root` ask for, or the Docker daemon that answers on this machine.
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
            advice(ErrorKind::Unavailable)
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
            let endpoint: Endpoint = host.parse()?;
            docker(Config::default().with_endpoint(endpoint), target).await.map(Some)
        }
        (Choice::Kind(RuntimeKind::Podman), host) => podman(host.as_deref(), target).await.map(Some),
        (Choice::Kind(kind), Some(_)) => {
            Err(Stop::refused(format_args!("--host is for docker and podman, not for {kind}")))
        }
        (Choice::Kind(RuntimeKind::Docker), None) => match find(target).await {
            Detection { chosen: Some(config), .. } => docker(config, target).await.map(Some),
            Detection { candidates, .. } => Err(Stop::refused(refusal_of(&candidates).unwrap_or_else(|| {
                format!(
                    "no Docker daemon answers at any of the {} addresses where one may listen (-v lists them){}",
                    candidates.len(),
                    advice(ErrorKind::Unavailable)
                )
            }))),
        },
        (Choice::Kind(RuntimeKind::Memory), None) => memory().map(Some),
        (Choice::Kind(RuntimeKind::Systemd), None) => systemd(target).await.map(Some),
        (Choice::Kind(kind), None) => Err(Stop::refused(format_args!(
            "this build has no backend for {kind}; it has {}",
            Choice::KINDS.join(", ")
        ))),
        (Choice::Auto, None) => match find(target).await {
            Detection { chosen: Some(config), .. } => docker(config, target).await.map(Some),
            Detection { candidates, .. } => refusal_of(&candidates).map_or(Ok(None), |line| Err(Stop::refused(line))),
        },
    }
}

async fn find(target: &Target) -> Detection {
    let found = runtide_docker::detect(DEADLINE).await;
    if target.verbose {
        for candidate in &found.candidates {
            note(format_args!("asked: {candidate}"));
        }
    }
    found
}

async fn docker(config: Config, target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let endpoint = config.endpoint.clone();
    let backend = DockerBackend::new(config)?;
    let refused =
        |error: &Error| Stop::refused(format_args!("{endpoint}: {}{}", describe(error), advice(error.kind())));
    answering(&backend, target).await.map_err(|error| refused(&error))?;
    Ok(Arc::new(backend))
}

async fn podman(host: Option<&str>, target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let config = match host {
        Some(host) => {
            let endpoint: runtide_podman::Endpoint = host.parse()?;
            runtide_podman::Config::default().with_endpoint(endpoint)
        }
        None => runtide_podman::Config::from_env()?,
    };
    let endpoint = config.endpoint.clone();
    let backend = PodmanBackend::new(config)?;
    let refused = |error: &Error| {
        let advice = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => {
                "; start the service (systemctl --user start podman.socket), or name its address with --host or CONTAINER_HOST"
            }
            _ => "",
        };
        Stop::refused(format_args!("{endpoint}: {}{advice}", describe(error)))
    };
    answering(&backend, target).await.map_err(|error| refused(&error))?;
    Ok(Arc::new(backend))
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
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            "; start the daemon, or name its address with --host or DOCKER_HOST"
        }
        ErrorKind::Unauthenticated => "; set DOCKER_CERT_PATH to the folder with this client's certificate",
        _ => "",
    }
}

/// The refusal of the candidate that helps most: a named one, or else one that is present and refused. Neither is replaced by
/// another runtime, least of all by an invented one. `None`: no daemon was named, and none is present.
fn refusal_of(candidates: &[Candidate]) -> Option<String> {
    let named = candidates.iter().find(|one| is_named(one));
    let one = named.or_else(|| candidates.iter().find(|one| is_present(one)))?;
    Some(format!("{one}{}", advice(failed(one).unwrap_or(ErrorKind::Unavailable))))
}

/// The user named this candidate.
fn is_named(candidate: &Candidate) -> bool {
    matches!(candidate.origin, Origin::Environment | Origin::Context)
}

/// A server is present that refused the request, or whose answer was invalid.
fn is_present(candidate: &Candidate) -> bool {
    failed(candidate).is_some_and(|kind| kind != ErrorKind::Unavailable)
}

fn failed(candidate: &Candidate) -> Option<ErrorKind> {
    match &candidate.outcome {
        Outcome::Failed(failure) => Some(failure.kind),
        _ => None,
    }
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
        assert!(refusal(target("k8s", None)).await.contains("no backend for kubernetes"));
        assert!(refusal(target("memory", Some("unix:///x"))).await.contains("--host is for docker"));
    }

    #[tokio::test]
    async fn a_requested_daemon_must_answer() {
        for backend in ["auto", "docker"] {
            let line = refusal(target(backend, Some("unix:///nonexistent/docker.sock"))).await;
            assert!(line.contains("unix:///nonexistent/docker.sock") && line.contains("--host"), "{line}");
        }
        assert!(refusal(target("docker", Some("ssh://host"))).await.contains("ssh"));
        let line = refusal(target("podman", Some("unix:///nonexistent/podman.sock"))).await;
        assert!(line.contains("unix:///nonexistent/podman.sock") && line.contains("CONTAINER_HOST"), "{line}");
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
