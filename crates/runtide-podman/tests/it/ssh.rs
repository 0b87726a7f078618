//! The service through a real sshd on loopback, which the testbed starts: `RUNTIDE_TEST_SSH` is its address, `RUNTIDE_TEST_SSH_PROGRAM` an
//! `ssh` that has the key for it.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
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
    manager::{ImageProgress, LogOptions, StopOptions},
};
use runtide_podman::{Config, Endpoint, PodmanBackend};

use crate::bench::Bench;

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
            report::skip("managers", "podman", "RUNTIDE_TEST_SSH or RUNTIDE_TEST_SSH_PROGRAM is not set");
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

    fn backend(address: &str, program: &std::path::Path) -> PodmanBackend {
        PodmanBackend::new(Self::config(address, program)).unwrap()
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

/// Lines of a script that take its last argument, the command, from the others.
const LAST: &str =
    "n=$#; i=1; for a; do if [ $i -lt $n ]; then set -- \"$@\" \"$a\"; else last=$a; fi; i=$((i+1)); done; shift $n\n";

/// The address with the service's socket.
fn with_socket(address: &str) -> String {
    let service = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    format!("{address}{}", service.strip_prefix("unix://").unwrap())
}

#[tokio::test]
async fn it_is_the_same_service_through_ssh() {
    let Some(remote) = Remote::new("ssh", false).await else { return };
    let bench = &remote.bench;
    let id = bench.run("a", "echo through ssh; exec sleep 600").await;
    // Without a path the command there decides: by the variable, as an administrator of that machine would set it.
    let service = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let decides = format!("{LAST}exec $ssh \"$@\" \"CONTAINER_HOST={service} $last\"");
    let decides = remote.script("decides", &decides);
    for (address, program) in [(&remote.address, &decides), (&with_socket(&remote.address), &remote.program)] {
        let backend = Remote::backend(address, program);
        let listed = backend.list_instances(ListOptions::default()).await.unwrap();
        assert!(listed.instances.iter().any(|instance| instance.id == id), "{address}");
        let mut logs = backend.logs().unwrap().logs(&id, LogOptions::default().with_follow()).await.unwrap();
        let line = logs.next().await.unwrap().unwrap();
        assert!(format!("{line:?}").contains("through ssh"), "{line:?}");
        // An archive goes both ways.
        let images = backend.images().unwrap();
        let image = runtide_core::ImageRef::from(Bench::image());
        let saved = images.save(std::slice::from_ref(&image)).await.unwrap();
        let mut loaded = images.import(saved).await.unwrap();
        let mut last = None;
        while let Some(item) = loaded.next().await {
            last = Some(item.unwrap());
        }
        assert!(matches!(last, Some(ImageProgress::Done(_))), "{last:?}");
    }
    let backend = Remote::backend(&with_socket(&remote.address), &remote.program);
    let stop = StopOptions::default().with_timeout(Duration::from_secs(1));
    let _ = backend.lifecycle().unwrap().stop(&id, stop).await.unwrap();
    assert!(!bench.backend.inspect(&id).await.unwrap().state.is_alive());
    let error = backend.lifecycle().unwrap().start(&"no-such-container".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    bench.clear().await;
}

/// A connection of the command's file has a key of its own.
#[tokio::test]
async fn the_key_of_a_connection_is_the_one_that_is_used() {
    let Some(remote) = Remote::new("ssh-key", false).await else { return };
    let folder = remote.program.parent().unwrap().parent().unwrap().to_owned();
    let plain = format!(
        "exec ssh -F /dev/null -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile='{}' -o IdentityAgent=none \"$@\"",
        folder.join("known_hosts").display()
    );
    let program = remote.script("plain", &plain);
    let address = with_socket(&remote.address);
    let backend = |identity: Option<&str>| {
        let Endpoint::Ssh(ssh) = address.parse().unwrap() else { panic!("{address}") };
        let ssh = ssh.with_program(&program).with_identity(identity).unwrap();
        PodmanBackend::new(Config::default().with_endpoint(Endpoint::Ssh(ssh))).unwrap()
    };
    let key = folder.join("user_key");
    backend(Some(key.to_str().unwrap())).connect().await.unwrap();
    // Names that ssh would expand are names.
    let odd = remote.scripts.path().join("100%d \"key\\");
    fs::copy(&key, &odd).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o600)).unwrap();
    backend(Some(odd.to_str().unwrap())).connect().await.unwrap();
}

#[tokio::test]
async fn a_watch_survives_killed_connections_and_a_machine_that_goes_away() {
    let Some(remote) = Remote::new("ssh-watch", true).await else { return };
    let bench = &remote.bench;
    let program = remote.script("ssh", "echo $$ >> $at/pids\nexec $ssh \"$@\"");
    let backend = Remote::backend(&with_socket(&remote.address), &program);
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
    let no_podman = format!("{LAST}exec $ssh \"$@\" 'no-such-podman system dial-stdio'");
    let error = Remote::error(&remote.address, &remote.script("no-podman", &no_podman)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("podman --remote system dial-stdio"), "{error}");

    let error = Remote::error(&format!("{}/nonexistent/podman.sock", remote.address), &remote.program).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("/nonexistent/podman.sock"), "{error}");
}
