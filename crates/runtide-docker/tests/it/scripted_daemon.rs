//! A daemon on its own socket whose answers a test writes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtide_docker::{Config, DockerBackend, Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

/// An answer of the daemon.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, String),
    /// Nothing, ever.
    Stall,
    /// Worked out once the daemon is let to, whether or not the client still waits; one that is gone gets no answer.
    Late(Arc<Notify>, Box<dyn FnOnce() -> Reply + Send>),
    /// The connection is closed without an answer.
    Hangup,
    /// A stream of these bytes, ended as it should be, or broken off.
    Stream { bytes: Vec<u8>, whole: bool },
    /// A stream that stays open behind these bytes, until the client gives up.
    Open(Vec<u8>),
    /// An upgraded connection with these bytes, closed behind them, or kept open until the client gives up.
    Upgrade { bytes: Vec<u8>, stays: bool },
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self::Json(200, body.to_owned())
    }

    pub(crate) fn message(status: u16, message: &str) -> Self {
        Self::Json(status, format!(r#"{{"message":"{message}"}}"#))
    }

    pub(crate) fn empty() -> Self {
        Self::Json(204, String::new())
    }
}

/// A list with one object, which has the label that the request's filter asks for.
pub(crate) fn labelled(request: &str, id: &str) -> String {
    let label = request.split("%5B%22").nth(1).and_then(|rest| rest.split("%22").next()).unwrap();
    let (key, value) = label.split_once("%3D").unwrap();
    format!(r#"[{{"Id":"{id}","Name":"{id}","Labels":{{"{key}":"{value}"}}}}]"#)
}

/// Requests, or their bodies, in order.
type Kept = Arc<Mutex<Vec<String>>>;

pub(crate) struct Fake {
    pub(crate) backend: DockerBackend,
    seen: Kept,
    bodies: Kept,
    serving: JoinHandle<()>,
    severed: watch::Sender<u32>,
    folder: tempfile::TempDir,
}

impl Fake {
    /// Speaks API 1.41, and answers `METHOD /path?query` as the script says.
    pub(crate) fn new(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::speaking("1.41", script)
    }

    pub(crate) fn speaking(api: &'static str, script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (log, script, kept) = (seen.clone(), Arc::new(script), bodies.clone());
        let severed = watch::Sender::new(0);
        let sever = severed.clone();
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let serving = serve(stream, api, (log.clone(), kept.clone()), script.clone());
                let mut severed = sever.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving => {}
                        _ = severed.changed() => {}
                    }
                });
            }
        });
        let config = Config::default().with_endpoint(Endpoint::unix(&socket));
        Self { backend: DockerBackend::new(config).unwrap(), seen, bodies, serving, severed, folder }
    }

    /// With a client that has this deadline, for requests that the daemon never answers.
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        let config = Config::default().with_endpoint(Endpoint::unix(self.socket())).with_deadline(deadline);
        self.backend = DockerBackend::new(config).unwrap();
        self
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Closes every connection.
    pub(crate) fn sever(&self) {
        self.severed.send_modify(|times| *times += 1);
    }

    /// The requests so far, negotiation left out.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bodies of the requests so far whose length was given.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until such a request was made.
    pub(crate) async fn sees(&self, begins: &str) {
        for _ in 0..6_000 {
            if self.seen().iter().any(|request| request.starts_with(begins)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {begins} among {:?}", self.seen());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut stream: UnixStream,
    api: &'static str,
    (seen, bodies): (Kept, Kept),
    script: Arc<impl Fn(&str) -> Reply + Send + Sync + 'static>,
) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = buffer.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut buffer, rest)).unwrap();
            }
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(got) if got > 0 => buffer.extend_from_slice(&part[..got]),
                _ => return,
            }
        };
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        while buffer.len() < length.unwrap_or(0) {
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(got) if got > 0 => buffer.extend_from_slice(&part[..got]),
                _ => return,
            }
        }
        let body: Vec<u8> = buffer.drain(..length.unwrap_or(0)).collect();
        bodies.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&body).into_owned());
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked")
            && !skip_chunks(&mut stream, &mut buffer).await
        {
            return;
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let reply = if path.ends_with("/version") {
            Reply::Json(200, format!(r#"{{"Version":"20.10","ApiVersion":"{api}","MinAPIVersion":"1.12"}}"#))
        } else {
            let path = path.strip_prefix(&format!("/v{api}")).unwrap_or(path);
            let request = format!("{method} {path}");
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            script(&request)
        };
        let reply = match reply {
            Reply::Late(gate, reply) => {
                gate.notified().await;
                reply()
            }
            reply => reply,
        };
        let (answer, go_on) = match reply {
            Reply::Json(204, _) => (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), true),
            Reply::Json(status, body) => {
                (format!("HTTP/1.1 {status} S\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), true)
            }
            Reply::Stall => {
                // Until the client gives up.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
            // A late answer is not late again.
            Reply::Late(..) | Reply::Hangup => return,
            Reply::Open(bytes) => {
                if stream.write_all(&chunked(&bytes)).await.is_ok() {
                    let _ = stream.read(&mut [0; 1]).await;
                }
                return;
            }
            Reply::Upgrade { bytes, stays } => {
                let mut answer =
                    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n".to_vec();
                answer.extend(b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
                answer.extend(bytes);
                if stream.write_all(&answer).await.is_ok() && stays {
                    // The input, to its end.
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|got| got > 0) {}
                }
                return;
            }
            Reply::Stream { bytes, whole } => {
                let mut answer = chunked(&bytes);
                if whole {
                    answer.extend(b"0\r\n\r\n");
                }
                (answer, whole)
            }
        };
        if stream.write_all(&answer).await.is_err() || !go_on {
            return;
        }
    }
}

/// Reads a body to its end; `false` if the client breaks it off.
async fn skip_chunks(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> bool {
    loop {
        let line = buffer.windows(2).position(|window| window == b"\r\n");
        let size = line.and_then(|end| usize::from_str_radix(std::str::from_utf8(&buffer[..end]).ok()?, 16).ok());
        if let (Some(line), Some(size)) = (line, size)
            && buffer.len() >= line + size + 4
        {
            buffer.drain(..line + size + 4);
            if size == 0 {
                return true;
            }
            continue;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(got) if got > 0 => buffer.extend_from_slice(&part[..got]),
            _ => return false,
        }
    }
}

/// The head and the chunks of a stream, without its end.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in bytes.chunks(5) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend(chunk);
        answer.extend(b"\r\n");
    }
    answer
}
