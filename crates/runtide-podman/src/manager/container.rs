//! [`Call`]: one call on one container, with its checked id, its deadline and the container's inspection.

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use runtide_core::{Error, ErrorKind, ExitStatus, InstanceId, Result, manager::Effect};
use runtide_engine::{Request, is_named, lenient, log_left_out};
use serde::Deserialize;

pub(crate) use runtide_engine::is_name;

use super::network::{Endpoint, Endpoints};
use crate::{
    client::{Client, is_answer, is_status},
    normalize::{self, time},
};

/// One call under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) client: &'a Client,
    pub(super) operation: &'static str,
    pub(super) id: &'a str,
}

impl<'a> Call<'a> {
    /// Refuses an id that could be more than an id, since it becomes a part of a path.
    pub(super) fn on(client: &'a Client, operation: &'static str, id: &'a InstanceId) -> Result<Self> {
        let id = id.as_str();
        if !is_name(id) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                operation,
                "not the id or name of a container: expected letters, digits, '_', '.', '-', the first a letter or digit",
            )
            .with_context("backend", client.id())
            .with_context("instance", id.escape_debug()));
        }
        Ok(Self { client, operation, id })
    }

    /// Runs a verb within the client's deadline.
    pub(super) fn bounded<T>(self, verb: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        self.within(self.client.deadline(), verb)
    }

    /// Runs a verb within `limit`.
    pub(super) fn within<T>(
        self,
        limit: Duration,
        verb: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        let site = self.client.site(self.operation);
        let verb = self.client.within(site, limit, async { Ok(verb.await) });
        async move { verb.await.map_err(|error| self.located(error))? }
    }

    /// The path of something of this container's, as `start`.
    pub(super) fn path(self, verb: &str) -> String {
        format!("/containers/{}/{verb}", self.id)
    }

    /// Sends a request, which may take as long as the verb around it.
    pub(super) async fn send(self, request: Request) -> Result<Bytes> {
        let sent = Box::pin(self.client.call(self.operation, request, Duration::MAX));
        sent.await.map_err(|error| self.located(self.refused(error)))
    }

    /// Podman answers 500 where the container's state forbids the verb at the moment at which it is carried out (trap P15). An inspection
    /// afterwards need not show that state any more.
    fn refused(self, error: Error) -> Error {
        const FORBIDDEN: &str = "container state improper";
        if !is_status(&error, "500") || !error.message().ends_with(FORBIDDEN) {
            return error;
        }
        self.error(ErrorKind::Conflict, error.message()).with_context("status", "500")
    }

    /// The container with this very id or name, inspected now. A pod's infra container is refused.
    pub(super) async fn inspect(self) -> Result<Container> {
        let container = self.find().await?;
        if container.is_infra {
            let why = "this container holds a pod together, and is no instance: its verbs are the pod's";
            return Err(self.error(ErrorKind::NotFound, why).with_context("pod", container.pod));
        }
        Ok(container)
    }

    /// The same, also an infra container.
    async fn find(self) -> Result<Container> {
        let inspected = self.client.call(self.operation, Request::get(self.path("json")), self.client.deadline());
        let missing = || self.error(ErrorKind::NotFound, "there is no such container");
        let bytes = Box::pin(inspected).await.map_err(|error| match error.message() {
            // The beginnings of two ids.
            message if message.contains("more than one result") => missing(),
            _ => self.located(error),
        })?;
        let (container, left_out): (Container, _) =
            lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json)).map_err(|error| {
                self.error(ErrorKind::Protocol, "the container's description cannot be read").with_source(error)
            })?;
        log_left_out(self.client.id(), self.id, &left_out);
        if container.is_named(self.id) { Ok(container) } else { Err(missing()) }
    }

    /// The container, inspected now; `None` if the service reports that it does not exist.
    pub(super) async fn inspect_if_present(self) -> Result<Option<Container>> {
        match self.inspect().await {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same call, on the very container that was inspected: the words that it was given may be another's by now.
    pub(super) fn of<'b>(self, container: &'b Container) -> Call<'b>
    where
        'a: 'b,
    {
        Call { id: container.id_or(self.id), ..self }
    }

    pub(super) fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(Error::new(kind, self.operation, message).with_context("backend", self.client.id()))
    }

    pub(super) fn located(self, error: Error) -> Error {
        error.with_context("instance", self.id)
    }

    /// After a refusal: inspects whether the wanted state `holds` anyway. If it does not, the error is the service's own, or
    /// `Conflict` if the container's state explains the refusal (`forbids`).
    pub(super) async fn settle(
        self,
        refusal: Error,
        holds: impl FnOnce(&State) -> Option<Effect>,
        forbids: impl FnOnce(&State) -> bool,
    ) -> Result<Effect> {
        if !is_answer(&refusal) {
            return Err(refusal);
        }
        let container = self.inspect().await?;
        let state = &container.state;
        if let Some(effect) = holds(state) {
            return Ok(effect);
        }
        let error = if forbids(state) {
            self.error(ErrorKind::Conflict, refusal.message()).with_context("state", &state.status)
        } else {
            refusal
        };
        Err(container.named(error))
    }
}

