//! Pods on a real Podman.

use std::time::Duration;

use runtide_core::{ErrorKind, GroupKind, ListOptions, RuntimeBackend, manager::Effect};
use runtide_podman::PodState;

use crate::bench::Bench;

#[tokio::test]
async fn a_pod_is_a_group_whose_members_are_instances() {
    let Some(bench) = Bench::new("pod").await else { return };
    let (pods, name) = (bench.backend.pods(), format!("{}-shop", bench.prefix));
    let _ = pods.remove(&name, true).await;
    let id = pods.create(&name, &[]).await.unwrap();
    assert_eq!(pods.create(&name, &[]).await.unwrap_err().kind(), ErrorKind::AlreadyExists);

    let spec = bench.spec("member", "sleep 1000").with_native([("pod", name.as_str())]);
    let member = bench.provision().create(&spec).await.unwrap();
    assert_eq!(pods.start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(pods.start(&id).await.unwrap(), Effect::Unchanged);

    let listed = pods.list().await.unwrap().into_iter().find(|pod| pod.id == id).unwrap();
    assert_eq!(
        (listed.name.as_str(), listed.state, &listed.instances[..]),
        (&*name, PodState::Running, &[member.clone()][..])
    );
    let instances = bench.backend.list_instances(ListOptions::default()).await.unwrap().instances;
    let of_pod: Vec<_> =
        instances.iter().filter(|one| one.group.as_ref().is_some_and(|group| group.name == name)).collect();
    assert_eq!(of_pod.len(), 1, "the infra container is no instance");
    let full = bench.backend.inspect(&member).await.unwrap();
    let group = full.group.as_ref().unwrap();
    assert_eq!((group.kind, &group.name), (GroupKind::Pod, &name), "an inspection says the same");
    assert!(full.state.is_alive());

    assert_eq!(pods.remove(&name, false).await.unwrap_err().kind(), ErrorKind::Conflict);
    pods.stop(&name, Duration::from_millis(1)).await.unwrap();
    assert!(!bench.backend.inspect(&member).await.unwrap().state.is_alive());
    assert_eq!(pods.remove(&name, true).await.unwrap(), Effect::Changed);
    assert_eq!(pods.remove(&name, true).await.unwrap(), Effect::Unchanged);
    assert_eq!(bench.backend.inspect(&member).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_pod_is_stopped_also_while_one_of_its_members_has_ended() {
    let Some(bench) = Bench::new("degraded").await else { return };
    let (pods, name) = (bench.backend.pods(), format!("{}-degraded", bench.prefix));
    let _ = pods.remove(&name, true).await;
    let id = pods.create(&name, &[]).await.unwrap();
    let create = async |part: &str, command: &str| {
        let spec = bench.spec(part, command).with_native([("pod", name.as_str())]);
        bench.provision().create(&spec).await.unwrap()
    };
    let (server, job) = (create("server", "sleep 1000").await, create("job", "true").await);
    pods.start(&id).await.unwrap();
    while bench.backend.inspect(&job).await.unwrap().state.is_alive() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pods.remove(&name, false).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(bench.backend.inspect(&server).await.unwrap().state.is_alive(), "a refused removal ends nothing");
    assert_eq!(pods.stop(&name, Duration::ZERO).await.unwrap(), Effect::Changed);
    assert!(!bench.backend.inspect(&server).await.unwrap().state.is_alive());
    assert_eq!(pods.stop(&name, Duration::ZERO).await.unwrap(), Effect::Unchanged);
    assert_eq!(pods.remove(&name, false).await.unwrap(), Effect::Changed);
}

#[tokio::test]
async fn a_name_that_is_more_than_a_name_is_refused() {
    let Some(bench) = Bench::new("hostile").await else { return };
    for name in ["", "../x", "a b", "a?x=1", "-a"] {
        assert_eq!(bench.backend.pods().start(name).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
}

#[tokio::test]
async fn each_failure_of_a_pod_has_its_kind() {
    let Some(bench) = Bench::new("pod-kinds").await else { return };
    let pods = bench.backend.pods();
    let name = format!("{}-shop", bench.prefix);
    let _ = pods.remove(&name, true).await;
    let other = bench.provision().create(&bench.spec("other", "true")).await.unwrap();
    let taken = pods.create(&format!("{}-other", bench.prefix), &[]).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "a container has the name: {taken}");
    let id = pods.create(&name, &[]).await.unwrap();
    let taken = pods.create(&name, &[]).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");
    assert_eq!(pods.create("a b", &[]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(
        pods.list().await.unwrap().iter().any(|pod| pod.id == id && pod.labels.is_empty()),
        "no label but the user's"
    );

    let absent = "runtide-no-such-pod";
    for error in [
        pods.start(absent).await.unwrap_err(),
        pods.stop(absent, Duration::from_secs(1)).await.unwrap_err(),
        pods.stop(absent, Duration::ZERO).await.unwrap_err(),
        // Podman takes the beginning of an id for the id.
        pods.start(&id[..8]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!(pods.remove(absent, true).await.unwrap(), Effect::Unchanged);
    assert_eq!(pods.remove(&id[..8], true).await.unwrap(), Effect::Unchanged);

    let mut missing = bench.spec("missing", "").with_native([("pod", name.as_str())]);
    missing.command = vec!["/no/such/program".to_owned()];
    bench.provision().create(&missing).await.unwrap();
    let error = pods.start(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("/no/such/program") && !error.message().contains("Errs"), "{error}");
    assert_eq!(pods.remove(&name, true).await.unwrap(), Effect::Changed);
    bench.lifecycle().remove(&other, runtide_core::manager::RemoveOptions::default()).await.unwrap();
}
