//! Which runtime to use: the one that was asked for, or what answers on this machine.

use std::{
    future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{Error, ErrorKind, RuntimeBackend, RuntimeKind};
use runtide_docker::{Candidate, Config, Detection, DockerBackend, Endpoint, Origin, Outcome};
use runtide_memory::{MemoryBackend, MemoryRuntime, RuntimeOptions};
use runtide_systemd::SystemdBackend;

use crate::{Choice, Place, Stop, note, stop::describe, systemd};

/// For whoever is asked whether they are there.
const DEADLINE: Duration = Duration::from_secs(3);

/// Of the scripted life.
const SEED: u64 = 7;

/// The backend that `--backend`, `--host`, `--bus` and `--root` ask for.
///
/// A watch would wait for a daemon that is not up yet. Somebody who tries an example wants to know at once, so what is
/// asked for by name must answer.
///
/// # Errors
/// `Refused`, with what to do.
pub async fn choose(place: &Place) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    if let Some(option) = place.systemd.told() {
        return match (&place.backend, &place.host) {
            (_, Some(_)) => Err(Stop::refused(format_args!("{option} is for systemd, and --host for docker"))),
            (Choice::Auto | Choice::Kind(RuntimeKind::Systemd), None) => systemd(place).await,
            (Choice::Kind(kind), None) => Err(Stop::refused(format_args!("{option} is for systemd, not for {kind}"))),
        };
    }
    match (&place.backend, &place.host) {
        (Choice::Auto | Choice::Kind(RuntimeKind::Docker), Some(host)) => {
            let endpoint: Endpoint = host.parse()?;
            docker(Config::default().with_endpoint(endpoint), place).await
        }
        (Choice::Kind(kind), Some(_)) => Err(Stop::refused(format_args!("--host is for docker, not for {kind}"))),
        (Choice::Kind(RuntimeKind::Docker), None) => match find(place).await {
            Detection { chosen: Some(config), .. } => docker(config, place).await,
            Detection { candidates, .. } => Err(Stop::refused(nobody(&candidates))),
        },
        (Choice::Kind(RuntimeKind::Memory), None) => memory(),
        (Choice::Kind(RuntimeKind::Systemd), None) => systemd(place).await,
        (Choice::Kind(kind), None) => {
            Err(Stop::refused(format_args!("this build has no backend for {kind}; it has memory, docker and systemd")))
        }
        (Choice::Auto, None) => match find(place).await {
            Detection { chosen: Some(config), .. } => docker(config, place).await,
            Detection { candidates, .. } => {
                let telling = |one: &&Candidate| !place.verbose && (is_named(one) || is_there(one));
                for candidate in candidates.iter().filter(telling) {
                    note(format_args!("not used: {candidate}"));
                }
                note("No runtime answers on this machine; this is the one in memory, with a scripted life.");
                memory()
            }
        },
    }
}

async fn find(place: &Place) -> Detection {
    let found = runtide_docker::detect(DEADLINE).await;
    if place.verbose {
        for candidate in &found.candidates {
            note(format_args!("asked: {candidate}"));
        }
    }
    found
}

async fn docker(config: Config, place: &Place) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let endpoint = config.endpoint.clone();
    let backend = DockerBackend::new(config)?;
    let refused =
        |error: &Error| Stop::refused(format_args!("{endpoint}: {}{}", describe(error), advice(error.kind())));
    answering(&backend, place).await.map_err(|error| refused(&error))?;
    Ok(Arc::new(backend))
}

async fn systemd(place: &Place) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let config = place.systemd.config()?;
    let backend = SystemdBackend::new(config.clone())?;
    answering(&backend, place).await.map_err(|error| systemd::refusal(&config, &error))?;
    Ok(Arc::new(backend))
}

/// Whether it answers in time.
async fn answering(backend: &dyn RuntimeBackend, place: &Place) -> runtide_core::Result<()> {
    let answer = tokio::time::timeout(DEADLINE, backend.connect()).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "example.connect", format!("no answer within {DEADLINE:?}")))
    });
    let info = answer?;
    if place.verbose {
        let api = info.api_version.map(|api| format!(", API {api}")).unwrap_or_default();
        note(format_args!("{}: {} {}{api}, at {}", info.backend, info.kind, info.version, info.endpoint));
    }
    Ok(())
}

