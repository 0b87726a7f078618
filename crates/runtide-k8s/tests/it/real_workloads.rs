//! Workloads on a real server, with its controllers, its scheduler and a real kubelet.

use std::time::{Duration, SystemTime};

use runtide_conformance::testbed::Testbed;
use runtide_core::ErrorKind;
use runtide_k8s::{Rollout, ScaleOptions, WorkloadKind, WorkloadRef, Workloads};
use serde_json::{Value, json};

use crate::real::{LABEL, Space, access, backend, testbed};

const LIMIT: Duration = Duration::from_secs(180);

/// A workload of the test's namespace, whose pods sleep on the real node.
async fn make(space: &Space, kind: WorkloadKind, name: &str, spec: Value) -> WorkloadRef {
    let image = std::env::var("RUNTIDE_TEST_K8S_IMAGE").unwrap_or_default();
    let labels = json!({ LABEL: space.name(), "app": name });
    let mut whole = json!({
        "selector": { "matchLabels": { "app": name } },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "main", "image": image, "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"] }],
            },
        },
    });
    let more = spec.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    let path = format!("/apis/apps/v1/namespaces/{}/{}s", space.name(), kind.as_str().to_lowercase());
    let body = json!({ "metadata": { "name": name, "labels": labels }, "spec": whole });
    space.server().ask("POST", &path, &body).await.unwrap();
    WorkloadRef::new(kind, space.name(), name)
}

