//! The examples on a real cluster: `RUNTIDE_TEST_K8S` is the kubeconfig of its administrator, `…_NODE` its node, `…_IMAGE` an image that it has.
//! Without them the test reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=k8s` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

use std::{
    env,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use runtide_conformance::{report::skip, testbed::Turn};
use runtide_core::{Instance, InstanceState, RuntimeEvent};

/// A cluster, and a namespace of one test.
struct Cluster {
    kubeconfig: String,
    namespace: String,
    _turn: Turn,
}

impl Cluster {
    async fn of_environment() -> Option<Self> {
        let Ok(kubeconfig) = env::var("RUNTIDE_TEST_K8S") else {
            skip("k8s", "k8s", "RUNTIDE_TEST_K8S is not set: cargo xtask testbed up k8s");
            return None;
        };
        let turn = Turn::shared("k8s").await.unwrap();
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        Some(Self { kubeconfig, namespace: format!("ex{:x}", nanos & 0xff_ffff_ffff), _turn: turn })
    }

    fn example(&self, name: &str, args: &[&str]) -> Output {
        let mut folder: PathBuf = env::current_exe().unwrap();
        folder.pop();
        folder.set_file_name("examples");
        let binary = folder.join(name);
        assert!(binary.is_file(), "{} is not there: run `cargo xtask test examples`", binary.display());
        let mut command = Command::new(binary);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The output of an example that must work.
    fn said(&self, name: &str, args: &[&str]) -> String {
        let output = self.example(name, args);
        assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies a manifest; the first word of each line that is no difference.
    fn apply(&self, manifest: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, manifest.replace("NAMESPACE", &self.namespace)).unwrap();
        let said = self.said("store", &["--store", "k8s:", "apply", file.to_str().unwrap()]);
        let lines = said.lines().filter(|line| !line.starts_with(' '));
        lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    fn remove(&self, reference: &str) {
        let said = self.said("store", &["--store", "k8s:", "delete", reference]);
        assert!(said.starts_with("deleted"), "{said}");
    }
}

/// A namespace, a kind that the server does not have yet, and an object of it.
const KIND: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: baskets.NAMESPACE.runtide.test}
spec:
  group: NAMESPACE.runtide.test
  scope: Namespaced
  names: {kind: Basket, plural: baskets}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: NAMESPACE.runtide.test/v1
kind: Basket
metadata: {name: mine, namespace: NAMESPACE}
spec: {apples: 3}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: NAMESPACE}
";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAMESPACE-talker, namespace: NAMESPACE}
spec:
  nodeName: NODE
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - {name: main, image: "IMAGE", imagePullPolicy: Never, command: [sh, -c, "echo hello; exec sleep 1000"]}
"#;

#[tokio::test]
async fn a_manifest_with_a_new_kind_is_applied_and_a_pod_of_it_is_watched_read_and_entered() {
    let Some(cluster) = Cluster::of_environment().await else { return };
    let applied = cluster.apply(KIND);
    assert_eq!(applied[..3], ["created", "created", "created"]);
    let again = cluster.apply(KIND);
    assert_eq!(again[1..3], ["unchanged", "unchanged"]);
    let basket = format!("{}.runtide.test/Basket/{}/mine", cluster.namespace, cluster.namespace);
    assert!(cluster.said("store", &["--store", "k8s:", "get", &basket]).contains("\"apples\":3"));

    if let (Ok(node), Ok(image)) = (env::var("RUNTIDE_TEST_K8S_NODE"), env::var("RUNTIDE_TEST_K8S_IMAGE")) {
        live(&cluster, &POD.replace("NODE", &node).replace("IMAGE", &image));
    } else {
        skip("k8s", "k8s", "RUNTIDE_TEST_K8S_NODE is not set: cargo xtask testbed up k8s");
    }
    cluster
        .remove(&format!("apiextensions.k8s.io/CustomResourceDefinition//baskets.{}.runtide.test", cluster.namespace));
    cluster.remove(&format!("/Namespace//{}", cluster.namespace));
}

/// The life of a pod, as the examples show it.
fn live(cluster: &Cluster, manifest: &str) {
    assert_eq!(cluster.apply(manifest), ["created"]);
    let name = format!("{}-talker", cluster.namespace);
    let listed = || {
        let said = cluster.said("ps", &["--backend", "k8s", "--all", "--json", "--name", &name]);
        let all: Vec<Instance> = serde_json::from_str(&said).expect(&said);
        all.into_iter().next()
    };
    let end = Instant::now() + Duration::from_secs(120);
    while listed().is_none_or(|pod| pod.state != InstanceState::Running) {
        assert!(Instant::now() < end, "{name} does not run: {:?}", listed());
        std::thread::sleep(Duration::from_millis(200));
    }
    let watched = cluster.said("watch", &["--backend", "k8s", "--for", "1s", "--json", "--name", &name]);
    let events: Vec<RuntimeEvent> = watched.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().any(|event| event.instance().is_some_and(|pod| pod.name == name)), "{watched}");
    assert!(cluster.said("logs", &["--backend", "k8s", &name]).contains("hello"));
    let entered = cluster.example("exec", &["--backend", "k8s", &name, "--", "sh", "-c", "echo in; exit 7"]);
    assert_eq!((entered.status.code(), String::from_utf8_lossy(&entered.stdout).trim()), (Some(7), "in"));
    cluster.remove(&format!("/Pod/{}/{name}", cluster.namespace));
}
