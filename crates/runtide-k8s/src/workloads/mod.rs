//! Objects that keep pods running, over the API server: [`Workloads`].

mod change;
mod kind;
mod object;
mod obstacle;
mod options;
mod pages;
mod wait;
mod workload;

use std::time::Duration;

use runtide_core::Result;

use self::object::Object;
pub use self::{
    kind::{WorkloadKind, WorkloadRef},
    obstacle::Obstacle,
    options::ScaleOptions,
    pages::WorkloadListing,
    workload::{Rollout, Workload},
};
use crate::{backend::KubeBackend, client::Client};

const GET: &str = "k8s.workloads.get";
const OBSTACLES: &str = "k8s.workloads.obstacles";

/// The Deployments, StatefulSets, DaemonSets and ReplicaSets of a cluster: what kubectl's `scale`, `rollout restart` and `rollout status` do.
/// A clone is the same.
///
/// # Behavior
/// * It is a view over a [`KubeBackend`], with its connections: it ends with that one, and its calls are then `Cancelled`.
/// * `Ok` of a change means that the server has it; [`wait_until_rolled_out`](Self::wait_until_rolled_out) waits for its effect on the pods.
/// * Each request is sent once. A change whose answer is missing has `outcome=unknown` in its error's context.
/// * The selectors of the backend's configuration are about pods, and narrow no workload; its namespaces narrow [`list`](Self::list) alone.
/// * An autoscaler of the workload sets its number again, and a Deployment that of its ReplicaSets.
///
/// # Errors
/// The server's refusals, with its own message: `NotFound`, `PermissionDenied`, `Conflict`, `InvalidInput`. A name that no object can have is
/// `InvalidInput` before anything is sent.
///
/// ```no_run
/// # async fn example(cluster: &runtide_k8s::KubeBackend) -> runtide_core::Result<()> {
/// use std::time::Duration;
///
/// use runtide_k8s::{ScaleOptions, WorkloadKind, WorkloadRef, Workloads};
///
/// let workloads = Workloads::over(cluster);
/// let web = WorkloadRef::new(WorkloadKind::Deployment, "shop", "web");
/// workloads.scale(&web, 3, ScaleOptions::default()).await?;
/// workloads.restart(&web).await?;
/// // An error says why: `ProgressDeadlineExceeded`, a quota, pods that no node takes.
/// let done = workloads.wait_until_rolled_out(&web, Duration::from_secs(300)).await?;
/// println!("{} has {} pods", done.reference, done.current);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Workloads {
    client: Client,
}

impl Workloads {
    /// The workloads of this backend's cluster. Nothing is sent.
    pub fn over(backend: &KubeBackend) -> Self {
        Self { client: backend.client().clone() }
    }

    /// All workloads of one kind in the backend's namespaces, those of each namespace at one version; with a selector in the server's own
    /// syntax (`tier=front`) only those whose own labels match.
    ///
    /// A namespace that cannot be read, and an object that cannot be decoded, make the listing partial.
    ///
    /// # Errors
    /// The server's refusal, if it shows no namespace at all.
    ///
    /// # Cancel safety
    /// Can be dropped at any time.
    pub async fn list(&self, kind: WorkloadKind, selector: Option<&str>) -> Result<WorkloadListing> {
        pages::list(&self.client, kind, selector).await
    }

    /// The workload as it is.
    ///
    /// # Errors
    /// `NotFound` if the server has none of that name.
    ///
    /// # Cancel safety
    /// Can be dropped at any time.
    pub async fn get(&self, workload: &WorkloadRef) -> Result<Workload> {
        Ok(Workload::of(workload.kind, &self.look(GET, workload).await?))
    }

    /// Sets the number of pods; the workload's name and its version after the change are in the answer. A number that it has already is
    /// set all the same, which changes no version.
    ///
    /// # Errors
    /// `Conflict` if it is not as the options want it, and nothing is changed; `Unsupported` for a DaemonSet; `InvalidInput` for more
    /// than 2,147,483,647.
    ///
    /// # Cancel safety
    /// A dropped call may still happen.
    pub async fn scale(&self, workload: &WorkloadRef, replicas: u32, options: ScaleOptions) -> Result<String> {
        change::scale(&self.client, workload, replicas, &options).await
    }

    /// Has all pods replaced, as `kubectl rollout restart` does: by a new time in an annotation of the template. Here it has nanoseconds,
    /// so that each call is a restart of its own.
    ///
    /// Of a StatefulSet with a partition, pods with a lower number stay.
    ///
    /// # Errors
    /// `Conflict` for a Deployment that is paused; `Unsupported` for a ReplicaSet, and for the strategy `OnDelete`: nothing would be
    /// replaced. Nothing is changed then.
    ///
    /// # Cancel safety
    /// A dropped call may still happen.
    pub async fn restart(&self, workload: &WorkloadRef) -> Result<Workload> {
        change::restart(&self.client, workload).await
    }

    /// Waits until the rollout of the newest template and number is [`Complete`](Rollout::Complete), by a watch of the object. A server that
    /// is away is asked again until the limit has passed.
    ///
    /// # Errors
    /// * `Timeout` after the limit, or at once when the cluster gave the rollout up ([`Rollout::Failed`]). Its context has the `reason`, and in
    ///   `obstacles` what [`obstacles`](Self::obstacles) tells, for which it may take 5 s more.
    /// * `NotFound` if the workload is gone, or is another of that name by now.
    /// * `Unsupported` for the strategy `OnDelete`.
    ///
    /// # Cancel safety
    /// Can be dropped at any time.
    pub async fn wait_until_rolled_out(&self, workload: &WorkloadRef, limit: Duration) -> Result<Workload> {
        wait::wait(&self.client, workload, limit).await
    }

    /// The reasons that hold the rollout up, as far as the cluster says them: conditions of the workload (`ProgressDeadlineExceeded`, `ReplicaFailure` with the
    /// message of a quota), pods that do not run or are not ready (`Unschedulable` with the scheduler's message, `ImagePullBackOff`,
    /// `CrashLoopBackOff`), and, of a workload that lacks pods, the events of failed creations. Empty where nothing does. At most 500 pods
    /// are looked at.
    ///
    /// # Errors
    /// As [`get`](Self::get). Pods and events that may not be read are left out.
    ///
    /// # Cancel safety
    /// Can be dropped at any time.
    pub async fn obstacles(&self, workload: &WorkloadRef) -> Result<Vec<Obstacle>> {
        let object = self.look(OBSTACLES, workload).await?;
        Ok(obstacle::of(&self.client, OBSTACLES, workload, &object).await)
    }

    async fn look(&self, operation: &'static str, workload: &WorkloadRef) -> Result<Object> {
        look(&self.client, operation, workload).await
    }
}

/// The object, read from the server.
async fn look(client: &Client, operation: &'static str, workload: &WorkloadRef) -> Result<Object> {
    client.check_open(operation)?;
    workload.check(client.site(operation))?;
    let answer = client.get(operation, &workload.path("")).await;
    let (_, body) = answer.map_err(|error| error.with_context("workload", workload))?;
    decode(client, operation, &body)
}

fn decode(client: &Client, operation: &'static str, text: &[u8]) -> Result<Object> {
    serde_json::from_slice(text).map_err(|error| client.site(operation).undecodable(error))
}
