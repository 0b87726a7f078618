//! The Docker and the Podman of this machine: [`docker`], [`podman`], or [`either`] that answers.

use std::{fmt::Display, time::Duration};

use runtide_core::{ErrorKind, Failure, RuntimeKind};

use crate::note;

/// Deadline of an engine's answer: one on a busy machine takes seconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// The engine that answered, with its configuration.
#[derive(Debug)]
pub(crate) enum Engine {
    Docker(runtide_docker::Config),
    Podman(runtide_podman::Config),
}

/// The addresses that were asked, and the engine that is used.
#[derive(Debug)]
pub(crate) struct Found {
    asked: Vec<Asked>,
    /// The engine is another one than its address belongs to: a Podman behind Docker's socket.
    is_other: bool,
    pub(crate) chosen: Option<Engine>,
}

/// One address that was asked.
#[derive(Debug)]
struct Asked {
    line: String,
    /// The user named it.
    named: bool,
    failed: Option<ErrorKind>,
}

impl Asked {
    fn new(candidate: impl Display, named: bool, failure: Option<&Failure>) -> Self {
        Self { line: candidate.to_string(), named, failed: failure.map(|failure| failure.kind) }
    }

    /// A server is present that refused the request, or whose answer was invalid.
    fn is_present(&self) -> bool {
        self.failed.is_some_and(|kind| kind != ErrorKind::Unavailable)
    }
}

impl Found {
    fn is_named(&self) -> bool {
        self.asked.iter().any(|asked| asked.named)
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }

    /// The refusal of the address that helps most: a named one, or else one that is present and refused. Neither is replaced by
    /// another runtime, least of all by an invented one. `None`: no engine was named, and none is present.
    pub(crate) fn refusal(&self) -> Option<(&str, ErrorKind)> {
        let named = self.asked.iter().find(|asked| asked.named);
        let one = named.or_else(|| self.asked.iter().find(|asked| asked.is_present()))?;
        Some((&one.line, one.failed.unwrap_or(ErrorKind::Unavailable)))
    }

    fn noted(self, verbose: bool) -> Self {
        if verbose {
            self.asked.iter().for_each(|asked| note(format_args!("asked: {}", asked.line)));
        }
        self
    }
}

/// Asks every address of Docker.
pub(crate) async fn docker(verbose: bool) -> Found {
    use runtide_docker::{Origin, Outcome};
    let found = runtide_docker::detect(DEADLINE).await;
    let asked = found.candidates.iter().map(|one| {
        let failure = if let Outcome::Failed(failure) = &one.outcome { Some(failure) } else { None };
        Asked::new(one, matches!(one.origin, Origin::Environment | Origin::Context), failure)
    });
    let chosen = found.chosen.as_ref().map(|config| &config.endpoint);
    let is_other = found.candidates.iter().any(|one| {
        let is_podman = matches!(&one.outcome, Outcome::Answered { kind: RuntimeKind::Podman, .. });
        is_podman && one.endpoint.as_ref() == chosen
    });
    Found { asked: asked.collect(), is_other, chosen: found.chosen.map(Engine::Docker) }.noted(verbose)
}

/// Asks every address of Podman.
pub(crate) async fn podman(verbose: bool) -> Found {
    use runtide_podman::Outcome;
    let found = runtide_podman::detect(DEADLINE).await;
    let asked = found.candidates.iter().map(|one| {
        let failure = if let Outcome::Failed(failure) = &one.outcome { Some(failure) } else { None };
        Asked::new(one, one.origin.is_named(), failure)
    });
    Found { asked: asked.collect(), is_other: false, chosen: found.chosen.map(Engine::Podman) }.noted(verbose)
}

/// Asks every address of both. The one that the user named goes first, then a Docker, then a Podman, on its own API where it has that.
pub(crate) async fn either(verbose: bool) -> Found {
    let (docker, podman) = tokio::join!(docker(verbose), podman(verbose));
    if docker.is_named() || docker.chosen.is_some() && !docker.is_other && !podman.is_named() {
        return docker;
    }
    if podman.is_named() || podman.chosen.is_some() {
        return podman;
    }
    let (mut asked, others) = (docker.asked, podman.asked);
    asked.extend(others);
    Found { asked, ..docker }
}
