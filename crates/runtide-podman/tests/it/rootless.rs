//! A service of a user who is not root, started here: it needs root's help to begin with, user namespaces, and `newuidmap`.
//!
//! The user and the ranges of ids are in files that only this service sees, in a mount namespace of its own; with its namespace of
//! processes everything of it ends, also containers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use runtide_conformance::report;
use runtide_core::{
    ExitStatus, InstanceState, RuntimeBackend, RuntimeEventKind as Kind, WatchOptions,
    capabilities::WatchSupport,
    manager::{InstanceSpec, LogOptions, RemoveOptions, StopOptions},
};
use runtide_podman::{Config, Endpoint, PodmanBackend};

use crate::bench::Bench;

const NAME: &str = "podman-rootless";

/// The user, who exists nowhere else.
const USER: u32 = 4_123;

/// Makes the user, and runs the service as them. As process 1 the shell collects the dead.
const SCRIPT: &str = r#"
set -e
home=$1 user=$2
for file in passwd group subuid subgid; do
    mount --bind "$home/etc/$file" "/etc/$file"
done
export HOME=$home XDG_RUNTIME_DIR=$home/run CONTAINERS_CONF=$home/containers.conf CONTAINERS_STORAGE_CONF=$home/storage.conf
unset CONTAINER_HOST CONTAINER_CONNECTION NOTIFY_SOCKET LISTEN_FDS
cd "$home"
setpriv --reuid "$user" --regid "$user" --clear-groups podman load --quiet --input "$home/image.tar"
setpriv --reuid "$user" --regid "$user" --clear-groups podman system service --time=0 "unix://$home/run/podman.sock" &
wait
"#;

struct Service {
    child: Child,
    home: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has no child that outlives it: the processes of its namespace end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// The reason if it cannot be started here.
    async fn start(image: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("making a user for it needs root".to_owned());
        }
        for program in ["newuidmap", "unshare", "setpriv", "podman"] {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).exists());
            if !found {
                return Err(format!("{program} is not installed"));
            }
        }
        let home = tempfile::Builder::new().prefix("runtide-rootless-").tempdir().map_err(|error| error.to_string())?;
        Self::lay_out(home.path(), image)?;
        let log = fs::File::create(home.path().join("log")).map_err(|error| error.to_string())?;
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(home.path())
            .arg(USER.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut service = Self { child, home };
        let backend = service.backend();
        while let Err(error) = backend.connect().await {
            if service.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                let said = fs::read_to_string(service.home.path().join("log")).unwrap_or_default();
                return Err(format!("it does not start: {error}; {}", said.lines().last().unwrap_or_default()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(service)
    }

    fn lay_out(home: &Path, image: &str) -> Result<(), String> {
        let saved = Command::new("podman")
            .args(["--remote", "--url", &std::env::var("RUNTIDE_TEST_PODMAN").unwrap_or_default()])
            .args(["save", "--quiet", "--output"])
            .arg(home.join("image.tar"))
            .arg(image)
            .output()
            .map_err(|error| error.to_string())?;
        if !saved.status.success() {
            return Err(format!("the image cannot be saved: {}", String::from_utf8_lossy(&saved.stderr)));
        }
        let range = format!("rootless:{}:65536\n", 4_100_000);
        let passwd = format!("root:x:0:0:root:/root:/bin/sh\nrootless:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
        // The limits of the machine may be lower than those that Podman asks for, and not every machine gives a user a network device.
        let containers = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
                          [containers]\nlog_driver = \"k8s-file\"\nnetns = \"none\"\npids_limit = 0\n\
                          default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        let files = [
            ("etc/passwd", passwd),
            ("etc/group", format!("root:x:0:\nrootless:x:{USER}:\n")),
            ("etc/subuid", range.clone()),
            ("etc/subgid", range),
            ("containers.conf", containers.to_owned()),
            ("storage.conf", "[storage]\ndriver = \"vfs\"\n".to_owned()),
        ];
        let made = (|| {
            for folder in ["etc", "run"] {
                fs::create_dir(home.join(folder))?;
            }
            for (name, text) in files {
                fs::write(home.join(name), text)?;
            }
            for path in ["", "run", "image.tar"] {
                std::os::unix::fs::chown(home.join(path), Some(USER), Some(USER))?;
            }
            // These exist on any machine that has users with ranges of ids; there they are mounted over.
            for path in ["/etc/subuid", "/etc/subgid"] {
                fs::metadata(path)?;
            }
            Ok::<_, std::io::Error>(())
        })();
        made.map_err(|error| error.to_string())
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/podman.sock")
    }

    fn backend(&self) -> PodmanBackend {
        PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(self.socket()))).unwrap()
    }
}

#[tokio::test]
async fn a_service_without_root_is_watched_and_its_containers_are_run() {
    // The image is that of the testbed.
    let Some(bench) = Bench::new("rootless").await else { return };
    let image = format!("docker.io/{}", Bench::image());
    let service = match Service::start(&image).await {
        Ok(service) => service,
        Err(reason) => return report::skip("managers", NAME, reason),
    };
    drop(bench);
    let backend = service.backend();
    assert_eq!(backend.connect().await.unwrap().capabilities.watch, WatchSupport::Resumable);
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    // No event tells of the time before the first listing.
    while !matches!(events.next().await.unwrap().unwrap().kind, Kind::ResyncEnd(_)) {}
    let (provision, lifecycle) = (backend.provision().unwrap(), backend.lifecycle().unwrap());
    let spec = InstanceSpec::of_image(image).with_name("short").with_command(["sh", "-c", "echo hello; exit 7"]);
    let short = provision.create(&spec).await.unwrap();
    lifecycle.start(&short).await.unwrap();
    // Memory may have run short, or be known not to: both are true.
    let exit = lifecycle.wait(&short).await.unwrap().unwrap();
    assert_eq!(exit.end, ExitStatus::code(7).end);
    let mut printed = Vec::new();
    let mut lines = backend.logs().unwrap().logs(&short, LogOptions::default()).await.unwrap();
    while let Some(line) = lines.next().await {
        printed.extend_from_slice(&line.unwrap().bytes);
    }
    assert_eq!(printed, b"hello\n");

    let long = spec.with_name("long").with_command(["sh", "-c", "trap 'exit 3' TERM; sleep 100000 & wait"]);
    let long = provision.create(&long).await.unwrap();
    lifecycle.start(&long).await.unwrap();
    let running = backend.inspect(&long).await.unwrap();
    assert_eq!(running.state, InstanceState::Running);
    assert!(running.addresses.as_ref().is_none_or(Vec::is_empty), "it has no network: {:?}", running.addresses);
    lifecycle.stop(&long, StopOptions::default()).await.unwrap();
    for id in [&short, &long] {
        lifecycle.remove(id, RemoveOptions::default()).await.unwrap();
    }

    let (mut ends, mut removed) = (Vec::new(), 0);
    while removed < 2 {
        let event = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
        match &event.expect("an event is missing").unwrap().unwrap().kind {
            Kind::Stopped(instance) => ends.extend(instance.exit),
            Kind::Removed(_) => removed += 1,
            _ => {}
        }
    }
    assert!(
        ends.iter().any(|exit| exit.end == ExitStatus::code(7).end),
        "the end of the short one was reported with its code: {ends:?}"
    );
}
