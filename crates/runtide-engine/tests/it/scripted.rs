//! A daemon that answers each connection with what a test wrote down.

use std::{future::Future, path::PathBuf, time::Duration};

use runtide_core::{Result, backend::CallSite};
use runtide_engine::{Answer, Client, Dialect, Endpoint, Settings, error::Advice};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// The body of `/version` is the version.
#[derive(Debug)]
pub(crate) struct Demo;

impl Dialect for Demo {
    type Server = String;

    const NEGOTIATE: &'static str = "demo.negotiate";
    const PROBE: &'static str = "/version";
    const ADVICE: Advice = Advice {
        socket: "run as its owner",
        use_tls: "use https://",
        is_tls: "is TLS meant?",
        ca: "ca.pem",
        identity: "cert.pem",
        no_tls: "is it plain http?",
    };

    fn understand(&self, _: CallSite<'_>, version: &Answer) -> Result<String> {
        Ok(String::from_utf8_lossy(&version.body).into_owned())
    }

    fn dial_stdio(socket: Option<&str>) -> Option<Vec<String>> {
        let socket = socket.map(|socket| format!("--socket={socket}"));
        Some(["demo".to_owned()].into_iter().chain(socket).chain(["dial".to_owned()]).collect())
    }

    fn prefix(server: &String) -> String {
        format!("/v{server}")
    }

    fn describe(server: &String) -> String {
        server.clone()
    }
}

pub(crate) struct Daemon {
    _folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) listener: UnixListener,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("demo.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        Self { _folder: folder, socket, listener }
    }

    pub(crate) fn client(&self, deadline: Duration) -> Client<Demo> {
        let settings = Settings {
            id: "demo:test".into(),
            endpoint: Endpoint::unix(&self.socket),
            tls: None,
            deadline,
            connect_deadline: deadline,
        };
        Client::new(Demo, settings).unwrap()
    }

    /// Answers `/version` on each connection, and gives any other request to `answer`, with its connection.
    pub(crate) async fn serve<F: Future<Output = ()>>(&self, answer: impl Fn(String, UnixStream) -> F) {
        loop {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let Some(request) = request(&mut stream).await else { continue };
            if request.starts_with("GET /version ") {
                let version = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n1.41";
                stream.write_all(version).await.unwrap();
            } else {
                answer(request, stream).await;
            }
        }
    }
}

/// The head of a request, and its body if it has a length; `None` at the end of the connection.
async fn request(stream: &mut UnixStream) -> Option<String> {
    let (mut bytes, mut one) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut one).await.ok()? == 0 {
            return None;
        }
        bytes.push(one[0]);
    }
    let mut text = String::from_utf8(bytes).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    text.push_str(&String::from_utf8(body).unwrap());
    Some(text)
}
