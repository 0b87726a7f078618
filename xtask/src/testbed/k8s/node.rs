//! The node: a real kubelet with containerd, in a mount namespace of their own. Whatever they mount ends with the process that
//! keeps it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::super::https::{Body, Server};
use super::super::log::Log;
use super::super::places::in_run;
use super::super::{cgroup, image, mounts, packages, procfs};
use super::Ports;
use super::program::Program;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt, TICK};

/// The name and the address of the node: the API server reaches it on loopback.
pub(super) const NAME: &str = "127.0.0.1";

/// The upper layer of `/var`, which is in the holder's namespace alone.
const LAYER: &str = "layers/var";

/// Says that the holder has made everything.
const ENTERED: &str = "entered";

const ASK: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(120);
const IMPORT: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const DIE: Duration = Duration::from_secs(10);

/// Settings of the machine that the kubelet and the network plugins would change: they meet files with the wanted values.
const SETTINGS: [(&str, &str); 7] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
    ("net/ipv4/ip_forward", "1"),
];

/// Puts layers in memory over `/var` and `/run`, and the node's folders into them at the paths that the programs have built in. The testbed's folder
/// stays where it is, also if that is below `/var`. It then waits without a child, so that killing it ends all of it.
const HOLDER: &str = r#"
set -e
folder=$1
cd "$folder"
mkdir -p layers containerd kubelet
mount -t tmpfs -o mode=755 runtide-testbed layers
# `/run` first: the folder may be below `/var`, and then has to be found for both.
for name in run var; do
  mkdir "layers/$name" "layers/$name.work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$folder/layers/$name,workdir=$folder/layers/$name.work,index=off" "/$name"
done
mkdir -p "$folder"
mount --no-canonicalize --bind . "$folder"
cd "$folder"
mkdir -p /var/lib/containerd /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/netns /run/containerd
if [ "$(stat --file-system --format %T .)" = overlayfs ]; then
  mount -t tmpfs tmpfs /var/lib/containerd
else
  mount --bind containerd /var/lib/containerd
