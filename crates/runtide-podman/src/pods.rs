//! [`Pods`]: Podman's pods, which are groups of instances and no instances themselves.

use std::time::Duration;

use futures_util::future::join_all;
use runtide_core::{Error, ErrorKind, Labels, Result, manager::Effect};
use runtide_engine::{
    Request,
    create::{Creation, Objects, users_labels},
    is_named,
    late::LATEST_ANSWER,
    lenient,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{Client, is_answer, is_status},
    manager::is_name,
};

/// The service's pods, as that of a create is found by its label.
const PODS: Objects =
    Objects { list: "/pods/json", key: "Id", labels: "Labels", path: "/pods/", options: "?force=true&timeout=0" };

/// Status of an answer that there is nothing to do.
const UNMODIFIED: &str = "304";

/// The pods of one service.
///
/// A pod's containers are instances, with the pod as their [`group`](runtide_core::Instance::group). The container that holds a pod
/// together (its infra container) is none: it is in no listing and in no watch, and its verbs are the pod's.
///
/// Errors are those of the managers: `NotFound` for a pod that does not exist, `InvalidInput` for a name that is none.
///
/// ```no_run
/// # async fn example(podman: &runtide_podman::PodmanBackend) -> runtide_core::Result<()> {
/// let pods = podman.pods();
/// let id = pods.create("shop", &[]).await?;
/// // Containers join it by the native key `pod` of their spec.
/// pods.start(&id).await?;
/// pods.remove(&id, true).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Pods {
    client: Client,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// Podman's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// State of its containers together.
    pub state: PodState,
    /// Ids of its containers, without its infra container.
    pub instances: Vec<runtide_core::InstanceId>,
    /// Its labels.
    pub labels: Labels,
}

/// State of a pod, which follows from those of its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PodState {
    /// None of its containers ran.
    Created,
    /// All of its containers run.
    Running,
    /// Some of its containers run, and others do not.
    Degraded,
    /// All of its containers are paused.
    Paused,
    /// Its containers were stopped.
    Stopped,
    /// All of its containers ended by themselves.
    Exited,
    /// A word that this version does not know.
    Unknown,
}

impl PodState {
    fn of(text: &str) -> Self {
        match text {
            "Created" => Self::Created,
            "Running" => Self::Running,
            "Degraded" => Self::Degraded,
            "Paused" => Self::Paused,
            "Stopped" => Self::Stopped,
            "Exited" => Self::Exited,
            _ => Self::Unknown,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    id: String,
    name: String,
    status: String,
    infra_id: String,
    containers: Option<Vec<Member>>,
    labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    id: String,
    name: String,
    state: String,
    containers: Option<Vec<Member>>,
}

impl Named {
    /// Its whole id, which leads to no other pod; `given` where the answer has none.
    fn id_or<'a>(&'a self, given: &'a str) -> &'a str {
        if is_name(&self.id) { &self.id } else { given }
    }
}

/// The answer to a removal.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Removed {
    err: Option<serde_json::Value>,
}

/// A container of a pod, its infra container included; a list does not say its state.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Member {
    id: String,
    state: String,
}

impl Member {
    fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "stopping")
    }
}

impl Pods {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Every pod.
    ///
    /// # Errors
    /// Those of a call; `Protocol` for an answer that cannot be read.
    pub async fn list(&self) -> Result<Vec<Pod>> {
        const OPERATION: &str = "podman.pod_list";
        let body = self.client.call(OPERATION, Request::get("/pods/json"), self.client.deadline()).await?;
        let (listed, _): (Option<Vec<Listed>>, _) =
            lenient(&String::from_utf8_lossy(&body), |json| serde_json::from_str(json))
                .map_err(|error| self.client.site(OPERATION).undecodable(error))?;
        let pods = listed.unwrap_or_default().into_iter().map(|pod| Pod {
            instances: pod
                .containers
                .into_iter()
                .flatten()
                .filter(|member| !member.id.is_empty() && member.id != pod.infra_id)
                .map(|member| member.id.into())
                .collect(),
            id: pod.id,
            name: pod.name,
            state: PodState::of(&pod.status),
            labels: users_labels(pod.labels.unwrap_or_default()),
        });
        Ok(pods.collect())
    }