/// `true` if a container has this very name, as far as the service shows it: one that it cannot inspect is left to its own refusal.
/// Podman's own answer is yes also for the beginning of an id.
pub(super) async fn is_taken(client: &Client, operation: &'static str, name: &str) -> Result<bool> {
    match (Call { client, operation, id: name }).find().await {
        Ok(container) => Ok(container.name == name),
        Err(error) if error.kind() == ErrorKind::NotFound || is_answer(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why a name is refused.
pub(super) const NO_NAME: &str =
    "is not a container's name: expected letters, digits, '_', '.', '-', the first a letter or digit";

/// The part of an inspection that the verbs need. Decoded leniently: one unknown word must not fail a verb.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    created: String,
    is_infra: bool,
    pod: String,
    pub(super) state: State,
    pub(super) config: Config,
    pub(super) host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: Option<Endpoints>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    pub(super) status: String,
    exit_code: Option<i32>,
    #[serde(rename = "OOMKilled")]
    oom_killed: Option<bool>,
    started_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Config {
    pub(super) tty: bool,
    pub(super) open_stdin: bool,
    labels: BTreeMap<String, String>,
    stop_timeout: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HostConfig {
    pub(super) auto_remove: bool,
    pub(super) log_config: LogConfig,
    pub(super) restart_policy: RestartPolicy,
    pub(super) network_mode: String,
    /// `disabled`: it has no control group.
    pub(super) cgroups: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RestartPolicy {
    name: String,
}

impl RestartPolicy {
    /// `true` if another run may begin by itself.
    pub(super) fn restarts(&self) -> bool {
        !matches!(self.name.as_str(), "" | "no")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LogConfig {
    #[serde(rename = "Type")]
    pub(super) driver: String,
}

impl State {
    /// A process of the container exists.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.status.as_str(), "running" | "paused" | "stopping")
    }

    pub(super) fn is_paused(&self) -> bool {
        self.status == "paused"
    }

    /// Identity of the present or last run: its start, which differs for every run. `None`: the container never ran.
    pub(super) fn incarnation(&self) -> Option<&str> {
        Some(self.started_at.as_str()).filter(|at| time(at).is_some())
    }

    /// Exit of the last run. One that was made ready for the next has none, though the code is 0.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        normalize::has_ended(&self.status).then_some(())?;
        normalize::exit(self.exit_code?, self.oom_killed)
    }
}

impl Container {
    /// `true` if this is the container that was asked for, and no other one by accident. One without an id is not told apart.
    fn is_named(&self, given: &str) -> bool {
        self.id.is_empty() || is_named(given, &self.id, &self.name)
    }

    /// Time that the container gets to end.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.config.stop_timeout.unwrap_or(10))
    }

    /// The container's side of the network with this name.
    pub(super) fn endpoint(&self, network: &str) -> Option<&Endpoint> {
        self.network_settings.networks.as_ref()?.get(network)?.as_ref()
    }

    /// The error, with the unit that runs the container.
    pub(super) fn named(&self, error: Error) -> Error {
        match normalize::unit_of(&self.config.labels) {
            Some(unit) => error.with_context("unit", unit),
            None => error,
        }
    }

    /// Its full id, which no rename changes; `given` where the description has none.
    pub(super) fn id_or<'a>(&'a self, given: &'a str) -> &'a str {
        if is_name(&self.id) { &self.id } else { given }
    }

    pub(super) fn created(&self) -> Option<SystemTime> {
        time(&self.created)
    }

    /// Begin of the present or last run.
    pub(super) fn began(&self) -> Option<SystemTime> {
        time(self.state.incarnation()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_paths() {
        for name in ["a", "0", "web-1.x_y", &"f".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        let hostile =
            ["", ".", "..", "../x", "a/b", "a?x=1", "a#b", "a%2f", "a b", "a\n", "a\0", "-a", "_a", "é", "a\u{202e}"];
        for name in hostile.into_iter().chain([&*"a".repeat(70_000)]) {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another_containers_id() {
        let cafe: Container = serde_json::from_str(r#"{"Id":"cafe0f6fd7d1aa00","Name":"web"}"#).unwrap();
        assert!(["web", "cafe0f6fd7d1aa00", "cafe0f6fd7d1"].into_iter().all(|given| cafe.is_named(given)));
        assert!(!["cafe", "cafe0f6fd7d", "we", "web1"].into_iter().any(|given| cafe.is_named(given)));
    }

    fn state(json: &str) -> State {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_code_counts_only_of_a_run_that_is_over() {
        let of = |status: &str, code: i32| state(&format!(r#"{{"Status":"{status}","ExitCode":{code}}}"#)).exit();
        assert_eq!(of("exited", 3), Some(ExitStatus::code(3)));
        for status in ["created", "initialized", "running", "paused", "stopping", "new word"] {
            assert_eq!(of(status, 0), None, "{status}");
        }
    }

    #[test]
    fn a_container_that_never_ran_has_no_incarnation() {
        let created = state(r#"{"Status":"created","ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z"}"#);
        assert_eq!((created.incarnation(), created.is_alive()), (None, false));
    }
}
