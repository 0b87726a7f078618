//! Tests that need a real server and a real node: TLS, the rights of a user, and what a kubelet makes of output.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use runtide_conformance::{report::skip, testbed::Turn};
use runtide_core::{ErrorKind, InstanceId, ListOptions, RuntimeBackend, RuntimeEventKind, WatchOptions, manager::*};
use runtide_k8s::{Access, Config, Identity, KubeBackend, Namespaces, Pem, User};
use serde_json::{Value, json};

use crate::{
    scripted::{is_synced, until},
    server::Server,
};

pub(crate) const LABEL: &str = "runtide.test";

/// The values of variables of the testbed; `None` where one is not set, and the test is skipped.
pub(crate) fn testbed<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    match names.iter().find(|name| std::env::var_os(name).is_none()) {
        Some(name) => {
            skip("it", "k8s", format!("{name} is not set: cargo xtask testbed up k8s"));
            None
        }
        None => Some(names.map(|name| std::env::var_os(name).unwrap_or_default().into())),
    }
}

/// The access of a kubeconfig of the testbed, which is JSON with one cluster and one user.
pub(crate) fn access(kubeconfig: &Path) -> Access {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let cluster = &config["clusters"][0]["cluster"];
    let file = |value: &Value| Pem::File(value.as_str().unwrap().into());
    let mut access = Access::new(cluster["server"].as_str().unwrap());
    access.ca = Some(file(&cluster["certificate-authority"]));
    let user = &config["users"][0]["user"];
    if let Some(token) = user["token"].as_str() {
        access.user = User::Token(token.into());
    } else {
        access.identity = Some(Identity::new(file(&user["client-certificate"]), file(&user["client-key"])));
    }
    access
}

pub(crate) fn backend(access: Access) -> KubeBackend {
    // A busy machine's node takes its time to end a pod.
    KubeBackend::new(Config::new(access).with_deadline(Duration::from_secs(180))).unwrap()
}

/// A namespace of a test, which is removed at its end.
pub(crate) struct Space {
    server: Server,
    name: String,
    _turn: Turn,
}

impl Space {
    pub(crate) async fn new(kubeconfig: &Path, name: Option<&str>) -> Self {
        Self::with(Turn::shared("k8s").await.unwrap(), kubeconfig, name).await
    }

    /// For a test that kills the server.
    pub(crate) async fn alone(kubeconfig: &Path) -> Self {
        Self::with(Turn::on("k8s").await.unwrap(), kubeconfig, None).await
    }

    async fn with(turn: Turn, kubeconfig: &Path, name: Option<&str>) -> Self {
        let server = Server::of(kubeconfig).unwrap();
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let own = format!("it{:x}", nanos & 0xff_ffff_ffff);
        if name.is_none() {
            server.make_namespace(&own, json!({ LABEL: own })).await.unwrap();
        }
        Self { server, name: name.map_or(own, str::to_owned), _turn: turn }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.name)
    }

    /// A pod that runs this script on the real node, or, without a script, none yet.
    pub(crate) async fn pod(&self, name: &str, restart: &str, script: Option<&str>) -> InstanceId {
        self.pod_made_with(name, restart, script, json!({})).await
    }

    /// A pod whose container has these fields too.
    async fn pod_made_with(&self, name: &str, restart: &str, script: Option<&str>, fields: Value) -> InstanceId {
        let node = std::env::var("RUNTIDE_TEST_K8S_NODE").unwrap_or_default();
        let image = std::env::var("RUNTIDE_TEST_K8S_IMAGE").unwrap_or_default();
        let mut spec = json!({
            "restartPolicy": restart, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 2,
            "containers": [{ "name": "main", "image": image, "imagePullPolicy": "Never", "command": ["sh", "-c", script.unwrap_or("exit")] }],
        });
        spec["containers"][0].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        match script {
            Some(_) => spec["nodeName"] = json!(node),
            None => spec["schedulerName"] = json!("absent"),
        }
        let body = json!({ "metadata": { "name": name, "labels": { LABEL: self.name } }, "spec": spec });
        loop {
            // Right after its namespace a pod is refused until the namespace has its service account.
            match self.server.try_ask("POST", &self.pods(), &body).await.unwrap() {
                (200..=299, made) => return made["metadata"]["uid"].as_str().unwrap().into(),
                (403 | 500, _) => tokio::time::sleep(Duration::from_millis(100)).await,
                (status, answer) => panic!("{status} {answer}"),
            }
        }
    }

    pub(crate) async fn clear(self) {
        let pods = format!("{}?labelSelector={LABEL}", self.pods());
        let _ = self.server.try_ask("DELETE", &pods, &json!({ "gracePeriodSeconds": 0 })).await;
        if self.name.starts_with("it") {
            let path = format!("/api/v1/namespaces/{}", self.name);
            let _ = self.server.try_ask("DELETE", &path, &Value::Null).await;
        }
    }
}

