//! An API server that answers with what a test wrote down.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use runtide_core::{EventStream, RuntimeEvent, RuntimeEventKind};
use runtide_k8s::{Access, Config, KubeBackend};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// A part of an answer that does not end by itself.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Text, a line or a part of one.
    Text(String),
    /// Nothing more until the test says so.
    Wait(Arc<Notify>),
    /// The end of the answer, in good order.
    End,
    /// The connection breaks off.
    Break,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, further headers, and a whole body.
    Whole(u16, &'static str, String),
    /// The head, and these parts. Without an `End` the connection stays open.
    Stream(Vec<Part>),
}

impl Reply {
    pub(crate) fn ok(body: &Value) -> Self {
        Self::Whole(200, "", body.to_string())
    }

    pub(crate) fn refusal(code: u16, reason: &str) -> Self {
        Self::Whole(code, "", status(code, reason).to_string())
    }

    /// A watch that reports these events, and stays open.
    pub(crate) fn events(events: &[Value]) -> Self {
        Self::Stream(events.iter().map(line).collect())
    }
}

pub(crate) fn line(event: &Value) -> Part {
    Part::Text(format!("{event}\n"))
}

pub(crate) fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": format!("scripted: {reason}"), "reason": reason, "code": code})
}

pub(crate) fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

pub(crate) fn bookmark(version: &str) -> Value {
    event("BOOKMARK", json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}}))
}

/// A pod at this version, with one container of this state.
pub(crate) fn pod(name: &str, version: &str, phase: &str, restarts: u32, state: Value) -> Value {
    json!({
        "metadata": {"uid": format!("uid-{name}"), "name": name, "namespace": "default", "resourceVersion": version,
            "creationTimestamp": "2026-11-30T12:00:00Z", "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "restartPolicy": "Always"},
        "status": {"phase": phase, "containerStatuses": [{"name": "main", "restartCount": restarts, "state": state}]}
    })
}

pub(crate) fn running() -> Value {
    json!({"running": {"startedAt": "2026-11-30T12:00:01Z"}})
}

pub(crate) fn ended(code: i32) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": "2026-11-30T12:00:01Z", "finishedAt": "2026-11-30T12:00:02Z"}})
}

pub(crate) fn list(version: &str, next: &str, items: &[Value]) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": next}, "items": items})
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// The head, in small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn is_watch(&self) -> bool {
        self.path.contains("watch=1")
    }

    pub(crate) fn is(&self, method: &str) -> bool {
        self.head.starts_with(&format!("{} ", method.to_ascii_lowercase()))
    }

    pub(crate) fn is_log(&self) -> bool {
        self.path.contains("/log?")
    }

    /// The value of a parameter, as it was sent.
    pub(crate) fn query(&self, key: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    pub(crate) async fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Request>>>::default();
        let (log, answer): (_, Arc<Answer>) = (Arc::clone(&asked), Arc::new(answer));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { address, asked, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn config(&self) -> Config {
        Config::new(Access::new(self.url())).with_deadline(Duration::from_secs(60))
    }

    pub(crate) fn backend(&self) -> KubeBackend {
        KubeBackend::new(self.config()).unwrap()
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Answer>, log: Arc<Mutex<Vec<Request>>>) -> Option<()> {
    loop {
        let (mut head, mut one) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut one).await.ok()? == 0 {
                return None;
            }
            head.push(one[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        let request = Request { path, head, body: String::from_utf8(body).unwrap() };
        log.lock().unwrap().push(request.clone());
        match answer(&request) {
            Reply::Whole(code, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {code} Scripted\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.ok()?;
            }
            Reply::Stream(parts) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
                for part in parts {
                    match part {
                        Part::Text(text) => {
                            stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.ok()?;
                        }
                        Part::Wait(notify) => notify.notified().await,
                        Part::End => stream.write_all(b"0\r\n\r\n").await.ok()?,
                        Part::Break => return None,
                    }
                }
                // Until the client is gone, or asks for the next.
            }
        }
    }
}

/// The next event that satisfies the condition, and those before it.
pub(crate) async fn until(
    events: &mut EventStream,
    is_it: impl Fn(&RuntimeEventKind) -> bool,
) -> Vec<Arc<RuntimeEvent>> {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
        let event = next.unwrap_or_else(|_| panic!("no such event after {seen:#?}")).expect("the end").unwrap();
        let done = is_it(&event.kind);
        seen.push(event);
        if done {
            return seen;
        }
    }
}

/// Names of the events, with the instance's name.
pub(crate) fn names(events: &[Arc<RuntimeEvent>]) -> Vec<String> {
    let name = |event: &Arc<RuntimeEvent>| match event.instance() {
        Some(instance) => format!("{} {}", event.kind.name(), instance.name),
        None => event.kind.name().to_owned(),
    };
    events.iter().map(name).collect()
}

pub(crate) fn is_synced(kind: &RuntimeEventKind) -> bool {
    matches!(kind, RuntimeEventKind::ResyncEnd(_))
}
