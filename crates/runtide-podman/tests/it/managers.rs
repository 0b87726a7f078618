//! Verbs on a real Podman.

use runtide_core::{
    ErrorKind, ExitStatus, RuntimeBackend,
    manager::{Effect, LogOptions, LogSource, RemoveOptions, StopOptions},
};

use crate::bench::Bench;

/// The whole output of a stream, by source.
async fn read(bench: &Bench, id: &runtide_core::InstanceId, options: LogOptions) -> (String, String) {
    let mut lines = bench.logs().logs(id, options).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(line) = lines.next().await {
        let line = line.unwrap();
        let into = if line.source == LogSource::Stderr { &mut err } else { &mut out };
        into.push_str(std::str::from_utf8(&line.bytes).unwrap());
    }
    (out, err)
}

/// Until the container has printed this: the signal that a test sends would come too early.
async fn prints(bench: &Bench, id: &runtide_core::InstanceId, text: &str) {
    while !read(bench, id, LogOptions::default()).await.0.contains(text) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_follow_goes_to_the_last_line_and_a_tail_counts_lines() {
    let Some(bench) = Bench::new("logs").await else { return };
    let id = bench.run("print", "sleep 0.5; for n in 1 2 3; do echo o$n; echo e$n >&2; done; printf last").await;
    let all = read(&bench, &id, LogOptions::default().with_follow()).await;
    assert_eq!(all, ("o1\no2\no3\nlast".to_owned(), "e1\ne2\ne3\n".to_owned()));
    assert_eq!(read(&bench, &id, LogOptions::default()).await, all);
    let tail = LogOptions::default().with_tail(Some(2)).with_sources(vec![LogSource::Stdout]);
    assert_eq!(read(&bench, &id, tail).await.0, "o3\nlast");
    bench.clear().await;
}

#[tokio::test]
async fn a_line_of_many_parts_is_whole_in_a_tail() {
    let Some(bench) = Bench::new("parts").await else { return };
    let script = "head -c 70000 /dev/zero | tr '\\0' a; echo; echo b";
    let id = bench.run("print", script).await;
    bench.lifecycle().wait(&id).await.unwrap();
    let (out, _) = read(&bench, &id, LogOptions::default().with_tail(Some(2))).await;
    assert_eq!((out.len(), out.ends_with("a\nb\n")), (70_003, true));
    bench.clear().await;
}

#[tokio::test]
async fn an_output_that_is_stored_nowhere_is_unsupported_with_its_driver() {
    let Some(bench) = Bench::new("driver").await else { return };
    let spec = bench.spec("none", "echo a").with_native([("log_driver", "none")]);
    let id = bench.provision().create(&spec).await.unwrap();
    let error = bench.logs().logs(&id, LogOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("'none'"), "{error}");
    bench.clear().await;
}

#[tokio::test]
async fn the_exit_of_a_container_that_removes_itself_is_known() {
    let Some(bench) = Bench::new("auto").await else { return };
    let spec = bench.spec("gone", "sleep 1; exit 7").with_native([("auto_remove", "true")]);
    let id = bench.provision().create(&spec).await.unwrap();
    bench.lifecycle().start(&id).await.unwrap();
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap().map(|exit| exit.end), Some(ExitStatus::code(7).end));
}

#[tokio::test]
async fn a_stop_by_the_callers_signal_ends_the_run() {
    let Some(bench) = Bench::new("signal").await else { return };
    let id = bench.run("trap", "trap 'exit 5' USR1; echo up; sleep 1000 & wait").await;
    prints(&bench, &id, "up").await;
    let options =
        StopOptions::default().with_signal("USR1".parse().ok()).with_timeout(Some(std::time::Duration::from_secs(120)));
    assert_eq!(bench.lifecycle().stop(&id, options).await.unwrap(), Effect::Changed);
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap().map(|exit| exit.end), Some(ExitStatus::code(5).end));
    bench.clear().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_containers_fault_and_leaves_no_exit() {
    let Some(bench) = Bench::new("missing").await else { return };
    let mut spec = bench.spec("missing", "");
    spec.command = vec!["/no/such/program".to_owned()];
    let id = bench.provision().create(&spec).await.unwrap();
    let error = bench.lifecycle().start(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap_err().kind(), ErrorKind::Conflict, "it never ran");
    assert_eq!(bench.backend.inspect(&id).await.unwrap().exit, None);
    bench.clear().await;
}

#[tokio::test]
async fn what_depends_on_something_missing_is_refused_before_it_is_created() {
    let Some(bench) = Bench::new("depends").await else { return };
    let network = {
        let mut spec = bench.spec("a", "true");
        spec.networks = vec!["no-such-network".into()];
        spec
    };
    let volume = {
        let mut spec = bench.spec("a", "true");
        let source = runtide_core::manager::MountSource::Volume("no-such-volume".into());
        spec.mounts = vec![runtide_core::manager::Mount::new(source, "/v")];
        spec
    };
    let mut image = bench.spec("a", "true");
    image.image = Some("localhost/no/such:image".into());
    for spec in [network, volume, image] {
        let error = bench.provision().create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let id = bench.provision().create(&bench.spec("a", "true")).await.unwrap();
    let error = bench.provision().create(&bench.spec("a", "true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(bench.lifecycle().remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
}

#[tokio::test]
async fn a_restart_without_a_timeout_leaves_the_container_its_own() {
    let Some(bench) = Bench::new("restart-grace").await else { return };
    let command = "trap 'echo ended in time; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let spec = bench.spec("trap", command).with_stop_timeout(std::time::Duration::from_secs(120));
    let id = bench.provision().create(&spec).await.unwrap();
    bench.lifecycle().start(&id).await.unwrap();
    prints(&bench, &id, "up").await;
    bench.lifecycle().restart(&id, StopOptions::default()).await.unwrap();
    let (out, _) = read(&bench, &id, LogOptions::default()).await;
    assert!(out.contains("ended in time"), "{out}");
}

#[tokio::test]
async fn a_follow_ends_at_its_time_though_the_container_runs_on() {
    let Some(bench) = Bench::new("until").await else { return };
    let id = bench.run("talk", "while :; do echo line; sleep 0.2; done").await;
    prints(&bench, &id, "line").await;
    let until = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let options = LogOptions::default().with_follow().with_until(Some(until));
    let (out, _) = tokio::time::timeout(std::time::Duration::from_secs(60), read(&bench, &id, options)).await.unwrap();
    assert!(out.starts_with("line\n"), "{out}");
    assert!(bench.backend.inspect(&id).await.unwrap().state.is_alive());
}

#[tokio::test]
async fn follows_and_waits_end_when_their_backend_is_closed() {
    let Some(bench) = Bench::new("closed").await else { return };
    let id = bench.run("sleep", "echo up; sleep 1000").await;
    let mut lines = bench.logs().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    assert_eq!(&lines.next().await.unwrap().unwrap().bytes[..], b"up\n");
    let limit = std::time::Duration::from_secs(30);
    let ends = async { tokio::time::timeout(limit, bench.lifecycle().wait(&id)).await.expect("it ends") };
    let closes = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        bench.backend.close().await.unwrap();
    };
    let (waited, ()) = tokio::join!(ends, closes);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Cancelled);
    let followed = tokio::time::timeout(limit, lines.next()).await.expect("it ends").unwrap();
    assert_eq!(followed.unwrap_err().kind(), ErrorKind::Cancelled);
}
