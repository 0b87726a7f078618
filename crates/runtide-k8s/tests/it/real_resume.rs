//! A watch that goes on in another process: the position and the rows are in a file, and the changes in between are many.

use std::{path::Path, process::Stdio, time::Duration};

use runtide_conformance::testbed::Testbed;
use runtide_core::{Gap, InstanceTable, RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};
use runtide_k8s::{Config, KubeBackend, Namespaces};
use serde_json::json;

use crate::{
    real::{Space, access, testbed},
    scripted::until,
};

const PODS: usize = 50;
/// Changes of each pod while no process watches.
const CHANGES: usize = 20;
const SEQ: &str = "seq";
/// The files of the other process: kubeconfig, rows; and the namespace.
const KUBECONFIG: &str = "RUNTIDE_RESUME_KUBECONFIG";
const ROWS: &str = "RUNTIDE_RESUME_ROWS";
const NAMESPACE: &str = "RUNTIDE_RESUME_NAMESPACE";

fn backend(kubeconfig: &Path, namespace: &str) -> KubeBackend {
    let config = Config::new(access(kubeconfig)).with_namespaces(Namespaces::one(namespace));
    KubeBackend::new(config).unwrap()
}

/// Runs [`other_process`] on this position, and returns the lines that it prints.
async fn resumed(kubeconfig: &Path, namespace: &str, table: &InstanceTable) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.json");
    std::fs::write(&rows, serde_json::to_vec(table).unwrap()).unwrap();
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap());
    other.args(["--ignored", "--exact", "--nocapture", "real_resume::other_process"]);
    other.env(KUBECONFIG, kubeconfig).env(ROWS, &rows).env(NAMESPACE, namespace).stdin(Stdio::null());
    let ran = tokio::time::timeout(Duration::from_secs(180), other.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    text.lines().filter_map(|line| line.strip_prefix("event ").map(str::to_owned)).collect()
}

#[tokio::test]
#[ignore = "it is the other process of a_watch_goes_on_in_another_process"]
async fn other_process() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let table: InstanceTable = serde_json::from_slice(&std::fs::read(variable(ROWS)).unwrap()).unwrap();
    let backend = backend(Path::new(&variable(KUBECONFIG)), &variable(NAMESPACE));
    let (cursor, _) = table.position(backend.id()).expect("a position of this cluster");
    let options = WatchOptions::default().with_from(cursor.clone()).with_known(table.clone());
    let mut stream = backend.watch(options).await.unwrap();
    let is_over = |kind: &Kind| matches!(kind, Kind::CaughtUp | Kind::ResyncEnd(_));
    for event in until(&mut stream, is_over).await {
        let what = match &event.kind {
            Kind::ResyncBegin { gap } => format!("{gap:?}"),
            kind => kind.instance().map_or_else(String::new, |instance| {
                let seq = instance.labels.as_ref().and_then(|labels| labels.get(SEQ));
                format!("{} {}", instance.name, seq.unwrap_or_default())
            }),
        };
        println!("event {} {what}", event.kind.name());
    }
}

#[tokio::test]
async fn a_watch_goes_on_in_another_process_with_every_change_and_after_a_compaction_with_the_net_effect() {
    let Some([kubeconfig]) = testbed(["RUNTIDE_TEST_K8S"]) else { return };
    let Some(server) = Testbed::of("k8s") else {
        return runtide_conformance::report::skip("it", "k8s", "RUNTIDE_TESTBED is not set");
    };
    let space = Space::alone(&kubeconfig).await;
    for n in 0..PODS {
        space.pod(&format!("p{n:02}"), "Never", None).await;
    }
    let first = backend(&kubeconfig, space.name());
    let mut table = InstanceTable::default();
    let mut stream =
        first.watch(WatchOptions::default().with_bookmark_every(Some(Duration::from_millis(50)))).await.unwrap();
    while table.position(first.id()).is_none_or(|(cursor, _)| cursor.native.is_none()) || table.len() < PODS {
        for event in until(&mut stream, |kind| matches!(kind, Kind::Bookmark)).await {
            table.apply(&event);
        }
    }
    drop((stream, first));

    let label = async |n: usize, seq: usize| {
        let labels = json!({ "metadata": { "labels": { SEQ: seq.to_string() } } });
        space.server().ask("PATCH", &format!("{}/p{n:02}", space.pods()), &labels).await.unwrap();
    };
    for seq in 1..=CHANGES {
        for n in 0..PODS {
            label(n, seq).await;
        }
    }
    let seen = resumed(&kubeconfig, space.name(), &table).await;
    let changes: Vec<_> = seen.iter().filter(|line| line.starts_with("updated ")).cloned().collect();
    let every = (1..=CHANGES).flat_map(|seq| (0..PODS).map(move |n| format!("updated p{n:02} {seq}")));
    assert_eq!(changes, every.collect::<Vec<_>>(), "each change, in order");
    assert_eq!(
        seen.len(),
        PODS * CHANGES + 2,
        "an outage's end, and the end of what was missed: {:?}",
        (&seen[0], seen.last())
    );

    // The server has no history from before its start, and etcd none from before the compaction.
    label(0, CHANGES + 1).await;
    space.server().ask("DELETE", &format!("{}/p01", space.pods()), &json!({ "gracePeriodSeconds": 0 })).await.unwrap();
    server.run(&["compact", "kill", "start"]).await.unwrap();
    let seen = resumed(&kubeconfig, space.name(), &table).await;
    assert!(seen.contains(&format!("resync_begin {:?}", Gap::HistoryExpired)), "{seen:?}");
    let present = seen.iter().filter(|line| line.starts_with("present ")).count();
    assert!(present == PODS - 1 && seen.contains(&format!("present p00 {}", CHANGES + 1)), "{seen:?}");
    assert!(!seen.iter().any(|line| line.starts_with("updated ")), "{seen:?}");
    space.clear().await;
}