fi
mount --bind kubelet /var/lib/kubelet
mount --make-shared /var/lib/kubelet
mount -t tmpfs tmpfs /run/netns
mount --make-shared /run/netns
for setting in settings/*; do
  mount --bind "$setting" "/proc/sys/$(basename "$setting" | tr . /)"
done
mkfifo /run/runtide-never
exec 3<>/run/runtide-never
: > entered
read -r line <&3
"#;

const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/runtide/pause:1"
  # The score of a sandbox would be lower than ours, for which a capability is needed that some machines lack.
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "FOLDER/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#;

pub(super) struct Node {
    folder: PathBuf,
    /// The control group of all pods.
    group: String,
    containerd: Program,
    pub(super) kubelet: Program,
}

impl Node {
    pub(super) fn below(folder: &Path) -> Self {
        let program =
            |name, file: &str| Program::new(folder, name, format!("--config={}", folder.join(file).display()));
        let group = in_run(folder).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self {
            folder: folder.to_owned(),
            group,
            containerd: program("containerd", "containerd.toml"),
            kubelet: program("kubelet", "kubelet.json"),
        }
    }

    /// The argument that distinguishes the holder from any other process.
    fn mark(&self) -> String {
        format!("runtide-testbed={}", self.folder.display())
    }

    fn holder(&self) -> Option<i32> {
        let mark = self.mark();
        procfs::processes().into_iter().find(|process| process.has_argument(&mark)).map(|process| process.pid)
    }

    /// The holder, once it has made everything.
    fn pid(&self) -> Option<i32> {
        self.holder().filter(|_| self.folder.join(ENTERED).exists())
    }

    /// The holder and every process that sees its mounts, also if it was killed: each keeps the mounts.
    fn members(&self) -> Vec<i32> {
        let upper = self.folder.join(LAYER);
        let sees = |pid: &i32| mounts::sees_layer(*pid, &upper);
        let mut found: Vec<i32> = procfs::processes().into_iter().map(|process| process.pid).filter(sees).collect();
        found.extend(self.holder());
        found
    }

    pub(super) fn runs(&self) -> bool {
        self.holder().is_some() || !cgroup::processes(&self.group).is_empty()
    }

    /// Starts what does not run, and waits until the node is ready for pods.
    pub(super) fn start(&self, programs: &Path, ports: &Ports, api: &Server) -> Outcome<()> {
        self.keep(ports)?;
        let mut containerd = self.command("containerd")?;
        let containerd = self.containerd.start(&mut containerd)?;
        containerd.until(READY, || self.ctr(&["version"]).is_ok())?;
        let archive = self.folder.join("images.tar");
        if !archive.exists() {
            let made = image::archive(&self.folder.join("image"), &[NAMED, PAUSE])?;
            fs::write(&archive, made).doing(format_args!("cannot write {}", archive.display()))?;
        }
        self.ctr(&["images", "import", &archive.to_string_lossy()])?;
        let mut kubelet = self.command(&programs.join("kubelet").to_string_lossy())?;
        kubelet
            .arg(format!("--kubeconfig={}", self.folder.join("node.kubeconfig").display()))
            .arg(format!("--hostname-override={NAME}"))
            .arg("--container-runtime=remote")
            .arg("--container-runtime-endpoint=unix:///run/containerd/containerd.sock");
        // Of an earlier kubelet: it says nothing about this one.
        let earlier = last_heartbeat(api, NAME);
        let kubelet = self.kubelet.start(&mut kubelet)?;
        let is_new = kubelet.is_new();
        let beats = || !is_new || last_heartbeat(api, NAME) != earlier;
        kubelet.until(READY, || self.answers(ports) && beats() && is_ready(api, NAME))
    }

    /// Starts the holder.
    fn keep(&self, ports: &Ports) -> Outcome<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        self.end()?;
        self.write(ports)?;
        let (out, err, log) = Log::open(self.folder.join("node.log"))?;
        let mut command = packages::command("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", HOLDER, &self.mark()])
            .arg(&self.folder)
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run unshare")?;
        let end = Instant::now() + LIMIT;
        while self.pid().is_none() {
            if let Ok(Some(status)) = child.try_wait() {
                let why = log.last_line(|_| true).unwrap_or_else(|| status.to_string());
                return Err(Failure::refused(format_args!("a node cannot be made here: {why}")));
            }
            if Instant::now() >= end {
                return Err(Failure::failed(format_args!("the node is not made after {} s", LIMIT.as_secs())));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn write(&self, ports: &Ports) -> Outcome<()> {
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            fs::write(&path, text).doing(format_args!("cannot write {}", path.display()))
        };
        for folder in ["cni", "settings"] {
            let path = self.folder.join(folder);
            fs::create_dir_all(&path).doing(format_args!("cannot make {}", path.display()))?;
        }
        for (setting, value) in SETTINGS {
            write(&format!("settings/{}", setting.replace('/', ".")), &format!("{value}\n"))?;
        }
        let folder = self.folder.display().to_string();
        write("containerd.toml", &CONTAINERD.replace("FOLDER", &folder))?;
        write("cni/10-testbed.conflist", &format!("{:#}\n", network(ports.kubelet)))?;
        write("kubelet.json", &format!("{:#}\n", self.kubelet_config(ports)))?;
        // The kubelet wants its group to exist in every hierarchy.
        cgroup::make_in_all(&self.group)
    }

    fn kubelet_config(&self, ports: &Ports) -> serde_json::Value {
        let pki = self.folder.join("pki");
        json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": "127.0.0.1",
            "port": ports.kubelet,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "tlsCertFile": pki.join("kubelet-server.crt"),
            "tlsPrivateKeyFile": pki.join("kubelet-server.key"),
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": false },
                "x509": { "clientCAFile": pki.join("ca.crt") },
            },
            "authorization": { "mode": "AlwaysAllow" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.group),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "failSwapOn": false,
            // The packet filter is the machine's.
            "makeIPTablesUtilChains": false,
            "hairpinMode": "none",
            "oomScoreAdj": 0,
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
            "maxPods": 250,
            "podsPerCore": 0,
            // The disk is the machine's as well: a full one is no reason to evict pods of tests.
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
        })
    }

    /// A command among the node's mounts.
    fn command(&self, program: &str) -> Outcome<Command> {
        let Some(pid) = self.pid() else { return Err(Failure::failed("the holder of the node's mounts does not run")) };
        let mut command = packages::command("nsenter");
        command.args(["--target", &pid.to_string(), "--mount", "--", program]);
        Ok(command)
    }

    fn ctr(&self, words: &[&str]) -> Outcome<String> {
        let mut command = self.command("ctr")?;
        command.args(["--namespace", "k8s.io"]).args(words);
        let said = process::capture(&mut command, IMPORT, Interrupt::Waits)?;
        if said.status.success() {
            return Ok(said.stdout);
        }
        Err(Failure::failed(format_args!("ctr {}: {}", words.join(" "), said.complaint())))
    }

    fn answers(&self, ports: &Ports) -> bool {
        let kubelet = Server::at(ports.kubelet, &self.folder.join("pki"), "kubelet-client");
        let answer = kubelet.and_then(|kubelet| kubelet.ask("GET", "/healthz", &Body::NONE, ASK));
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// SIGTERM to both programs; pods stay.
    pub(super) fn stop(&self) -> Outcome<()> {
        self.kubelet.must_end(Signal::TERM, STOP)?;
        self.containerd.must_end(Signal::TERM, STOP)
    }

    /// SIGKILL to both programs; pods stay.
    pub(super) fn kill(&self) -> Outcome<()> {
        self.kubelet.kill()?;
        self.containerd.kill()
    }

    /// Sends it to both programs.
    pub(super) fn signal(&self, signal: Signal) -> Outcome<()> {
        self.kubelet.signal(signal)?;
        self.containerd.signal(signal)
    }

    /// Ends the node with its pods, their mounts and their control groups.
    pub(super) fn end(&self) -> Outcome<()> {
        self.kill()?;
        let mut left = Vec::new();
        if !cgroup::kill(&self.group) {
            left.push("processes of pods".to_owned());
        }
        let pids = self.members();
        for pid in &pids {
            procfs::send(*pid, Signal::KILL);
        }
        if !procfs::wait_until_dead(&pids, DIE) {
            left.push("processes of the node".to_owned());
        }
        left.extend(cgroup::remove(&self.group).iter().map(|group| format!("group {}", group.display())));
        let _ = fs::remove_file(self.folder.join(ENTERED));
        if left.is_empty() {
            Ok(())
        } else {
            Err(Failure::failed(format_args!("k8s: this is left: {}", left.join("; "))))
        }
    }
}

/// The image for tests.
pub(super) const NAMED: image::Named = image::Named { name: "docker.io/runtide/busybox:1", command: &["sh"] };

/// The image of each pod's first process: it waits, and reaps.
const PAUSE: image::Named = image::Named {
    name: "docker.io/runtide/pause:1",
    command: &["sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 1000 & wait $!; done"],
};

/// `true` once the API server has the node, and it takes pods.
pub(super) fn is_ready(api: &Server, name: &str) -> bool {
    readiness(api, name).is_some_and(|ready| ready.get("status").is_some_and(|status| status == "True"))
}

/// Time at which the node last reported its state.
fn last_heartbeat(api: &Server, name: &str) -> Option<String> {
    Some(readiness(api, name)?.get("lastHeartbeatTime")?.as_str()?.to_owned())
}

fn readiness(api: &Server, name: &str) -> Option<serde_json::Value> {
    let answer = api.ask("GET", &format!("/api/v1/nodes/{name}"), &Body::NONE, ASK).and_then(|answer| answer.json());
    condition(&answer.ok()?)
}

/// The condition `Ready` of a node.
fn condition(node: &serde_json::Value) -> Option<serde_json::Value> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").is_some_and(|kind| kind == "Ready")).cloned()
}

/// A network between each pod and the machine, without rules in the packet filter. Its addresses follow from a port that no other
/// testbed of this machine's network has, and are of the block for carriers, which machines seldom use.
fn network(port: u16) -> serde_json::Value {
    let [high, low] = port.to_be_bytes();
    let subnet = format!("100.{}.{low}.0/24", 64 | (high & 63));
    json!({
        "cniVersion": "0.4.0",
        "name": "testbed",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/var/lib/cni/addresses",
                "ranges": [[{ "subnet": subnet }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_addresses_of_its_own_within_the_block() {
        let subnet = |port| {
            let network = network(port);
            network.pointer("/plugins/0/ipam/ranges/0/0/subnet").unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(subnet(20_000), "100.78.32.0/24");
        let all: std::collections::BTreeSet<_> = (20_000..32_000).map(subnet).collect();
        assert_eq!(all.len(), 12_000);
        assert!(all.iter().all(|subnet| (64..128).contains(&subnet.split('.').nth(1).unwrap().parse::<u8>().unwrap())));
    }

    #[test]
    fn the_state_of_a_node_is_found_among_its_conditions() {
        let ready = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-30T22:00:00Z" });
        let node = json!({ "status": { "conditions": [{ "type": "MemoryPressure", "status": "False" }, ready] } });
        assert_eq!(condition(&node), Some(ready));
        assert_eq!(condition(&json!({})), None);
    }
}