async fn text(mut stream: LogStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(line) = stream.next().await {
        all.extend_from_slice(&line.unwrap().bytes);
    }
    all
}

#[tokio::test]
async fn the_servers_certificate_is_checked_and_the_clients_says_who_asks() {
    let Some([admin, token]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_TOKEN"]) else { return };
    let _turn = Turn::shared("k8s").await.unwrap();
    for kubeconfig in [&admin, &token] {
        let cluster = backend(access(kubeconfig));
        assert!(cluster.connect().await.unwrap().version.starts_with("v1."), "{}", kubeconfig.display());
        cluster.list_instances(ListOptions::default()).await.unwrap();
    }
    let own = access(&admin);
    // A certificate that no authority of ours made, and one that is another host's.
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, other.pem()).unwrap();
    for wrong in [own.clone().with_ca(Some(Pem::File(path))), own.clone().with_tls_server_name("example.com")] {
        let error = backend(wrong).connect().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("TLS"), "{error}");
    }
    backend(own.clone().with_tls_server_name("kubernetes.default.svc")).connect().await.unwrap();
    let mut unchecked = own.clone();
    unchecked.ca = None;
    backend(unchecked.with_insecure()).connect().await.unwrap();
    // A request without credentials, and one with a token of no user.
    let anonymous = own.with_identity(None);
    let error = backend(anonymous.clone()).list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "as system:anonymous: {error}");
    let stranger = anonymous.with_user(User::Token("s3cret-of-no-user".into()));
    let error = backend(stranger).list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn a_user_who_may_read_one_namespace_sees_that_one_and_changes_nothing() {
    let names = ["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_READER", "RUNTIDE_TEST_K8S_READER_NAMESPACE"];
    let Some([admin, reader, namespace]) = testbed(names) else { return };
    let namespace = namespace.to_str().unwrap().to_owned();
    let space = Space::new(&admin, Some(&namespace)).await;
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let id = space.pod(&format!("seen-{:x}", nanos & 0xff_ffff), "Never", None).await;
    let as_reader = |namespaces| KubeBackend::new(Config::new(access(&reader)).with_namespaces(namespaces)).unwrap();

    let error = as_reader(Namespaces::All).list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("reader"), "the server's own words: {error}");

    let own = as_reader(Namespaces::one(namespace.as_str()));
    let listing = own.list_instances(ListOptions::default()).await.unwrap();
    assert!(listing.is_complete() && listing.instances.iter().any(|one| one.id == id));
    assert_eq!(own.inspect(&id).await.unwrap().id, id);
    let (verbs, kill) = (own.lifecycle().unwrap(), RemoveOptions::default().with_kill());
    for refused in [verbs.remove(&id, kill).await, verbs.stop(&id, StopOptions::default()).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(own.inspect(&id).await.unwrap().id, id, "it is still there");

    // Of two namespaces one is shut: it is unknown, not empty, and the other is watched.
    let both = as_reader(Namespaces::Only(vec![namespace.clone(), "default".to_owned()]));
    let listing = both.list_instances(ListOptions::default()).await.unwrap();
    assert!(!listing.is_complete() && listing.instances.iter().any(|one| one.id == id));
    let mut events = both.watch(WatchOptions::default()).await.unwrap();
    let seen = until(&mut events, is_synced).await;
    let RuntimeEventKind::ResyncEnd(end) = &seen.last().unwrap().kind else { panic!("{seen:?}") };
    assert!(format!("{end:?}").contains("default"), "{end:?}");
    let admins = backend(access(&admin));
    admins.lifecycle().unwrap().remove(&id, RemoveOptions::default()).await.unwrap();
    until(&mut events, |kind| matches!(kind, RuntimeEventKind::Removed(gone) if gone.id == id)).await;
    space.clear().await;
}

