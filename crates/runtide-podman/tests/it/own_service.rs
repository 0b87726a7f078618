//! [`OwnService`]: another service on the testbed's storage, which a test may kill.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use runtide_podman::{Config, Endpoint, PodmanBackend};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

pub(crate) struct OwnService {
    socket: PathBuf,
    child: Child,
    _folder: tempfile::TempDir,
}

/// The `podman` command on the testbed's storage.
pub(crate) fn podman() -> Command {
    let files = std::env::var_os("RUNTIDE_TEST_PODMAN_DIR").expect("the testbed says where its Podman is");
    let files = PathBuf::from(files);
    let address = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let short = Path::new(address.strip_prefix("unix://").unwrap()).parent().unwrap().to_owned();
    let mut podman = Command::new("podman");
    for (option, path) in
        [("--root", files.join("root")), ("--runroot", short.join("run")), ("--tmpdir", short.join("tmp"))]
    {
        podman.arg(option).arg(path);
    }
    for (name, file) in [
        ("CONTAINERS_CONF", "containers.conf"),
        ("CONTAINERS_STORAGE_CONF", "storage.conf"),
        ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
    ] {
        podman.env(name, files.join(file));
    }
    for name in ["CONTAINER_HOST", "NOTIFY_SOCKET", "LISTEN_FDS"] {
        podman.env_remove(name);
    }
    podman.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    podman
}

impl OwnService {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podman.sock");
        let child = serve(&socket).await;
        Self { socket, child, _folder: folder }
    }

    pub(crate) fn backend(&self) -> PodmanBackend {
        PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(&self.socket))).unwrap()
    }

    /// Its socket stays, and nothing listens there.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.child = serve(&self.socket).await;
    }
}

async fn serve(socket: &Path) -> Child {
    let address = format!("unix://{}", socket.display());
    let mut child = podman().args(["system", "service", "--time=0", &address]).spawn().unwrap();
    while UnixStream::connect(socket).await.is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the service ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child
}
