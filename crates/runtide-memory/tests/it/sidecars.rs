//! Sidecars over the runtime in memory: each readiness, and each failure undone.

use std::{num::NonZeroU16, path::Path, sync::Arc, time::Duration};

use runtide_conformance::mortal::{Lifespan, MortalBackend, MortalDisk};
use runtide_core::{
    ErrorKind, Health, InstanceId, Port, Protocol, Result, RuntimeBackend,
    capabilities::Support,
    manager::{
        Effect, ImageInfo, InstanceSpec, LogSource, NetworkSpec, Readiness, Sidecar, SidecarManager, SidecarSpec,
    },
    wal::WalOptions,
};
use runtide_journal::{JournalOptions, OperationLog, Sidecars};
use runtide_memory::{Call, Config, MemoryBackend, MemoryRuntime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

struct Scene {
    runtime: MemoryRuntime,
    backend: Arc<dyn RuntimeBackend>,
    sidecars: Sidecars,
}

fn open(disk: &MortalDisk) -> Result<OperationLog> {
    let wal = WalOptions::default().with_disk(Arc::new(disk.clone()) as Arc<_>);
    OperationLog::open(Path::new("operations"), "shop".into(), JournalOptions::default().with_wal(wal))
}

fn scene() -> Scene {
    let runtime = MemoryRuntime::new();
    let mut image = ImageInfo::new("sha256:1");
    image.tags = vec!["db:1".into()];
    runtime.publish_image(&image, &[100, 200]);
    let backend: Arc<dyn RuntimeBackend> = Arc::new(MemoryBackend::new(Config::default(), runtime.clone()).unwrap());
    let log = open(&MortalDisk::new(&Lifespan::unending())).unwrap();
    let sidecars = Sidecars::over(backend.clone(), log).unwrap();
    Scene { runtime, backend, sidecars }
}

fn spec(ready: Readiness) -> SidecarSpec {
    let mut instance = InstanceSpec::of_image("db:1");
    instance.name = Some("db".to_owned());
    SidecarSpec::new(instance, ready, Duration::from_secs(30)).with_network(NetworkSpec::named("shop"))
}

impl Scene {
    /// Counts the instances, networks and images that are left.
    async fn left(&self) -> (usize, usize, usize) {
        let networks = self.backend.networks().unwrap().list().await.unwrap().len();
        let images = self.backend.images().unwrap().list().await.unwrap().len();
        (self.runtime.truth().len(), networks, images)
    }

    async fn start(&self, spec: &SidecarSpec) -> Result<Sidecar> {
        self.sidecars.start_sidecar(spec).await
    }

    /// Asserts that a start fails, and leaves nothing.
    async fn fails(&self, spec: &SidecarSpec, kind: ErrorKind) {
        let before = self.left().await;
        let error = self.start(spec).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(self.left().await, before, "after {error}");
        assert!(self.sidecars.log().in_flight().is_empty());
    }

    /// Does something to the instance after a delay.
    fn later(&self, after: Duration, act: impl FnOnce(&MemoryRuntime, &InstanceId) + Send + 'static) {
        let runtime = self.runtime.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let id = runtime.truth().into_iter().find(|row| row.name == "db").unwrap().id;
            act(&runtime, &id);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_makes_all_of_it_and_a_stop_removes_all_that_it_made() {
    let scene = scene();
    let sidecar = scene.start(&spec(Readiness::Running)).await.unwrap();
    assert_eq!(scene.left().await, (1, 1, 1));
    let row = scene.sidecars.sidecars().unwrap().inspect(&sidecar).await.unwrap();
    let labels = row.labels.clone().unwrap();
    assert_eq!(labels.get("runtide.owner").unwrap(), "shop");
    assert_eq!(labels.get("runtide.operation").unwrap(), sidecar.operation.as_str());
    assert!(sidecar.operation.as_str().parse::<u8>().is_err() && sidecar.operation.as_str().len() == 36);
    assert!(!row.addresses.as_ref().unwrap().is_empty(), "it is in the network");
    assert_eq!(scene.sidecars.stop(&sidecar).await.unwrap(), Effect::Changed);
    assert_eq!(scene.left().await, (0, 0, 1), "the image of a start that was good stays");
    assert_eq!(scene.sidecars.stop(&sidecar).await.unwrap(), Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn existing_objects_are_used_and_left_alone() {
    let scene = scene();
    let network = scene.backend.networks().unwrap().create(&NetworkSpec::named("shop")).await.unwrap();
    let mut image = ImageInfo::new("sha256:1");
    image.tags = vec!["db:1".into()];
    scene.runtime.add_image(image);
    let sidecar = scene.start(&spec(Readiness::Running)).await.unwrap();
    assert_eq!(sidecar.network, Some(network));
    assert_eq!(scene.runtime.calls(Call::Pull), 0);
    scene.fails(&spec(Readiness::Running), ErrorKind::AlreadyExists).await; // the name is taken, and stays with its owner
    assert_eq!(scene.sidecars.stop(&sidecar).await.unwrap(), Effect::Changed);
    assert_eq!(scene.left().await, (0, 1, 1));
    let mut never = spec(Readiness::Healthy);
    never.deadline = Duration::from_secs(2);
    scene.fails(&never, ErrorKind::Timeout).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_a_name_gets_one_that_is_known_before_it_is_made() {
    let scene = scene();
    let mut unnamed = spec(Readiness::Running);
    unnamed.instance.name = None;
    let sidecar = scene.start(&unnamed).await.unwrap();
    let name = scene.runtime.truth()[0].name.clone();
    assert_eq!(name, format!("runtide-{}", sidecar.operation));
}

#[tokio::test(start_paused = true)]
async fn healthy_comes_from_the_runtime() {
    let scene = scene();
    scene.later(Duration::from_secs(2), |runtime, id| runtime.set_health(id, Health::Starting).unwrap());
    scene.later(Duration::from_secs(4), |runtime, id| runtime.set_health(id, Health::Healthy).unwrap());
    let began = tokio::time::Instant::now();
    scene.start(&spec(Readiness::Healthy)).await.unwrap();
    assert!((4..7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn unhealthy_until_the_deadline_is_a_timeout_and_undone() {
    let scene = scene();
    scene.later(Duration::from_secs(2), |runtime, id| runtime.set_health(id, Health::Unhealthy).unwrap());
    scene.fails(&spec(Readiness::Healthy), ErrorKind::Timeout).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_before_it_is_ready_fails_at_once() {
    // `life_ms` is the name in descriptions of earlier versions.
    for (ready, key) in [(Readiness::Healthy, "run_ms"), (Readiness::Log("ready".into()), "life_ms")] {
        let scene = scene();
        let mut short = spec(ready);
        short.instance = short.instance.with_native([(key, "700"), ("exit_code", "3")]);
        let began = tokio::time::Instant::now();
        scene.fails(&short, ErrorKind::Conflict).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_ready_when_it_ends_with_0() {
    let scene = scene();
    scene.start(&spec(Readiness::Command(vec!["true".into()]))).await.unwrap();
    let failing = super_spec("other", Readiness::Command(vec!["false".into()]));
    scene.fails(&failing, ErrorKind::Timeout).await;
}

fn super_spec(name: &str, ready: Readiness) -> SidecarSpec {
    let mut spec = spec(ready);
    spec.instance.name = Some(name.to_owned());
    spec
}

#[tokio::test(start_paused = true)]
async fn a_log_line_is_found_also_in_pieces() {
    let scene = scene();
    scene.later(Duration::from_secs(1), |runtime, id| {
        runtime.write_log(id, LogSource::Stderr, "database system is re").unwrap();
        runtime.write_log(id, LogSource::Stdout, "ady? no\n").unwrap();
    });
    scene.later(Duration::from_secs(3), |runtime, id| {
        runtime.write_log(id, LogSource::Stderr, "ady to accept\n").unwrap();
    });
    let began = tokio::time::Instant::now();
    scene.start(&spec(Readiness::Log("is ready".into()))).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 3);
    scene.fails(&super_spec("other", Readiness::Log("is ready".into())), ErrorKind::Timeout).await;
}

/// On the host's side of a published port.
fn published(ready: impl FnOnce(NonZeroU16) -> Readiness, host: std::net::SocketAddr) -> SidecarSpec {
    let port = NonZeroU16::new(80).unwrap();
    let mut spec = spec(ready(port));
    spec.network = None;
    spec.instance.ports = vec![Port::new(port, Protocol::Tcp).published_at(host)];
    spec
}

#[tokio::test]
async fn a_tcp_port_is_ready_when_it_accepts() {
    let scene = scene();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let sidecar = scene.start(&published(Readiness::Tcp, host)).await.unwrap();
    assert_eq!(scene.sidecars.stop(&sidecar).await.unwrap(), Effect::Changed);
    // Bound, so that no other test gets its port, but it accepts no connection.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut refused = published(Readiness::Tcp, deaf.local_addr().unwrap());
    refused.deadline = Duration::from_millis(300);
    scene.fails(&refused, ErrorKind::Timeout).await;
}

#[tokio::test]
async fn an_http_path_is_ready_when_a_plain_get_is_a_success() {
    let scene = scene();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in ["HTTP/1.1 503 Not Yet\r\n\r\n", "nonsense\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
            // An attempt that has waited too long goes away, and another one comes.
            let (mut stream, request) = loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut request, mut chunk) = (String::new(), [0; 512]);
                while !request.contains("\r\n\r\n")
                    && let Ok(count @ 1..) = stream.read(&mut chunk).await
                {
                    request.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
                }
                if request.contains("\r\n\r\n") {
                    break (stream, request);
                }
            };
            requests.push(request);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        requests
    });
    scene.start(&published(|port| Readiness::Http { port, path: "/ready?x=1".into() }, host)).await.unwrap();
    for request in server.await.unwrap() {
        assert!(request.starts_with("GET /ready?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_spec_is_refused_before_anything_is_made() {
    let scene = scene();
    let port = NonZeroU16::new(80).unwrap();
    let paths = ["", "ready", "/a b", "/a\r\nX: y", "/\u{e9}"];
    let wrong = paths.map(|path| Readiness::Http { port, path: path.into() });
    let more = [Readiness::Command(vec![]), Readiness::Log(String::new()), Readiness::Log("a\nb".into())];
    for ready in wrong.into_iter().chain(more) {
        scene.fails(&spec(ready), ErrorKind::InvalidInput).await;
    }
    assert_eq!(scene.runtime.calls(Call::Create) + scene.runtime.calls(Call::Pull), 0);
}

#[tokio::test(start_paused = true)]
async fn each_step_that_fails_undoes_those_before_it() {
    for call in [Call::Networks, Call::Images, Call::Pull, Call::Create, Call::Start] {
        let scene = scene();
        scene.runtime.faults(|faults| faults.deny.insert(call));
        let error = scene.start(&spec(Readiness::Running)).await.unwrap_err();
        scene.runtime.heal();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{call:?}: {error}");
        // An undo that was denied is pending, and done later.
        scene.sidecars.log().recover(std::slice::from_ref(&scene.backend)).await.unwrap();
        assert_eq!(scene.left().await, (0, 0, 0), "{call:?}");
        assert!(scene.sidecars.log().in_flight().is_empty(), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_point_recovery_leaves_nothing_not_even_the_image() {
    for point in 1.. {
        let scene = scene();
        let lifespan = Lifespan::until(point);
        let disk = MortalDisk::new(&lifespan);
        let started = async {
            let mortal = Arc::new(MortalBackend::new(&lifespan, scene.backend.clone()));
            Sidecars::over(mortal, open(&disk)?)?.start_sidecar(&spec(Readiness::Running)).await
        };
        if started.await.is_ok() {
            assert!(point > 25, "only {point} points");
            break;
        }
        let log = open(&disk.reborn(&Lifespan::unending())).unwrap();
        if log.in_flight().is_empty() && scene.left().await == (1, 1, 1) {
            continue; // the log had it as complete, and only the caller did not know yet
        }
        log.recover(std::slice::from_ref(&scene.backend)).await.unwrap();
        assert_eq!(scene.left().await, (0, 0, 0), "killed at point {point}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_await_it_is_undone() {
    for after in 0..60 {
        let scene = scene();
        scene.runtime.faults(|faults| {
            for call in [Call::Networks, Call::Images, Call::Pull, Call::Create, Call::Start, Call::Inspect] {
                faults.slow.insert(call, Duration::from_millis(8));
            }
        });
        let dropped =
            tokio::time::timeout(Duration::from_millis(2 * after), scene.start(&spec(Readiness::Healthy))).await;
        assert!(dropped.is_err());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.left().await, (0, 0, 0), "dropped after {} ms", 2 * after);
        assert!(scene.sidecars.log().in_flight().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_share_a_network_and_an_image_do_not_take_them_from_each_other() {
    let scene = scene();
    let failing = super_spec("fails", Readiness::Command(vec!["false".into()]));
    let good = super_spec("good", Readiness::Command(vec!["true".into()]));
    let (failed, started) = tokio::join!(scene.start(&failing), scene.start(&good));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Timeout);
    started.unwrap();
    assert_eq!(scene.left().await, (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn capabilities_name_the_missing_parts_below() {
    let scene = scene();
    assert_eq!(scene.sidecars.capabilities().sidecars_start, Support::Unknown);
    let info = scene.sidecars.connect().await.unwrap();
    assert_eq!(info.capabilities.sidecars_start, Support::Yes);
    assert_eq!(info.capabilities, scene.sidecars.capabilities());
    scene.runtime.restrict("images_pull", "there is no way out").unwrap();
    scene.sidecars.connect().await.unwrap();
    let Support::No { reason } = scene.sidecars.capabilities().sidecars_start else { panic!("it cannot pull") };
    assert!(reason.contains("pull images") && reason.contains("there is no way out"), "{reason}");
}
