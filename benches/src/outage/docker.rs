//! [`Dockerd`]: a Docker daemon without networks of its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use runtide_docker::{Config, DockerBackend, Endpoint};
use tokio::runtime::Handle;

use super::{Daemon, free_port, kill, reconnections, spawn, until_it_answers};

/// A Docker daemon on a unix socket and on a port.
#[derive(Debug)]
pub struct Dockerd {
    folder: tempfile::TempDir,
    port: u16,
    is_tcp: bool,
    child: Mutex<Option<Child>>,
    handle: Handle,
}

impl Dockerd {
    /// A daemon that answers; watched over the port, or over the socket.
    pub fn up(is_tcp: bool, handle: Handle) -> Self {
        let folder = tempfile::Builder::new().prefix("runtide-reconnect-").tempdir().unwrap();
        let daemon = Self { folder, port: free_port(), is_tcp, child: Mutex::default(), handle };
        daemon.start();
        until_it_answers(&daemon);
        daemon.ask("POST /images/create?fromSrc=-&repo=empty&tag=latest", &[0; 1024]); // an archive of nothing
        daemon
    }

    /// Makes a container, which is an event, so that a watch has a position to resume from.
    fn make_container(&self) {
        self.ask("POST /containers/create", b"{\"Image\":\"empty:latest\",\"Cmd\":[\"none\"]}");
    }

    fn ask(&self, request: &str, body: &[u8]) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn ping(mut stream: impl Read + Write) -> Option<()> {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).ok()?;
        (head == *b"HTTP/1.1 200").then_some(())
    }
}

impl Daemon for Dockerd {
    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            kill(&mut child);
        }
    }

    fn start(&self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let arguments = [
            format!("--host=unix://{}", at("docker.sock")),
            format!("--host=tcp://127.0.0.1:{}", self.port),
            "--tls=false".to_owned(),
            format!("--config-file={}", at("none.json")),
            format!("--data-root={}", at("data")),
            format!("--exec-root={}", at("run")),
            format!("--pidfile={}", at("docker.pid")),
            "--storage-driver=vfs".to_owned(),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--ip-forward=false".to_owned(),
        ];
        std::fs::write(at("none.json"), "{}").unwrap();
        let _ = std::fs::remove_file(at("docker.pid")); // of the daemon that was killed
        *self.child.lock().unwrap() = Some(spawn("dockerd", &arguments));
    }

    fn answers(&self) -> bool {
        let limit = Some(Duration::from_secs(30));
        if self.is_tcp {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
            let _ = stream.set_read_timeout(limit);
            Self::ping(stream).is_some()
        } else {
            let Ok(stream) = UnixStream::connect(self.socket()) else { return false };
            let _ = stream.set_read_timeout(limit);
            Self::ping(stream).is_some()
        }
    }

    fn returns(&self) -> mpsc::Receiver<Instant> {
        let address = if self.is_tcp {
            format!("tcp://127.0.0.1:{}", self.port)
        } else {
            format!("unix://{}", self.socket().display())
        };
        let endpoint: Endpoint = address.parse().unwrap();
        let config = Config::default().with_endpoint(endpoint);
        let returns = reconnections(&self.handle, DockerBackend::new(config).unwrap());
        self.make_container();
        returns
    }
}

impl Drop for Dockerd {
    /// In order, so that the daemon ends its containerd as well.
    fn drop(&mut self) {
        let Ok(Some(mut child)) = self.child.lock().map(|mut child| child.take()) else { return };
        let id = rustix::process::Pid::from_child(&child);
        if rustix::process::kill_process(id, rustix::process::Signal::TERM).is_ok() {
            let _ = child.wait();
        }
        // A daemon that was killed leaves its data mounted on itself, and the folder could not be removed.
        let _ = Command::new("umount").arg(self.folder.path().join("data")).status();
    }
}
