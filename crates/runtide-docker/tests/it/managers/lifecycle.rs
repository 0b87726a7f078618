//! The verbs on a real daemon.

use std::time::{Duration, Instant};

use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, RuntimeBackend as _, UnixSignal,
    manager::{Effect, RemoveOptions, RestartPolicy, StopOptions},
};
use runtide_docker::{Config, DockerBackend, Endpoint};

use super::bench::Bench;

const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
const USR1_IS_7: &str = "trap 'exit 7' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";

#[tokio::test]
async fn start_and_stop_have_their_effect_and_say_whether_they_did_anything() {
    let Some(bench) = Bench::new("start-stop").await else { return };
    let mut spec = bench.spec("a", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done");
    // The daemon's own ten seconds may be over before a busy machine runs the trap.
    spec.stop_timeout = Some(Duration::from_secs(120));
    let id = bench.provision().create(&spec).await.unwrap();
    assert_eq!(bench.status(&id), "created");
    assert_eq!(bench.lifecycle().stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    assert_eq!(bench.lifecycle().start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "running");
    assert_eq!(bench.lifecycle().start(&id).await.unwrap(), Effect::Unchanged);
    bench.says(&id, "ready").await;
    assert_eq!(bench.lifecycle().stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "exited");
    assert_eq!(bench.inspect(&id)["State"]["ExitCode"], 5);
    assert_eq!(bench.lifecycle().stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    // A container that ran and ended has been started, too.
    let short = bench.create("b", "exit 0").await;
    assert_eq!(bench.lifecycle().start(&short).await.unwrap(), Effect::Changed);
}

#[tokio::test]
async fn a_failed_start_is_a_conflict_and_never_ran() {
    let Some(bench) = Bench::new("no-start").await else { return };
    let mut spec = bench.spec("a", "");
    spec.command = vec!["/no/such/program".to_owned()];
    let id = bench.provision().create(&spec).await.unwrap();
    assert_eq!(bench.lifecycle().start(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_signal_of_a_stop_is_the_one_that_arrives() {
    let Some(bench) = Bench::new("stop-signal").await else { return };
    let options = StopOptions::default().with_signal(UnixSignal::USR1).with_timeout(Duration::from_secs(60));
    let id = bench.run("a", USR1_IS_7).await;
    bench.says(&id, "ready").await;
    assert_eq!(bench.lifecycle().stop(&id, options.clone()).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "exited");
    assert_eq!(bench.inspect(&id)["State"]["ExitCode"], 7);
    assert_eq!(bench.lifecycle().stop(&id, options.clone()).await.unwrap(), Effect::Unchanged);

    // The hard case before API 1.42: the policy starts it again after a signal that is not its own.
    let mut spec =
        bench.spec("b", "trap 'echo usr1; exit 7' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done");
    spec.stop_signal = Some(UnixSignal::TERM);
    spec.restart = RestartPolicy::Always;
    let id = bench.run_spec(&spec).await;
    bench.says(&id, "ready").await;
    assert_eq!(bench.lifecycle().stop(&id, options).await.unwrap(), Effect::Changed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.status(&id), "exited", "and it stays so");
    bench.says(&id, "usr1").await;
}

#[tokio::test]
async fn a_stop_with_a_signal_kills_an_instance_that_ignores_it_in_time() {
    let Some(bench) = Bench::new("stop-deaf").await else { return };
    let mut spec = bench.spec("a", "trap '' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done");
    // The timeout that would apply, had the call not given one.
    spec.stop_timeout = Some(Duration::from_secs(600));
    let id = bench.run_spec(&spec).await;
    bench.says(&id, "ready").await;
    let begun = Instant::now();
    let options = StopOptions::default().with_signal(UnixSignal::USR1).with_timeout(Duration::from_millis(300));
    assert_eq!(bench.lifecycle().stop(&id, options).await.unwrap(), Effect::Changed);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(300), "{:?}", begun.elapsed());
    assert_eq!(bench.status(&id), "exited");
    assert_eq!(bench.inspect(&id)["State"]["ExitCode"], 137);
}

#[tokio::test]
async fn a_stop_may_take_longer_than_the_deadline_when_it_was_given_the_time() {
    let Some(bench) = Bench::new("stop-long").await else { return };
    let id = bench.run("a", DEAF).await;
    bench.says(&id, "ready").await;
    // A busy machine takes seconds for the kill behind the timeout, which has the deadline for itself.
    let config = Config::default().with_endpoint(Endpoint::unix(bench.socket()));
    let backend = DockerBackend::new(config.with_deadline(Duration::from_secs(20))).unwrap();
    let options = StopOptions::default().with_timeout(Duration::from_millis(20_100));
    let begun = Instant::now();
    assert_eq!(backend.lifecycle().unwrap().stop(&id, options).await.unwrap(), Effect::Changed);
    assert!(begun.elapsed() >= Duration::from_millis(20_100), "{:?}", begun.elapsed());
    assert_eq!(bench.status(&id), "exited");
}

#[tokio::test]
async fn a_signal_reaches_only_running_instances_and_need_not_end_them() {
    let Some(bench) = Bench::new("kill").await else { return };
    let id = bench.create("a", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done").await;
    assert_eq!(bench.lifecycle().kill(&id, UnixSignal::TERM).await.unwrap_err().kind(), ErrorKind::Conflict);
    let _ = bench.lifecycle().start(&id).await.unwrap();
    bench.says(&id, "ready").await;
    bench.lifecycle().kill(&id, UnixSignal::HUP).await.unwrap();
    bench.says(&id, "hup").await;
    assert_eq!(bench.status(&id), "running");
    bench.lifecycle().kill(&id, UnixSignal::KILL).await.unwrap();
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap().unwrap().end, ExitStatus::code(137).end);
    assert_eq!(bench.lifecycle().kill(&id, UnixSignal::KILL).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn restart_begins_another_life() {
    let Some(bench) = Bench::new("restart").await else { return };
    let id = bench.create("a", USR1_IS_7).await;
    let quick = StopOptions::default().with_timeout(Duration::from_secs(1));
    bench.lifecycle().restart(&id, quick.clone()).await.unwrap();
    bench.says(&id, "ready").await;
    let first = bench.inspect(&id)["State"]["StartedAt"].clone();
    bench.lifecycle().restart(&id, quick.clone().with_signal(UnixSignal::USR1)).await.unwrap();
    let second = bench.inspect(&id)["State"].clone();
    assert_eq!(second["Status"], "running");
    assert_ne!(second["StartedAt"], first);
    bench.lifecycle().restart(&id, quick).await.unwrap();
    assert_ne!(bench.inspect(&id)["State"]["StartedAt"], second["StartedAt"]);
}

#[tokio::test]
async fn pause_and_unpause_say_whether_they_did_anything() {
    let Some(bench) = Bench::new("pause").await else { return };
    let id = bench.create("a", DEAF).await;
    let verbs = bench.lifecycle();
    assert_eq!(verbs.pause(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(verbs.unpause(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
    let _ = verbs.start(&id).await.unwrap();
    assert_eq!(verbs.unpause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "paused");
    assert_eq!(verbs.pause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(verbs.start(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(verbs.unpause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "running");
    assert_eq!(verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(verbs.stop(&id, StopOptions::default().with_timeout(Duration::ZERO)).await.unwrap(), Effect::Changed);
    assert_eq!(bench.status(&id), "exited");
}

#[tokio::test]
async fn remove_spares_running_instances_by_default() {
    let Some(bench) = Bench::new("remove").await else { return };
    let id = bench.run("a", DEAF).await;
    let verbs = bench.lifecycle();
    let error = verbs.remove(&id, RemoveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(bench.status(&id), "running");
    assert_eq!(verbs.remove(&id, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
    assert!(bench.is_gone(&id));
    assert_eq!(verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Unchanged);
    for error in [verbs.start(&id).await.unwrap_err(), verbs.kill(&id, UnixSignal::TERM).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(verbs.wait(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(verbs.pause(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn concurrent_removes_all_find_it_gone() {
    let Some(bench) = Bench::new("removers").await else { return };
    let id = bench.run("a", DEAF).await;
    let remove = || bench.lifecycle().remove(&id, RemoveOptions::default().with_kill());
    let (a, b, c, d) = tokio::join!(remove(), remove(), remove(), remove());
    assert!(bench.is_gone(&id));
    let changed = [a, b, c, d].into_iter().map(Result::unwrap).filter(|effect| *effect == Effect::Changed).count();
    assert!(changed >= 1, "at least one call removed it");
}

#[tokio::test]
async fn volumes_made_for_it_alone_go_when_asked() {
    let Some(bench) = Bench::new("anonymous").await else { return };
    for (name, options, left) in
        [("keep", RemoveOptions::default(), 200), ("go", RemoveOptions::default().with_anonymous_volumes(), 404)]
    {
        let body = serde_json::json!({
            "Image": Bench::image(), "Cmd": ["/bin/true"], "Volumes": {"/data": {}},
            "Labels": {"runtide.test": bench.prefix},
        });
        let made = bench.json("POST", &format!("/containers/create?name={}-{name}", bench.prefix), &body.to_string());
        let id = InstanceId::from(made["Id"].as_str().unwrap());
        let volume = bench.inspect(&id)["Mounts"][0]["Name"].as_str().unwrap().to_owned();
        assert_eq!(bench.lifecycle().remove(&id, options).await.unwrap(), Effect::Changed);
        assert_eq!(bench.raw("GET", &format!("/volumes/{volume}"), "").0, left, "{name}");
        bench.raw("DELETE", &format!("/volumes/{volume}"), "");
    }
}