#[tokio::test]
async fn output_is_what_the_process_wrote_though_the_node_writes_times_into_long_lines() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let script = "printf 'first\\n'; head -c 100000 /dev/zero | tr '\\0' x; printf '\\nno end'";
    let id = space.pod("long", "Never", Some(script)).await;
    let cluster = backend(access(&admin));
    let logs = cluster.logs().unwrap();
    let followed = text(logs.logs(&id, LogOptions::default().with_follow()).await.unwrap()).await;
    let exit = cluster.lifecycle().unwrap().wait(&id).await.unwrap();
    assert_eq!(exit.unwrap().end, runtide_core::ExitCause::Code(0));
    let expected = [b"first\n".to_vec(), vec![b'x'; 100_000], b"\nno end".to_vec()].concat();
    let read = text(logs.logs(&id, LogOptions::default()).await.unwrap()).await;
    let newline = expected.len();
    // containerd ends the last line of an output, if the process did not.
    for output in [&followed, &read] {
        assert!(output.len() <= newline + 1 && output.starts_with(&expected), "{} of {newline}", output.len());
    }
    let mut tail = logs.logs(&id, LogOptions::default().with_tail(Some(1)).with_timestamps()).await.unwrap();
    let last = tail.next().await.unwrap().unwrap();
    assert!(last.bytes.starts_with(b"no end") && last.at.is_some(), "{last:?}");
    space.clear().await;
}

#[tokio::test]
async fn a_run_that_was_started_again_has_its_output_followed_and_kept_until_the_next() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let id = space.pod("again", "OnFailure", Some("echo begin; sleep 1; echo end; exit 3")).await;
    let cluster = backend(access(&admin));
    let mut follow = cluster.logs().unwrap().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    let mut lines = Vec::new();
    while lines.len() < 4 {
        let line = tokio::time::timeout(Duration::from_secs(120), follow.next()).await.unwrap().unwrap().unwrap();
        lines.push(String::from_utf8(line.bytes.to_vec()).unwrap());
    }
    assert_eq!(lines, ["begin\n", "end\n", "begin\n", "end\n"]);
    // The node knows of an earlier run once it has reported its end.
    let previous = loop {
        match cluster.logs_of_previous_run(&id, LogOptions::default()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => tokio::time::sleep(Duration::from_millis(100)).await,
            previous => break previous.unwrap(),
        }
    };
    assert_eq!(text(previous).await, b"begin\nend\n");
    let removed = cluster.lifecycle().unwrap().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
    assert_eq!(removed, Effect::Changed);
    let gone = cluster.inspect(&id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    space.clear().await;
}

