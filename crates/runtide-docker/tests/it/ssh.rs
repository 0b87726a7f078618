//! The daemon through a real sshd on loopback, which the testbed starts: `RUNTIDE_TEST_SSH` is its address, `RUNTIDE_TEST_SSH_PROGRAM` an
//! `ssh` that has the key for it.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use runtide_conformance::{
    report,
    testbed::{Testbed, Turn},
};
use runtide_core::{
    ErrorKind, EventStream, ListOptions, RuntimeBackend, RuntimeEvent, RuntimeEventKind, WatchOptions,
    manager::{LogOptions, StopOptions},
};
use runtide_docker::{Config, DockerBackend, Endpoint};

use crate::managers::bench::Bench;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The machine behind the sshd, and the daemon there.
struct Remote {
    address: String,
    program: PathBuf,
    scripts: tempfile::TempDir,
    bench: Bench,
    _turn: Turn,
}

impl Remote {
    /// `None` without an sshd or a daemon, with a line in the report. The sshd is exclusive to a test that ends it.
    async fn new(test: &str, is_exclusive: bool) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let (Some(address), Some(program)) = (variable("RUNTIDE_TEST_SSH"), variable("RUNTIDE_TEST_SSH_PROGRAM"))
        else {
            report::skip("managers", "docker", "RUNTIDE_TEST_SSH or RUNTIDE_TEST_SSH_PROGRAM is not set");
            return None;
        };
        // This turn first, in each test: that of the daemon is had with the bench.
        let turn = if is_exclusive { Turn::on("sshd").await } else { Turn::shared("sshd").await };
        let bench = Bench::new(test).await?;
        let scripts = tempfile::tempdir().unwrap();
        Some(Self { address, program: program.into(), scripts, bench, _turn: turn.unwrap() })
    }

    /// A program in front of `ssh`.
    fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.scripts.path().join(name);
        // Written by another process: a file that is open for writing, in a child of another test as well, cannot be run.
        let mut child = Command::new("sh")
            .args(["-c", "cat > \"$1\" && chmod +x \"$1\"", "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (at, ssh) = (self.scripts.path().display(), self.program.display());
        let text = format!("#!/bin/sh\nat='{at}'\nssh='{ssh}'\n{lines}\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        path
    }

    fn config(address: &str, program: &std::path::Path) -> Config {
        let Endpoint::Ssh(ssh) = address.parse().unwrap() else { panic!("{address}") };
        Config::default().with_endpoint(Endpoint::Ssh(ssh.with_program(program)))
    }

    fn backend(address: &str, program: &std::path::Path) -> DockerBackend {
        DockerBackend::new(Self::config(address, program)).unwrap()
    }

    /// The error of a first call.
    async fn error(address: &str, program: &std::path::Path) -> runtide_core::Error {
        Self::backend(address, program).connect().await.unwrap_err()
    }
}

async fn until(stream: &mut EventStream, what: impl Fn(&RuntimeEvent) -> bool) -> Arc<RuntimeEvent> {
    let found = async {
        loop {
            let event = stream.next().await.expect("an event").expect("no error");
            if what(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, found).await.expect("the event in time")
}

/// It is there and runs, by an edge or by a listing.
fn runs(name: &str) -> impl Fn(&RuntimeEvent) -> bool {
    move |event| {
        let is_there = matches!(event.kind, RuntimeEventKind::Started(_) | RuntimeEventKind::Present(_));
        is_there && event.kind.instance().is_some_and(|instance| instance.name == name)
    }
}

#[tokio::test]
async fn it_is_the_same_daemon_through_ssh() {
    let Some(remote) = Remote::new("ssh", false).await else { return };
    let bench = &remote.bench;
    let id = bench.run("a", "echo through ssh; exec sleep 600").await;
    bench.says(&id, "ssh").await;
    let socket = std::env::var("RUNTIDE_TEST_DOCKER").unwrap();
    let with_path = format!("{}{}", remote.address, socket.strip_prefix("unix://").unwrap());
    for address in [&remote.address, &with_path] {
        let backend = Remote::backend(address, &remote.program);
        let listed = backend.list_instances(ListOptions::default()).await.unwrap();
        assert!(listed.instances.iter().any(|instance| instance.id == id), "{address}");
        let mut logs = backend.logs().unwrap().logs(&id, LogOptions::default()).await.unwrap();
        let line = logs.next().await.unwrap().unwrap();
        assert!(format!("{line:?}").contains("through ssh"), "{line:?}");
    }
    let backend = Remote::backend(&remote.address, &remote.program);
    let _ = backend
        .lifecycle()
        .unwrap()
        .stop(&id, StopOptions::default().with_timeout(Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(bench.status(&id), "exited");
    let error = backend.lifecycle().unwrap().start(&"no-such-container".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_watch_survives_killed_connections_and_a_machine_that_goes_away() {
    let Some(remote) = Remote::new("ssh-watch", true).await else { return };
    let bench = &remote.bench;
    let program = remote.script("ssh", "echo $$ >> $at/pids\nexec $ssh \"$@\"");
    let backend = Remote::backend(&remote.address, &program);
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    until(&mut stream, |event| matches!(event.kind, RuntimeEventKind::ResyncEnd(_))).await;
    let name = |number: u32| format!("{}-{number}", bench.prefix);
    bench.run("0", "exec sleep 600").await;
    until(&mut stream, runs(&name(0))).await;

    let pids = fs::read_to_string(remote.scripts.path().join("pids")).unwrap();
    assert!(Command::new("kill").arg("-9").args(pids.lines()).output().is_ok());
    until(&mut stream, |event| matches!(event.kind, RuntimeEventKind::BackendDisconnected { .. })).await;
    bench.run("1", "exec sleep 600").await;
    until(&mut stream, runs(&name(1))).await;

    let Some(sshd) = Testbed::of("sshd") else { return };
    sshd.run(&["kill"]).await.unwrap();
    until(&mut stream, |event| matches!(event.kind, RuntimeEventKind::BackendDisconnected { .. })).await;
    bench.run("2", "exec sleep 600").await;
    sshd.run(&["start"]).await.unwrap();
    until(&mut stream, runs(&name(2))).await;
}

#[tokio::test]
async fn every_failure_on_the_way_has_its_kind() {
    let Some(remote) = Remote::new("ssh-errors", false).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("ssh://root@127.0.0.1:{}", listener.local_addr().unwrap().port());
    drop(listener);
    let error = Remote::error(&closed, &remote.program).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("Connection refused"), "{error}");

    let stranger = remote.script("stranger", "exec ssh -F /dev/null -o UserKnownHostsFile=/dev/null \"$@\"");
    let error = Remote::error(&remote.address, &stranger).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("Host key verification failed"), "{error}");

    let no_key = "exec $ssh -o IdentityFile=none -o IdentitiesOnly=yes -o IdentityAgent=none \"$@\"";
    let no_key = remote.script(
        "no-key",
        &no_key.replace("$ssh", "ssh -F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"),
    );
    let error = Remote::error(&remote.address, &no_key).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("Permission denied"), "{error}");

    // The same command by a name that the machine does not have.
    let no_docker = "n=$#; i=1; for a; do [ $i -lt $n ] && set -- \"$@\" \"$a\"; i=$((i+1)); done; shift $n\n\
                     exec $ssh \"$@\" 'no-such-docker system dial-stdio'";
    let error = Remote::error(&remote.address, &remote.script("no-docker", no_docker)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("docker system dial-stdio"), "{error}");

    let error = Remote::error(&format!("{}/nonexistent/docker.sock", remote.address), &remote.program).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("/nonexistent/docker.sock"), "{error}");
}

/// The command line of this machine takes the same address for the same daemon.
#[tokio::test]
async fn the_docker_command_reaches_it_too() {
    let Some(remote) = Remote::new("ssh-command", false).await else { return };
    let id = remote.bench.run("a", "exec sleep 600").await;
    let folder = remote.program.parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let ran =
        Command::new("docker").args(["-H", &remote.address, "ps", "--no-trunc", "--quiet"]).env("PATH", path).output();
    let Ok(ran) = ran else { return };
    assert!(String::from_utf8_lossy(&ran.stdout).contains(id.as_str()), "{ran:?}");
}