/// A life that begins with this process, the same each time, and ends with it.
fn memory() -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Ids of its own: for a journal, the runtime of the last process was another one.
    let options = RuntimeOptions::default().with_facts(10_000_usize).with_seed(began.as_secs() % 1_000_000 + 1);
    let life = MemoryRuntime::with_options(options).live_by_script(SEED);
    let backend = MemoryBackend::new(runtide_memory::Config::default(), life.runtime().clone())?;
    tokio::spawn(async move {
        let _lives = life;
        future::pending::<()>().await;
    });
    Ok(Arc::new(backend))
}

/// What to do about it. A denied socket says so itself.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            "; start the daemon, or say where it listens with --host or DOCKER_HOST"
        }
        ErrorKind::Unauthenticated => "; set DOCKER_CERT_PATH to the folder with this client's certificate",
        _ => "",
    }
}

/// Why nobody was chosen, by the one whose answer helps most: who was named, or else who is there and refused.
fn nobody(candidates: &[Candidate]) -> String {
    let named = candidates.iter().find(|one| is_named(one));
    match named.or_else(|| candidates.iter().find(|one| is_there(one))) {
        Some(one) => format!("{one}{}", advice(failed(one).unwrap_or(ErrorKind::Unavailable))),
        None => format!(
            "no Docker daemon answers in any of the {} places where one may listen (-v lists them){}",
            candidates.len(),
            advice(ErrorKind::Unavailable)
        ),
    }
}

/// Whether the user named it.
fn is_named(candidate: &Candidate) -> bool {
    matches!(candidate.origin, Origin::Environment | Origin::Context)
}

/// Whether something is there that did not let us in or did not make sense.
fn is_there(candidate: &Candidate) -> bool {
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

    fn place(backend: &str, host: Option<&str>) -> Place {
        Place { backend: backend.parse().unwrap(), host: host.map(str::to_owned), ..Place::default() }
    }

    async fn refusal(place: Place) -> String {
        match choose(&place).await {
            Err(Stop::Refused(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn memory_is_always_there() {
        let backend = choose(&place("memory", None)).await.unwrap();
        assert_eq!(backend.kind(), RuntimeKind::Memory);
        assert!(!backend.list_instances(runtide_core::ListOptions::default()).await.unwrap().instances.is_empty());
    }

    #[tokio::test]
    async fn a_runtime_without_a_backend_in_this_build_is_refused() {
        assert!(refusal(place("k8s", None)).await.contains("no backend for kubernetes"));
        assert!(refusal(place("memory", Some("unix:///x"))).await.contains("--host is for docker"));
    }

    #[tokio::test]
    async fn a_daemon_that_is_asked_for_must_answer() {
        for backend in ["auto", "docker"] {
            let line = refusal(place(backend, Some("unix:///nonexistent/docker.sock"))).await;
            assert!(line.contains("unix:///nonexistent/docker.sock") && line.contains("--host"), "{line}");
        }
        assert!(refusal(place("docker", Some("ssh://host"))).await.contains("ssh"));
    }

    #[tokio::test]
    async fn a_systemd_that_is_asked_for_must_answer() {
        let bus = |backend, bus: &str| {
            let systemd = crate::Systemd { bus: Some(bus.to_owned()), root: None };
            Place { systemd, ..place(backend, None) }
        };
        for backend in ["auto", "systemd"] {
            let line = refusal(bus(backend, "unix:path=/nonexistent/bus")).await;
            assert!(line.contains("unix:path=/nonexistent/bus") && line.contains("--bus"), "{line}");
        }
        assert!(refusal(bus("docker", "unix:path=/x")).await.contains("--bus is for systemd, not for docker"));
        assert!(refusal(bus("systemd", "autolaunch:")).await.contains("autolaunch"));
        let both = Place { host: Some("unix:///x".to_owned()), ..bus("auto", "unix:path=/x") };
        assert!(refusal(both).await.contains("--host for docker"));
    }
}