    /// Creates a pod with an infra container, and the ports `(host's address, port inside)` that it publishes over TCP. It does not
    /// start it. Returns its id.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that a pod or a container has; `InvalidInput` for a name that is none.
    ///
    /// # Cancel safety
    /// A dropped future removes the pod in a task, as does one whose answer is lost.
    pub async fn create(&self, name: &str, ports: &[(std::net::SocketAddr, std::num::NonZeroU16)]) -> Result<String> {
        const OPERATION: &str = "podman.pod_create";
        self.check(OPERATION, name)?;
        let site = self.client.site(OPERATION);
        let taken = |what: &str| {
            let error = site.error(ErrorKind::AlreadyExists, format!("another {what} has this name"));
            error.with_context("pod", name)
        };
        let ports: Vec<_> = ports
            .iter()
            .map(|(outside, inside)| {
                json!({"container_port": inside, "host_port": outside.port(), "host_ip": outside.ip(), "protocol": "tcp"})
            })
            .collect();
        let creation = Creation::new(&self.client, OPERATION, name, &[PODS]);
        let (key, value) = creation.label();
        let labels = json!({ key: value });
        let ports = Some(ports).filter(|ports| !ports.is_empty());
        let spec = json!({ "name": name, "labels": labels, "portmappings": ports });
        let (client, this) = (self.client.clone(), creation.clone());
        let request = Request::post("/pods/create").with_json(&spec);
        let creating = async move {
            let made = client.call(OPERATION, request, LATEST_ANSWER).await?;
            let made: Named =
                serde_json::from_slice(&made).map_err(|error| client.site(OPERATION).undecodable(error))?;
            Ok((made.id, this.guard()))
        };
        let made = self.client.within(site, self.client.deadline(), creation.run(creating)).await;
        let (id, guard) = made.map_err(|refusal| match refusal.message() {
            // A container's name is a refusal of 500, a pod's one of 409.
            message if is_answer(&refusal) && message.contains("is in use") => {
                taken(if message.contains("container already exists") { "container" } else { "pod" })
            }
            _ => refusal.with_context("pod", name),
        })?;
        guard.keep();
        Ok(id)
    }

    /// Starts every container of the pod; `Unchanged` if all of them run.
    ///
    /// # Errors
    /// `NotFound` for a pod that does not exist; `Conflict`, in Podman's words, if one of its containers cannot be started: others may run
    /// then.
    pub async fn start(&self, pod: &str) -> Result<Effect> {
        self.verb("podman.pod_start", pod, "start", None, self.client.deadline(), "Running").await
    }

