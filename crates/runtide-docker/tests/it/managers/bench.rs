//! A real daemon, inspected from outside, and the objects that a test makes on it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use runtide_conformance::{
    proxy::{Endpoint as Socket, Proxy},
    report,
    testbed::Turn,
};
use runtide_core::{
    InstanceId, RuntimeBackend,
    manager::{
        ExecManager, ImageManager, InstanceSpec, LifecycleManager, LogManager, NetworkManager, ProvisionManager,
        StatsManager, VolumeManager,
    },
};
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::Value;

use crate::name::known_as;

/// A test's own corner of the daemon: everything in it has its label, and goes when it is dropped, also by a panic.
pub(crate) struct Bench {
    pub(crate) backend: DockerBackend,
    pub(crate) prefix: String,
    socket: PathBuf,
    /// Until all is removed.
    _turn: Turn,
}

impl Bench {
    /// `None` without a daemon, with a line in the report.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        Self::with(test, |config| config).await
    }

    /// With the daemon for this test alone, which may kill it.
    pub(crate) async fn alone(test: &str) -> Option<Self> {
        Self::of(test, |config| config, async || Turn::on(known_as()).await).await
    }

    pub(crate) async fn with(test: &str, configure: impl FnOnce(Config) -> Config) -> Option<Self> {
        Self::of(test, configure, async || Turn::shared(known_as()).await).await
    }

    async fn of(
        test: &str,
        configure: impl FnOnce(Config) -> Config,
        turn: impl AsyncFnOnce() -> std::io::Result<Turn>,
    ) -> Option<Self> {
        let Ok(address) = std::env::var("RUNTIDE_TEST_DOCKER") else {
            report::skip("managers", "docker", "RUNTIDE_TEST_DOCKER is not set");
            return None;
        };
        let socket = address.strip_prefix("unix://").map(PathBuf::from);
        let socket = socket.unwrap_or_else(|| panic!("RUNTIDE_TEST_DOCKER is '{address}', expected unix://…"));
        let config = configure(Config::default().with_endpoint(Endpoint::unix(&socket)));
        let backend = DockerBackend::new(config).unwrap();
        let prefix = format!("runtide-managers-{test}-{}", std::process::id());
        let turn = turn().await.unwrap();
        Some(Self { backend, prefix, socket, _turn: turn })
    }

    /// The same daemon through a proxy that can cut connections.
    pub(crate) async fn behind_a_proxy(&self) -> (Proxy, DockerBackend) {
        let socket = std::env::temp_dir().join(format!("{}.sock", self.prefix));
        let proxy = Proxy::start(Socket::Unix(socket.clone()), Socket::Unix(self.socket.clone())).await.unwrap();
        (proxy, DockerBackend::new(Config::default().with_endpoint(Endpoint::unix(socket))).unwrap())
    }

    pub(crate) fn lifecycle(&self) -> &dyn LifecycleManager {
        self.backend.lifecycle().unwrap()
    }

    pub(crate) fn provision(&self) -> &dyn ProvisionManager {
        self.backend.provision().unwrap()
    }

    pub(crate) fn logs(&self) -> &dyn LogManager {
        self.backend.logs().unwrap()
    }

    pub(crate) fn images(&self) -> &dyn ImageManager {
        self.backend.images().unwrap()
    }

    pub(crate) fn exec(&self) -> &dyn ExecManager {
        self.backend.exec().unwrap()
    }

    pub(crate) fn stats(&self) -> &dyn StatsManager {
        self.backend.stats().unwrap()
    }

    pub(crate) fn networks(&self) -> &dyn NetworkManager {
        self.backend.networks().unwrap()
    }

    pub(crate) fn volumes(&self) -> &dyn VolumeManager {
        self.backend.volumes().unwrap()
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub(crate) fn image() -> String {
        std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned())
    }

    /// A container of this test that runs a shell script.
    pub(crate) fn spec(&self, name: &str, script: &str) -> InstanceSpec {
        let mut spec = InstanceSpec::of_image(Self::image());
        spec.name = Some(format!("{}-{name}", self.prefix));
        spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        spec.labels.insert("runtide.test", self.prefix.as_str());
        spec
    }

    pub(crate) async fn create(&self, name: &str, script: &str) -> InstanceId {
        self.provision().create(&self.spec(name, script)).await.unwrap()
    }

    pub(crate) async fn run(&self, name: &str, script: &str) -> InstanceId {
        self.run_spec(&self.spec(name, script)).await
    }

    pub(crate) async fn run_spec(&self, spec: &InstanceSpec) -> InstanceId {
        let id = self.provision().create(spec).await.unwrap();
        let _ = self.lifecycle().start(&id).await.unwrap();
        id
    }

    /// One request, by hand: the inspection from outside.
    pub(crate) fn raw(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        self.try_raw(method, path, body).expect("the daemon answers")
    }

    fn try_raw(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Vec<u8>)> {
        self.raw_with(method, path, "Content-Type: application/json\r\n", body)
    }

    /// With these headers, each with its line end.
    pub(crate) fn raw_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: d\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let head = head.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = String::from_utf8_lossy(&answer[..head]).split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, answer.split_off(head + 4)))
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.raw(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() }
    }

    pub(crate) fn inspect(&self, id: &InstanceId) -> Value {
        self.json("GET", &format!("/containers/{id}/json"), "")
    }

    pub(crate) fn status(&self, id: &InstanceId) -> String {
        self.inspect(id)["State"]["Status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn is_gone(&self, id: &InstanceId) -> bool {
        self.raw("GET", &format!("/containers/{id}/json"), "").0 == 404
    }

    /// Until the container's own script has come to a point: it prints a word there.
    pub(crate) async fn says(&self, id: &InstanceId, word: &str) {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        for _ in 0..3_000 {
            let (_, output) = self.raw("GET", &path, "");
            if output.windows(word.len()).any(|window| window == word.as_bytes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} never said {word}");
    }

    fn labelled(&self, kind: &str) -> Vec<Value> {
        // %22 and friends: a JSON filter in a query.
        let filter = format!("%7B%22label%22%3A%5B%22runtide.test%3D{}%22%5D%7D", self.prefix);
        let (_, body) = self.try_raw("GET", &format!("/{kind}?all=1&filters={filter}"), "").unwrap_or_default();
        match serde_json::from_slice(&body) {
            Ok(Value::Array(items)) => items,
            Ok(Value::Object(mut object)) => match object.remove("Volumes") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    pub(crate) fn containers(&self) -> usize {
        self.labelled("containers/json").len()
    }

    pub(crate) fn network(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.prefix);
        let body = serde_json::json!({"Name": name, "Labels": {"runtide.test": self.prefix}});
        self.json("POST", "/networks/create", &body.to_string());
        name
    }

    pub(crate) fn volume(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.prefix);
        let body = serde_json::json!({"Name": name, "Labels": {"runtide.test": self.prefix}});
        self.json("POST", "/volumes/create", &body.to_string());
        name
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (list, path, key, query) in [
            ("containers/json", "containers", "Id", "?force=1&v=1"),
            ("networks", "networks", "Id", ""),
            ("volumes", "volumes", "Name", "?force=1"),
            ("images/json", "images", "Id", "?force=1"),
        ] {
            for item in self.labelled(list) {
                let id = item[key].as_str().unwrap_or_default();
                let removed = self.try_raw("DELETE", &format!("/{path}/{id}{query}"), "");
                if !matches!(removed, Ok((200..300 | 404 | 409, _))) {
                    eprintln!("left behind: {path} {id}: {removed:?}");
                }
            }
        }
    }
}