/// Uids of the pods that run and are not marked for deletion.
async fn pods(space: &Space, name: &str) -> Vec<String> {
    let listed =
        space.server().ask("GET", &format!("{}?labelSelector=app={name}", space.pods()), &Value::Null).await.unwrap();
    let items = listed["items"].as_array().unwrap().iter();
    let alive =
        items.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running");
    let mut all: Vec<_> = alive.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

/// Takes a workload of one pod through all verbs.
async fn through_its_life(space: &Space, workloads: &Workloads, one: &WorkloadRef) {
    let done = workloads.wait_until_rolled_out(one, LIMIT).await.unwrap();
    assert_eq!((done.desired, done.current, done.ready, done.rollout), (1, 1, 1, Rollout::Complete));
    let before = pods(space, &one.name).await;
    assert_eq!(before.len(), 1);

    // An old version is refused, and so is another number.
    let stale = ScaleOptions::default().with_version("1");
    assert_eq!(workloads.scale(one, 3, stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    let other = ScaleOptions::default().with_current(Some(2));
    assert_eq!(workloads.scale(one, 3, other).await.unwrap_err().kind(), ErrorKind::Conflict);
    let counted = ScaleOptions::default().with_current(Some(1));
    let version = workloads.scale(one, 2, counted).await.unwrap();
    let scaled = workloads.wait_until_rolled_out(one, LIMIT).await.unwrap();
    assert!((scaled.desired, scaled.current, scaled.ready) == (2, 2, 2) && scaled.version != version);
    let before_restart = pods(space, &one.name).await;
    assert!(before_restart.len() == 2 && before_restart.contains(&before[0]), "{before_restart:?}");

    // Two restarts within a second are two.
    let first = workloads.restart(one).await.unwrap();
    let second = workloads.restart(one).await.unwrap();
    assert_ne!(first.version, second.version);
    assert!(matches!(second.rollout, Rollout::Progressing(_)), "{second:?}");
    let done = workloads.wait_until_rolled_out(one, LIMIT).await.unwrap();
    assert_eq!((done.updated, done.current, done.ready), (2, 2, 2));
    let after = pods(space, &one.name).await;
    assert!(after.len() == 2 && after.iter().all(|uid| !before_restart.contains(uid)), "{after:?}");

    workloads.scale(one, 0, ScaleOptions::default()).await.unwrap();
    let done = workloads.wait_until_rolled_out(one, LIMIT).await.unwrap();
    assert_eq!((done.desired, done.current), (0, 0));
}

#[tokio::test]
async fn workloads_are_scaled_restarted_and_waited_for_until_every_pod_is_new() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let cluster = backend(access(&admin));
    let workloads = Workloads::over(&cluster);
    let web = make(&space, WorkloadKind::Deployment, "web", json!({ "replicas": 1 })).await;
    let db = make(&space, WorkloadKind::StatefulSet, "db", json!({ "replicas": 1, "serviceName": "db" })).await;
    let set = make(&space, WorkloadKind::ReplicaSet, "set", json!({ "replicas": 1 })).await;
    let each = make(&space, WorkloadKind::DaemonSet, "each", json!({})).await;
    let lives = async {
        tokio::join!(through_its_life(&space, &workloads, &web), through_its_life(&space, &workloads, &db));
    };
    let others = async {
        for one in [&set, &each] {
            let done = workloads.wait_until_rolled_out(one, LIMIT).await.unwrap();
            assert!(done.ready >= 1 && done.desired == done.ready, "{done:?}");
        }
        workloads.scale(&set, 2, ScaleOptions::default()).await.unwrap();
        assert_eq!(workloads.wait_until_rolled_out(&set, LIMIT).await.unwrap().ready, 2);
        let before = pods(&space, "each").await;
        workloads.restart(&each).await.unwrap();
        workloads.wait_until_rolled_out(&each, LIMIT).await.unwrap();
        assert!(pods(&space, "each").await.iter().all(|uid| !before.contains(uid)));
    };
    tokio::join!(lives, others);

    let listing = workloads.list(WorkloadKind::Deployment, Some(&format!("{LABEL}={}", space.name()))).await.unwrap();
    assert!(listing.completeness.is_complete());
    assert_eq!(listing.workloads.iter().map(|one| &one.reference).collect::<Vec<_>>(), [&web]);
    assert_eq!(workloads.get(&web).await.unwrap().uid, listing.workloads[0].uid);

    let absent = WorkloadRef::new(WorkloadKind::Deployment, space.name(), "absent");
    for refused in [
        workloads.get(&absent).await.err(),
        workloads.restart(&absent).await.err(),
        workloads.scale(&absent, 1, ScaleOptions::default()).await.err(),
        workloads.wait_until_rolled_out(&absent, LIMIT).await.err(),
    ] {
        assert_eq!(refused.unwrap().kind(), ErrorKind::NotFound);
    }
    space.clear().await;
}

#[tokio::test]
async fn a_rollout_that_cannot_go_on_says_why_in_the_clusters_words() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let cluster = backend(access(&admin));
    let workloads = Workloads::over(&cluster);
    let quota = json!({ "metadata": { "name": "small" }, "spec": { "hard": { "pods": "1" } } });
    let quotas = format!("/api/v1/namespaces/{}/resourcequotas", space.name());
    space.server().ask("POST", &quotas, &quota).await.unwrap();
    let counted = async {
        loop {
            let quota = space.server().ask("GET", &format!("{quotas}/small"), &Value::Null).await.unwrap();
            if quota["status"]["hard"]["pods"] == "1" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, counted).await.unwrap();
    let deadline = json!({ "replicas": 2, "progressDeadlineSeconds": 3 });
    let web = make(&space, WorkloadKind::Deployment, "web", deadline).await;
    let error = workloads.wait_until_rolled_out(&web, LIMIT).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("reason")), (ErrorKind::Timeout, Some("ProgressDeadlineExceeded")), "{error}");
    assert!(error.fact("obstacles").unwrap().contains("exceeded quota: small"), "{error}");

    // A set has no condition of it, but events.
    let db = make(&space, WorkloadKind::StatefulSet, "db", json!({ "replicas": 1, "serviceName": "db" })).await;
    let says = async {
        while !workloads.obstacles(&db).await.unwrap().iter().any(|one| one.message.contains("exceeded quota: small")) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, says).await.unwrap();
    space.server().ask("DELETE", &format!("{quotas}/small"), &Value::Null).await.unwrap();

    // A pod that no node takes.
    let big = make(&space, WorkloadKind::Deployment, "big", json!({ "replicas": 1 })).await;
    workloads.wait_until_rolled_out(&big, LIMIT).await.unwrap();
    let cpu = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": std::env::var("RUNTIDE_TEST_K8S_IMAGE").unwrap(), "resources": { "requests": { "cpu": "999" } } }] } } } });
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/big", space.name());
    space.server().ask("PATCH", &path, &cpu).await.unwrap();
    let says = async {
        while !workloads
            .obstacles(&big)
            .await
            .unwrap()
            .iter()
            .any(|one| one.reason == "Unschedulable" && one.pod.is_some())
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, says).await.unwrap();
    let error = workloads.wait_until_rolled_out(&big, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("reason")), (ErrorKind::Timeout, Some("Unschedulable")), "{error}");
    assert!(error.fact("obstacles").unwrap().contains("Insufficient cpu"), "{error}");
    space.clear().await;
}

#[tokio::test]
async fn a_wait_outlasts_a_real_server_that_is_killed_and_started_again() {
    let Some([admin, _, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE", "RUNTIDE_TESTBED"]) else { return };
    let control = Testbed::of("k8s").unwrap();
    let space = Space::alone(&admin).await;
    let cluster = backend(access(&admin));
    let workloads = Workloads::over(&cluster);
    // Its pods are ready 6 s after they have begun: the server goes away meanwhile.
    let web = make(&space, WorkloadKind::Deployment, "web", json!({ "replicas": 1, "minReadySeconds": 6 })).await;
    let waiting = {
        let (workloads, web) = (workloads.clone(), web.clone());
        tokio::spawn(async move { workloads.wait_until_rolled_out(&web, LIMIT).await })
    };
    let began = SystemTime::now();
    while pods(&space, "web").await.is_empty() {
        assert!(began.elapsed().unwrap() < LIMIT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    control.run(&["kill"]).await.unwrap();
    assert!(!waiting.is_finished());
    control.run(&["start"]).await.unwrap();
    let done = waiting.await.unwrap().unwrap();
    assert_eq!((done.current, done.available, done.rollout), (1, Some(1), Rollout::Complete));
    space.clear().await;
}
