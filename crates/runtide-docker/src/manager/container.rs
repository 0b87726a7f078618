//! [`Call`]: one call on one container, with its checked id, its deadline and the container's inspection.

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, SystemTime},
};

use bollard::{Docker, errors::Error as Refusal};
use bytes::Bytes;
use runtide_core::{Error, ErrorKind, ExitStatus, InstanceId, Result, manager::Effect};
use runtide_engine::{Request, is_named, lenient, log_left_out};
use serde::Deserialize;

pub(super) use runtide_engine::is_name;

use crate::{
    client::Client,
    ends,
    normalize::{is_doubtful, time},
    reported_state::exit_is_label,
};

/// Docker's own time between the stop signal and the kill, if neither the caller nor the container sets one.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Go's zero time, in place of a missing one.
const NEVER: &str = "0001-01-01T00:00:00Z";

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

    /// The answer to a request, whole, within the client's deadline.
    pub(super) async fn send(self, request: Request) -> Result<Bytes> {
        let answer = Box::pin(self.client.call(self.operation, request, self.client.deadline())).await;
        answer.map_err(|error| self.located(error))
    }

    /// The verbs' client. It has no timeout of its own: [`within`](Self::within) is exact, and counts from the call's begin.
    pub(super) async fn docker(self) -> Result<Docker> {
        Box::pin(self.client.bollard()).await.map_err(|error| self.located(error))
    }

    /// The container with this very id or name, inspected now.
    pub(super) async fn inspect(self) -> Result<Container> {
        let path = format!("/containers/{}/json", self.id);
        let inspected = self.client.call(self.operation, Request::get(path), self.client.deadline());
        let missing = || self.error(ErrorKind::NotFound, "there is no such container");
        let bytes = Box::pin(inspected).await.map_err(|error| {
            // The beginnings of two ids; the status and the first letter differ between versions.
            let is_ambiguous = error.message().to_ascii_lowercase().contains("multiple ids found");
            if is_ambiguous { missing() } else { self.located(error) }
        })?;
        let (container, left_out): (Container, _) =
            lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json)).map_err(|error| {
                self.error(ErrorKind::Protocol, "the container's description cannot be read").with_source(error)
            })?;
        log_left_out(self.client.id(), self.id, &left_out);
        if container.is_named(self.id) { Ok(container) } else { Err(missing()) }
    }

    /// Exit of this run of the container, which is over by now, as far as the daemon still has it. The inspection has it unless the
    /// next run has begun, or a failed start wrote over it; then the history of events may have it.
    pub(super) async fn exit_of(self, container: &Container, incarnation: &str) -> Option<ExitStatus> {
        let state = &container.state;
        let is_last = state.incarnation() == Some(incarnation);
        if let Some(exit) = state.exit().filter(|_| is_last) {
            return Some(exit);
        }
        if exit_is_label(|key| container.config.labels.contains_key(key)) {
            return None;
        }
        let (begin, until) = (time(incarnation)?, state.end_reported_by(incarnation));
        let exit = ends::of_run(self.client, self.operation, &container.id, begin, until).await?.exit?;
        Some(if is_last { exit.with_oom_killed(state.oom_killed) } else { exit })
    }

    /// The container, inspected now; `None` if the daemon reports that it does not exist.
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

    pub(super) fn refused(self, refusal: Refusal) -> Error {
        self.located(self.client.error(self.operation, refusal))
    }

    pub(super) fn located(self, error: Error) -> Error {
        error.with_context("instance", self.id)
    }

    /// After a refusal: inspects whether the wanted state `holds` anyway. If it does not, the error is the daemon's own, or
    /// `Conflict` if the container's state explains the refusal (`forbids`).
    pub(super) async fn settle(
        self,
        refusal: Refusal,
        holds: impl FnOnce(&State) -> Option<Effect>,
        forbids: impl FnOnce(&State) -> bool,
    ) -> Result<Effect> {
        if !is_answer(&refusal) {
            return Err(self.refused(refusal));
        }
        let state = self.inspect().await?.state;
        if let Some(effect) = holds(&state) {
            return Ok(effect);
        }
        if forbids(&state) {
            let text = self.refused(refusal).message().to_owned();
            return Err(self.error(ErrorKind::Conflict, text).with_context("state", &state.status));
        }
        Err(self.refused(refusal))
    }
}

