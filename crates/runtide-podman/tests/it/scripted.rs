//! A Podman service that answers with what a test wrote down.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use runtide_podman::{Config, Endpoint, PodmanBackend};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinHandle,
};

/// The headers of a Podman 4.3.1.
pub(crate) const PODMAN: &str = "Api-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\nServer: Libpod/4.3.1 (linux)\r\nDate: Mon, 30 Nov 2026 15:21:56 GMT\r\n";

/// The same, behind a proxy that drops the time.
pub(crate) const TIMELESS: &str = "Api-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\nServer: Libpod/4.3.1 (linux)\r\n";

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, and a whole body.
    Whole(u16, String),
    /// A head, and these lines once a test says so.
    Open(Arc<Notify>, String),
    /// A head, and these lines, each after this pause.
    Paced(Duration, Vec<String>),
    /// A head, and once a test says so, these lines and the end.
    Ending(Arc<Notify>, String),
    /// Not even a head.
    Silent,
    /// The same; a test hears when the client gave the request up.
    Abandoned(Arc<Notify>),
    /// An upgraded connection with these bytes, closed behind them, or kept open until the client gives up.
    Upgrade(Vec<u8>, bool),
    /// The connection is closed without an answer.
    Hangup,
    /// Status, and a whole body, once a test says so, also if the client is gone by then.
    Late(Arc<Notify>, u16, String),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Whole(200, body.into())
    }
}

/// From a request and its body.
type Answer = dyn Fn(&str, &str) -> Reply + Send + Sync;

pub(crate) struct Service {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Service {
    /// A service that answers a request, as `GET /containers/json?all=true` without its version, in this way.
    pub(crate) fn new(headers: &'static str, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_bodies(headers, move |request, _| answer(request))
    }

    /// The same, with the body of the request, if its length was given.
    pub(crate) fn with_bodies(
        headers: &'static str,
        answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podman.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (log, answer): (_, Arc<Answer>) = (Arc::clone(&asked), Arc::new(answer));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, headers, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { _folder: folder, socket, asked, serving }
    }

    pub(crate) fn config(&self) -> Config {
        Config::default().with_endpoint(Endpoint::unix(&self.socket)).with_deadline(Duration::from_secs(60))
    }

    pub(crate) fn backend(&self) -> PodmanBackend {
        PodmanBackend::new(self.config()).unwrap()
    }

    /// Until a request that begins so has come.
    pub(crate) async fn sees(&self, begin: &str) {
        let since = Instant::now();
        while !self.asked().iter().any(|request| request.starts_with(begin)) {
            assert!(since.elapsed() < Duration::from_secs(60), "no {begin} among {:?}", self.asked());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: UnixStream, headers: &str, answer: Arc<Answer>, log: Arc<Mutex<Vec<String>>>) -> Option<()> {
    loop {
        let (mut head, mut one) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut one).await.ok()? == 0 {
                return None;
            }
            head.push(one[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next().unwrap_or_default();
        let request = line.trim_end_matches(" HTTP/1.1").replacen("/v4.0.0/libpod", "", 1);
        let length = head.to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        log.lock().unwrap().push(request.clone());
        let body = String::from_utf8_lossy(&body);
        let reply = if request == "GET /_ping" { Reply::ok("OK") } else { answer(&request, &body) };
        match reply {
            Reply::Whole(status, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} Word\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.ok()?;
            }
            Reply::Open(said, lines) => {
                let text = format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
                stream.write_all(text.as_bytes()).await.ok()?;
                said.notified().await;
                stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).await.ok()?;
                let _until_it_goes = stream.read(&mut one).await.ok()?;
                return None;
            }
            Reply::Paced(pause, lines) => {
                let text = format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
                stream.write_all(text.as_bytes()).await.ok()?;
                for line in lines {
                    tokio::time::sleep(pause).await;
                    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.ok()?;
                }
                let _until_it_goes = stream.read(&mut one).await.ok()?;
                return None;
            }
            Reply::Ending(said, lines) => {
                let text = format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
                stream.write_all(text.as_bytes()).await.ok()?;
                said.notified().await;
                if !lines.is_empty() {
                    stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).await.ok()?;
                }
                stream.write_all(b"0\r\n\r\n").await.ok()?;
            }
            Reply::Hangup => return None,
            Reply::Upgrade(bytes, stays) => {
                // The content type is that of every version below libpod 4.7.
                let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                stream.write_all(&[head.as_bytes(), &bytes].concat()).await.ok()?;
                // The input, to its end.
                while stays && stream.read(&mut [0; 4096]).await.ok()? > 0 {}
                return None;
            }
            Reply::Late(said, status, body) => {
                said.notified().await;
                let length = body.len();
                let text = format!("HTTP/1.1 {status} Word\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.ok()?;
            }
            Reply::Abandoned(gone) => {
                // The rest of the request.
                while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
                gone.notify_one();
                return None;
            }
            Reply::Silent => {
                let _until_it_goes = stream.read(&mut one).await.ok()?;
                return None;
            }
        }
    }
}

/// An item of the list.
pub(crate) fn item(id: &str, state: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Names":["{id}"],"Image":"localhost/a:1","State":"{state}","Exited":{},"ExitCode":3,"StartedAt":1796052116,"IsInfra":false,"Labels":null,"Networks":["podman"],"Ports":null,"Created":"2026-11-30T15:21:56Z"}}"#,
        state == "exited"
    )
}

/// A message about a container.
pub(crate) fn message(id: &str, action: &str, nanos: u32, more: &str) -> String {
    format!(
        r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"name":"{id}","image":"localhost/a:1","containerExitCode":"3"{more}}}}},"timeNano":1796052116{nanos:09}}}"#
    ) + "\n"
}