    /// Stops every container of the pod, each with this time to end; Podman counts whole seconds, rounded up.
    ///
    /// # Errors
    /// `Conflict` for a paused container; `Timeout` if they are not stopped within the client's deadline after that time.
    pub async fn stop(&self, pod: &str, timeout: Duration) -> Result<Effect> {
        const OPERATION: &str = "podman.pod_stop";
        let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0)).min(i32::MAX as u64);
        let limit = self.client.deadline().saturating_add(Duration::from_secs(seconds));
        let site = self.client.site(OPERATION);
        let stopped = self.client.within(site, limit, self.stop_all(OPERATION, pod, seconds, limit)).await;
        stopped.map_err(|error| error.with_context("pod", pod))
    }

    /// Removes the pod and its containers; `Unchanged` if it is already gone.
    ///
    /// # Errors
    /// `Conflict` if a container of it runs, and `kill` is not set.
    pub async fn remove(&self, pod: &str, kill: bool) -> Result<Effect> {
        const OPERATION: &str = "podman.pod_remove";
        self.check(OPERATION, pod)?;
        let found = match self.inspect(OPERATION, pod).await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Effect::Unchanged),
            Err(error) => return Err(error),
        };
        if !kill && matches!(PodState::of(&found.state), PodState::Running | PodState::Degraded | PodState::Paused) {
            let why = "a container of the pod runs, and the call does not ask to kill it";
            return Err(self.client.site(OPERATION).error(ErrorKind::Conflict, why).with_context("pod", pod));
        }
        let id = found.id_or(pod);
        let mut request = Request::delete(format!("/pods/{id}")).with_query("force", kill);
        if kill {
            request = request.with_query("timeout", 0);
        }
        match self.client.call(OPERATION, request, self.client.deadline()).await {
            Ok(removed) => match serde_json::from_slice::<Removed>(&removed).ok().and_then(|removed| removed.err) {
                // Podman reports a refusal within a success.
                Some(why) if !why.is_null() => {
                    let why = format!("the pod was not removed: {why}");
                    Err(self.client.site(OPERATION).error(ErrorKind::Unexpected, why).with_context("pod", pod))
                }
                _ => Ok(Effect::Changed),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
            Err(refusal) => {
                let is_alive = match self.inspect(OPERATION, id).await {
                    Ok(now) => !kill && now.containers.iter().flatten().any(Member::is_alive),
                    Err(_) => false,
                };
                let error = if is_alive {
                    let why = "a container of the pod is alive, and the call does not ask to kill it";
                    self.client.site(OPERATION).error(ErrorKind::Conflict, why).with_source(refusal)
                } else {
                    refusal
                };
                Err(error.with_context("pod", pod))
            }
        }
    }

    async fn stop_all(&self, operation: &'static str, pod: &str, seconds: u64, limit: Duration) -> Result<Effect> {
        // Podman takes zero for no time given.
        if seconds > 0 && self.verb(operation, pod, "stop", Some(seconds), limit, "Exited").await? == Effect::Changed {
            return Ok(Effect::Changed);
        }
        // It stops a pod only while all of its containers run, and answers for any other that there is nothing to do.
        self.check(operation, pod)?;
        let members = self.inspect(operation, pod).await?.containers.unwrap_or_default();
        let alive: Vec<&Member> = members.iter().filter(|member| member.is_alive()).collect();
        // At once, since each may take the whole time; one that cannot be stopped does not spare the others.
        let stops = alive.iter().map(|member| self.stop_member(operation, member, seconds, limit));
        join_all(stops).await.into_iter().collect::<Result<()>>()?;
        Ok(if alive.is_empty() { Effect::Unchanged } else { Effect::Changed })
    }

    async fn stop_member(&self, operation: &'static str, member: &Member, seconds: u64, limit: Duration) -> Result<()> {
        let request = Request::post(format!("/containers/{}/stop", member.id)).with_query("timeout", seconds);
        match self.client.call(operation, request, limit).await {
            Ok(_) => Ok(()),
            // It ended by itself.
            Err(error) if error.kind() == ErrorKind::NotFound || is_status(&error, UNMODIFIED) => Ok(()),
            Err(error) => Err(error.with_context("container", &member.id)),
        }
    }

    async fn verb(
        &self,
        operation: &'static str,
        pod: &str,
        verb: &str,
        timeout: Option<u64>,
        limit: Duration,
        settled: &str,
    ) -> Result<Effect> {
        self.check(operation, pod)?;
        let found = self.inspect(operation, pod).await?;
        if found.state == settled {
            return Ok(Effect::Unchanged);
        }
        let mut request = Request::post(format!("/pods/{}/{verb}", found.id_or(pod)));
        if let Some(seconds) = timeout {
            request = request.with_query("t", seconds);
        }
        match self.client.call(operation, request, limit).await {
            Ok(_) => Ok(Effect::Changed),
            // 304: every container was in that state already.
            Err(error) if is_status(&error, UNMODIFIED) => Ok(Effect::Unchanged),
            Err(error) => Err(self.of_members(operation, error).with_context("pod", pod)),
        }
    }

    /// The error of a verb that failed for some of the containers: Podman lists the reasons in place of a message.
    fn of_members(&self, operation: &'static str, refusal: Error) -> Error {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Report {
            errs: Vec<String>,
        }
        match serde_json::from_str::<Report>(refusal.message()) {
            Ok(report) if !report.errs.is_empty() => {
                self.client.site(operation).error(ErrorKind::Conflict, report.errs.join("; "))
            }
            _ => refusal,
        }
    }

    fn check(&self, operation: &'static str, pod: &str) -> Result<()> {
        if is_name(pod) {
            return Ok(());
        }
        let why = "not the id or name of a pod: expected letters, digits, '_', '.', '-', the first a letter or digit";
        Err(Error::new(ErrorKind::InvalidInput, operation, why)
            .with_context("backend", self.client.id())
            .with_context("pod", pod.escape_debug()))
    }

    async fn inspect(&self, operation: &'static str, pod: &str) -> Result<Named> {
        let found = self.send(operation, Request::get(format!("/pods/{pod}/json")), pod).await?;
        // Podman takes the beginning of an id for the id: another pod's.
        if is_named(pod, &found.id, &found.name) {
            return Ok(found);
        }
        Err(self.client.site(operation).error(ErrorKind::NotFound, "there is no such pod").with_context("pod", pod))
    }

    async fn send(&self, operation: &'static str, request: Request, pod: &str) -> Result<Named> {
        let body = self.client.call(operation, request, self.client.deadline()).await;
        let body = body.map_err(|error| error.with_context("pod", pod))?;
        lenient(&String::from_utf8_lossy(&body), |json| serde_json::from_str(json))
            .map(|(found, _)| found)
            .map_err(|error| self.client.site(operation).undecodable(error))
    }
}
