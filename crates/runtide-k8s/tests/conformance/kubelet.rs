//! Pods on the testbed's real node, for the laws of managers: they need processes, and true exits and outputs.

use std::{path::PathBuf, process::Command, time::Duration};

use runtide_conformance::{Done, Obstacle, Workload};
use runtide_core::{InstanceId, UnixSignal};
use serde_json::{Value, json};

use super::server::Server;

/// Bytes of each line that is printed: the log of short ones would be rotated, of which Kubernetes shows the last part alone.
pub(crate) const LINE: u64 = 1024;
/// Scheduler of a pod that is not to start yet: there is none of this name, and the harness binds the pod.
const NO_SCHEDULER: &str = "runtide-conformance";
/// An argument by which the main process of a container is found.
const MAIN: &str = "runtide-conformance-main";
const LIMIT: Duration = Duration::from_secs(120);
/// Seconds between the signals of a removal: the fewest that a kubelet gives.
const GRACE: u32 = 2;

/// The node, and the image that it has.
#[derive(Clone, Debug)]
pub(crate) struct Kubelet {
    node: String,
    image: String,
}

impl Kubelet {
    /// `None`: the testbed has no real node.
    pub(crate) fn of_environment() -> Option<Self> {
        let (node, image) =
            (std::env::var("RUNTIDE_TEST_K8S_NODE").ok()?, std::env::var("RUNTIDE_TEST_K8S_IMAGE").ok()?);
        Some(Self { node, image })
    }

    /// A pod that is not started yet.
    pub(crate) fn spec(&self, work: &Workload) -> Done<Value> {
        let script = match work {
            Workload::Idle => "trap '' HUP; trap 'exit 0' TERM INT; sleep 100000 & wait".to_owned(),
            // The first process of a container ends by a signal only if it handles it.
            Workload::Exit { after, code } => {
                format!("trap 'exit 143' TERM; sleep {} & wait; exit {code}", after.as_secs_f64())
            }
            Workload::Oom => "tail /dev/zero".to_owned(),
            Workload::Print { bytes } => printing(*bytes, "print o & print e >&2; wait"),
            other => return Err(Obstacle::unsupported(format!("{other:?}"))),
        };
        let limits = if *work == Workload::Oom { json!({ "memory": "24Mi" }) } else { json!({}) };
        Ok(json!({
            "schedulerName": NO_SCHEDULER, "restartPolicy": "Never",
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": GRACE,
            "containers": [{
                "name": "main", "image": self.image, "imagePullPolicy": "Never",
                "command": ["sh", "-c", script, MAIN], "resources": { "limits": limits },
            }],
        }))
    }

    /// Gives the pod to the node; returns once it runs, or has ended.
    pub(crate) async fn start(&self, server: &Server, pod: &str) -> Done<()> {
        let name = pod.rsplit('/').next().unwrap_or_default();
        let binding = json!({
            "kind": "Binding", "apiVersion": "v1", "metadata": { "name": name },
            "target": { "kind": "Node", "name": self.node },
        });
        server.ask("POST", &format!("{pod}/binding"), &binding).await.map_err(Obstacle::Failed)?;
        until(server, pod, "run", |state| state["running"].is_object() || state["terminated"].is_object()).await
    }

    /// Sends a signal to the main process, from outside.
    pub(crate) fn signal(id: &InstanceId, signal: UnixSignal) -> Done<()> {
        let Some(pid) = main_process(id) else { return Err(Obstacle::failed(format!("{id} has no main process"))) };
        let sent = Command::new("kill").args([format!("-{}", signal.0), pid.to_string()]).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            other => Err(Obstacle::failed(format!("kill {pid}: {other:?}"))),
        }
    }

    /// Ends the main process, and waits until the server has its end.
    pub(crate) async fn stop(server: &Server, pod: &str, id: &InstanceId) -> Done<()> {
        Self::signal(id, UnixSignal::TERM)?;
        until(server, pod, "end", |state| state["terminated"].is_object()).await
    }
}

/// A script in which `print o` and `print e` write the lines of either side.
pub(crate) fn printing(bytes: u64, script: &str) -> String {
    let lines = bytes / LINE;
    let print = "BEGIN { p = sprintf(\"%1008s\", \"\"); for (i = 0; i < n; i++) printf \"%s%014d%s\\n\", c, i, p }";
    format!("print() {{ awk -v c=$1 -v n={lines} '{print}'; }}; {script}")
}

async fn until(server: &Server, pod: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Done<()> {
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        let shown = server.ask("GET", pod, &Value::Null).await.map_err(Obstacle::Failed)?;
        if is_it(&shown["status"]["containerStatuses"][0]["state"]) {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            return Err(Obstacle::failed(format!("{pod} does not {what}: {}", shown["status"])));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first process of the pod's container, by the pod's control group, in this machine's numbering.
fn main_process(id: &InstanceId) -> Option<u32> {
    let read = |pid: u32, file: &str| std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/{file}"))).ok();
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let group = format!("pod{id}");
    all.filter(|pid| read(*pid, "cmdline").is_some_and(|words| words.split('\0').any(|word| word == MAIN)))
        .filter(|pid| read(*pid, "cgroup").is_some_and(|groups| groups.contains(&group)))
        .min()
}