/// The daemon answered: no request is under way any more, so that an inspection shows the outcome.
pub(super) fn is_answer(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::DockerResponseServerError { .. })
}

pub(super) fn is_status(refusal: &Refusal, status: u16) -> bool {
    matches!(refusal, Refusal::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The daemon speaks at least API 1.`minor`.
pub(super) fn speaks(docker: &Docker, minor: usize) -> bool {
    let version = docker.client_version();
    (version.major_version, version.minor_version) >= (1, minor)
}

/// The part of an inspection that the verbs need. Decoded leniently: one unknown word must not fail a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: String,
    /// Starts by the restart policy since the last one by a client.
    pub(super) restart_count: u64,
    pub(super) state: State,
    pub(super) config: Config,
    pub(super) host_config: HostConfig,
    pub(super) network_settings: super::network::Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    pub(super) status: String,
    /// Also true while paused, and between two runs under a restart policy.
    pub(super) running: bool,
    pub(super) paused: bool,
    pub(super) restarting: bool,
    exit_code: Option<i64>,
    #[serde(rename = "OOMKilled")]
    oom_killed: Option<bool>,
    error: String,
    started_at: String,
    finished_at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Config {
    pub(super) tty: bool,
    pub(super) open_stdin: bool,
    pub(super) stdin_once: bool,
    labels: BTreeMap<String, String>,
    stop_timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HostConfig {
    pub(super) auto_remove: bool,
    pub(super) memory: Option<i64>,
    pub(super) nano_cpus: Option<i64>,
    pub(super) pids_limit: Option<i64>,
    pub(super) log_config: LogConfig,
    pub(super) restart_policy: RestartPolicy,
}

#[derive(Debug, Default, Deserialize)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LogConfig {
    #[serde(rename = "Type")]
    pub(super) driver: String,
}

impl State {
    /// A process of the container exists.
    pub(super) fn is_alive(&self) -> bool {
        self.running && !self.restarting
    }

    /// Identity of the present or last run: its start, which differs for every run. `None`: the container never ran.
    pub(super) fn incarnation(&self) -> Option<&str> {
        Some(self.started_at.as_str()).filter(|at| !at.is_empty() && *at != NEVER)
    }

    /// End of the last run that is over, as the daemon writes it.
    pub(super) fn finished_at(&self) -> &str {
        &self.finished_at
    }

    /// No run of the container has ended yet.
    pub(super) fn is_first_run(&self) -> bool {
        self.is_alive() && self.finished_at == NEVER
    }

    /// Time, by the daemon's clock, by which it has reported the end of this run, which is over.
    pub(super) fn end_reported_by(&self, incarnation: &str) -> Option<SystemTime> {
        match self.incarnation() {
            Some(next) if next != incarnation => time(next),
            _ => time(&self.finished_at).and_then(ends::reported_by),
        }
    }

    /// Exit of the last run; `None` also if a failed start may have written over it.
    fn exit(&self) -> Option<ExitStatus> {
        let exit = exit_of(self.exit_code?)?;
        let rewritten = !self.error.is_empty() && is_doubtful(exit.end);
        (!rewritten).then(|| exit.with_oom_killed(self.oom_killed))
    }
}

/// `None` for a number that cannot be an exit code.
pub(super) fn exit_of(code: i64) -> Option<ExitStatus> {
    let exit = i32::try_from(code).ok().map(ExitStatus::code);
    if exit.is_none() {
        tracing::warn!(field = "ExitCode", value = code, "left out: no number of this field's range");
    }
    exit
}

impl Container {
    /// `true` if this is the container that was asked for, and no other one by accident. One without an id is not told apart.
    fn is_named(&self, given: &str) -> bool {
        self.id.is_empty() || is_named(given, &self.id, self.name.trim_start_matches('/'))
    }

    /// Its full id, which no rename changes; `given` where the description has none.
    pub(super) fn id_or<'a>(&'a self, given: &'a str) -> &'a str {
        if is_name(&self.id) { &self.id } else { given }
    }

    /// The run of this incarnation goes on.
    pub(super) fn is_in(&self, incarnation: &str) -> bool {
        self.state.is_alive() && self.state.incarnation() == Some(incarnation)
    }

    /// Time that the container gets to end; `None`: no limit.
    pub(super) fn grace(&self) -> Option<Duration> {
        match self.config.stop_timeout {
            None => Some(DEFAULT_GRACE),
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
        }
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

    fn container(json: &str) -> Container {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another_containers_id() {
        let cafe = container(r#"{"Id":"cafe0f6fd7d1aa00","Name":"/web"}"#);
        assert!(["web", "cafe0f6fd7d1aa00", "cafe0f6fd7d1"].into_iter().all(|given| cafe.is_named(given)));
        assert!(!["cafe", "cafe0f6fd7d", "we", "web1"].into_iter().any(|given| cafe.is_named(given)));
    }

    #[test]
    fn a_container_that_never_ran_has_no_incarnation() {
        let created = container(
            r#"{"State":{"Status":"created","Running":false,"ExitCode":127,"StartedAt":"0001-01-01T00:00:00Z"}}"#,
        );
        assert_eq!(created.state.incarnation(), None);
        assert!(!created.state.is_alive());
    }

    #[test]
    fn an_unknown_word_does_not_fail_a_verb() {
        let odd = container(
            r#"{"State":{"Status":"hibernating","Running":true,"StartedAt":"2024-01-01T00:00:00.5Z","OOMKilled":true,"ExitCode":137},
                "Config":{"Tty":true,"StopTimeout":null,"New":[]},"HostConfig":{"LogConfig":{"Type":"none"}}}"#,
        );
        assert!(odd.state.is_alive() && odd.config.tty);
        assert_eq!(odd.grace(), Some(Duration::from_secs(10)));
        assert_eq!(odd.state.exit(), Some(ExitStatus::code(137).with_oom_killed(true)));
    }

    #[test]
    fn a_code_that_a_failed_start_may_have_left_is_no_exit() {
        let exit = |code: i32, error: &str| {
            container(&format!(r#"{{"State":{{"ExitCode":{code},"Error":"{error}"}}}}"#)).state.exit()
        };
        for code in [126, 127, 128] {
            assert_eq!(exit(code, "port is already allocated"), None);
            assert_eq!(exit(code, ""), Some(ExitStatus::code(code)));
        }
        assert_eq!(exit(3, "port is already allocated"), Some(ExitStatus::code(3)));
    }

    #[test]
    fn no_field_that_cannot_be_read_fails_a_verb() {
        let json = r#"{"State":{"Status":null,"Running":true,"ExitCode":1e400,"StartedAt":"2024-01-01T00:00:00Z"},
            "Config":null,"HostConfig":{"Memory":99999999999999999999,"AutoRemove":"no","LogConfig":{"Type":"local"}}}"#;
        let (odd, left_out) = lenient(json, |json| serde_json::from_str::<Container>(json)).unwrap();
        assert!(odd.state.is_alive() && odd.state.incarnation().is_some());
        assert_eq!(odd.host_config.log_config.driver, "local");
        let expected = ["Config", "HostConfig.AutoRemove", "HostConfig.Memory", "State.ExitCode", "State.Status"];
        assert_eq!(left_out, expected);
    }

    #[test]
    fn an_end_is_reported_soon_after_it_and_before_the_next_run() {
        let by = |incarnation: &str, finished: &str| {
            let json = format!(r#"{{"State":{{"StartedAt":"2024-01-01T00:01:00Z","FinishedAt":"{finished}"}}}}"#);
            container(&json).state.end_reported_by(incarnation)
        };
        let last = "2024-01-01T00:01:00Z";
        assert_eq!(by("2024-01-01T00:00:00Z", NEVER), time(last), "the next run has begun");
        assert_eq!(by(last, "2024-01-01T00:02:00Z"), time("2024-01-01T00:02:10Z"));
        assert_eq!(by(last, NEVER), None);
    }

    #[test]
    fn a_container_may_have_no_limit_to_end() {
        assert_eq!(container(r#"{"Config":{"StopTimeout":-1}}"#).grace(), None);
        assert_eq!(container(r#"{"Config":{"StopTimeout":0}}"#).grace(), Some(Duration::ZERO));
    }
}
