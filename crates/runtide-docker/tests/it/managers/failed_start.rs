//! A start that fails after a run has ended, on a real daemon, which writes over that run's exit code.

use std::{net::TcpListener, num::NonZeroU16, time::Duration};

use runtide_core::{
    Detail, ExitStatus, Instance, InstanceId, InstanceState, ListOptions, Port, Protocol, RuntimeBackend as _,
    RuntimeEventKind as Kind, WatchOptions,
    manager::{InstanceSpec, Mount, MountSource},
};

use super::bench::Bench;

/// A program that ends with this code, and the folder that it is in: without it, the next start fails.
fn program(bench: &Bench, name: &str, code: i32) -> (InstanceSpec, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run");
    std::fs::write(&file, format!("#!/bin/sh\nexit {code}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = bench.spec(name, "");
    spec.command = vec!["/program/run".to_owned()];
    spec.mounts = vec![Mount::new(MountSource::Bind(folder.path().to_owned()), "/program")];
    (spec, folder)
}

async fn listed(bench: &Bench, id: &InstanceId, detail: Detail) -> Instance {
    let listing = bench.backend.list_instances(ListOptions::default().with_detail(detail)).await.unwrap();
    Instance::clone(listing.instances.iter().find(|one| one.id == *id).unwrap())
}

/// The states of the container that the watch shows, until one has a reason.
async fn until_the_reason(stream: &mut runtide_core::EventStream, id: &InstanceId) -> Vec<(&'static str, Instance)> {
    let mut seen = Vec::new();
    let read = async {
        loop {
            let event = stream.next().await.unwrap().unwrap();
            let name = event.kind.name();
            let (Kind::Started(now) | Kind::Stopped(now) | Kind::Present(now) | Kind::Updated { instance: now, .. }) =
                &event.kind
            else {
                continue;
            };
            if now.id == *id {
                seen.push((name, Instance::clone(now)));
                if now.reason.is_some() {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    seen
}

#[tokio::test]
async fn a_run_that_is_over_keeps_its_exit_when_a_start_fails() {
    let Some(bench) = Bench::new("failed-start").await else { return };
    for code in [0, 3, 127] {
        let (spec, folder) = program(&bench, &format!("run-{code}"), code);
        let id = bench.run_spec(&spec).await;
        let end = ExitStatus::code(code).end;
        let exit = Some(ExitStatus::code(code).with_oom_killed(false));
        assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), exit);
        let before = bench.backend.inspect(&id).await.unwrap();
        let mut stream = bench.backend.watch(WatchOptions::default()).await.unwrap();
        std::fs::remove_file(folder.path().join("run")).unwrap();
        let error = bench.lifecycle().start(&id).await.unwrap_err();
        assert_eq!(bench.inspect(&id)["State"]["ExitCode"], 127, "the daemon writes over it");

        let seen = until_the_reason(&mut stream, &id).await;
        for (name, now) in &seen {
            assert!(now.exit.is_none_or(|now| now.end == end), "{name} {now:?}");
        }
        let (_, last) = seen.last().unwrap();
        assert_eq!(last.exit.unwrap().end, end, "the watch had seen it");
        assert!(error.message().contains(&**last.reason.as_ref().unwrap()), "{error}: {last:?}");

        assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), exit, "the history of events has it");
        let after = bench.backend.inspect(&id).await.unwrap();
        assert_eq!(
            (after.exit, after.finished_at, &after.incarnation),
            (exit, before.finished_at, &before.incarnation)
        );
        assert!(after.reason.is_some() && after.state == InstanceState::Stopped);
        for detail in [Detail::Summary, Detail::Full] {
            let listed = listed(&bench, &id, detail).await;
            assert_eq!(listed.exit.unwrap().end, end, "{detail:?}");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_the_reason_and_no_exit() {
    let Some(bench) = Bench::new("failed-port").await else { return };
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = holder.local_addr().unwrap();
    drop(holder);
    let mut spec = bench.spec("a", "exit 0");
    spec.ports = vec![Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp).published_at(address)];
    let id = bench.run_spec(&spec).await;
    let exit = Some(ExitStatus::code(0).with_oom_killed(false));
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), exit);
    let _holder = TcpListener::bind(address).unwrap();
    let _ = bench.lifecycle().start(&id).await.unwrap_err();
    assert_eq!(bench.inspect(&id)["State"]["ExitCode"], 128, "the daemon writes over it");
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), exit);
    let after = bench.backend.inspect(&id).await.unwrap();
    assert_eq!(after.exit, exit);
    assert!(after.reason.as_ref().unwrap().contains(&address.port().to_string()));
}

#[tokio::test]
async fn a_container_that_never_ran_shows_why() {
    let Some(bench) = Bench::new("failed-first").await else { return };
    let mut stream = bench.backend.watch(WatchOptions::default()).await.unwrap();
    let mut spec = bench.spec("a", "");
    spec.command = vec!["/no/such/program".to_owned()];
    let id = bench.provision().create(&spec).await.unwrap();
    let _ = bench.lifecycle().start(&id).await.unwrap_err();
    let seen = until_the_reason(&mut stream, &id).await;
    let (_, last) = seen.last().unwrap();
    assert_eq!((last.state, last.exit, last.finished_at), (InstanceState::Created, None, None));
    assert!(last.reason.as_ref().unwrap().contains("no such file or directory"), "{last:?}");
    assert_eq!(listed(&bench, &id, Detail::Full).await.reason, last.reason);
}