#[tokio::test]
async fn a_process_has_its_code_its_terminal_and_no_input_that_could_not_end() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let id = space.pod("host", "Never", Some("trap 'exit 0' TERM; sleep 100000 & wait")).await;
    let cluster = backend(access(&admin));
    while cluster.inspect(&id).await.unwrap().state != runtide_core::InstanceState::Running {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let exec = cluster.exec().unwrap();
    let run = |argv: &[&str]| {
        ExecOptions::default().with_argv(argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    for (argv, code) in [(&["sh", "-c", "kill -9 $$"][..], 137), (&["no-such-program"], 127), (&["/etc"], 126)] {
        let session = exec.exec(&id, run(argv)).await.unwrap();
        let said = text(session.output).await;
        let exit = session.control.wait().await.unwrap().unwrap();
        assert_eq!(exit.end, runtide_core::ExitCause::Code(code), "{argv:?}: {}", String::from_utf8_lossy(&said));
        assert_eq!(said.is_empty(), code == 137, "the node's words are the output");
    }
    let columns = |n| std::num::NonZeroU16::new(n).unwrap();
    let tty = run(&["sh", "-c", "stty size; read line; echo \"got $line\"; read more || echo end"])
        .with_tty(Some(TtySize::new(columns(81), columns(25))))
        .with_stdin();
    let mut session = exec.exec(&id, tty).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"word\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut stdin).await.unwrap();
    let said = String::from_utf8(text(session.output).await).unwrap();
    assert!(said.contains("got word") && said.contains("end"), "{said:?}");
    let piped = exec.exec(&id, run(&["cat"]).with_stdin()).await.unwrap_err();
    assert_eq!(piped.kind(), ErrorKind::Unsupported, "{piped}");
    let removed = cluster.lifecycle().unwrap().stop(&id, StopOptions::default()).await.unwrap();
    assert_eq!(removed, Effect::Changed);
    let ended = exec.exec(&id, run(&["true"])).await.unwrap_err().kind();
    assert!(matches!(ended, ErrorKind::NotFound | ErrorKind::Conflict), "{ended:?}");
    space.clear().await;
}

pub(crate) async fn runs(cluster: &KubeBackend, id: &InstanceId) {
    while cluster.inspect(id).await.unwrap().state != runtide_core::InstanceState::Running {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_main_process_has_its_outputs_its_input_its_terminal_and_its_code() {
    use tokio::io::AsyncWriteExt as _;

    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let cluster = backend(access(&admin));
    let exec = cluster.exec().unwrap();
    let script =
        "while read -r line; do echo \"got $line\"; echo \"no $line\" >&2; [ \"$line\" != end ] || exit 7; done";
    let id = space.pod_made_with("piped", "Never", Some(script), json!({ "stdin": true })).await;
    runs(&cluster, &id).await;
    // One that is dropped ends neither the process nor its input.
    drop(exec.attach(&id, AttachOptions::default().with_stdin()).await.unwrap());
    let mut session = exec.attach(&id, AttachOptions::default().with_stdin()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let (mut said, mut written) = ([String::new(), String::new()], 0);
    for line in ["one", "end"] {
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        written += format!("got {line}\nno {line}\n").len();
        while said.iter().map(String::len).sum::<usize>() < written {
            let next = tokio::time::timeout(Duration::from_secs(120), session.output.next()).await.unwrap();
            let piece = next.unwrap().unwrap();
            said[usize::from(piece.source == LogSource::Stderr)] += std::str::from_utf8(&piece.bytes).unwrap();
        }
    }
    assert_eq!(said, ["got one\ngot end\n", "no one\nno end\n"]);
    let exit = session.control.wait().await.unwrap().unwrap();
    assert_eq!(exit.end, runtide_core::ExitCause::Code(7));
    assert!(session.output.next().await.is_none());
    let ended = exec.attach(&id, AttachOptions::default()).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Conflict);

    let fields = json!({ "stdin": true, "tty": true });
    let script = "until [ \"$(stty size)\" = '25 81' ]; do sleep 0.1; done; read line; stty size; exit 3";
    let id = space.pod_made_with("typed", "Never", Some(script), fields).await;
    runs(&cluster, &id).await;
    let mut session = exec.attach(&id, AttachOptions::default().with_stdin()).await.unwrap();
    let cells = |n| std::num::NonZeroU16::new(n).unwrap();
    session.control.resize(TtySize::new(cells(81), cells(25))).await.unwrap();
    session.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
    let said = String::from_utf8(text(session.output).await).unwrap();
    assert!(said.contains("25 81"), "{said:?}");
    assert_eq!(session.control.wait().await.unwrap().unwrap().end, runtide_core::ExitCause::Code(3));

    let id = space.pod_made_with("once", "Never", Some("cat"), json!({ "stdin": true, "stdinOnce": true })).await;
    runs(&cluster, &id).await;
    let endless = exec.attach(&id, AttachOptions::default().with_stdin()).await.unwrap_err();
    assert_eq!(endless.kind(), ErrorKind::Unsupported, "{endless}");
    space.clear().await;
}

#[tokio::test]
async fn a_pods_usage_grows_with_its_work_and_ends_with_its_run() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let cluster = backend(access(&admin));
    let limits = json!({ "resources": { "limits": { "memory": "64Mi" } } });
    let id = space.pod_made_with("busy", "Never", Some("while :; do :; done"), limits).await;
    runs(&cluster, &id).await;
    let stats = cluster.stats().unwrap();
    let mut stream = stats.usage_stream(&id, Duration::from_millis(300)).await.unwrap();
    let mut first = None;
    let limit = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let next = tokio::time::timeout_at(limit, stream.next()).await.unwrap().unwrap().unwrap();
        let cpu = next.cpu.unwrap();
        assert!(next.memory_bytes.unwrap() > 0 && next.memory_bytes < next.memory_limit, "{next:?}");
        assert!(next.received_bytes.is_some() && next.pids.is_none(), "{next:?}");
        if cpu > *first.get_or_insert(cpu) + Duration::from_millis(500) {
            break;
        }
    }
    cluster.lifecycle().unwrap().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
    let rest = async { while stream.next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(120), rest).await.unwrap();
    space.clear().await;
}
