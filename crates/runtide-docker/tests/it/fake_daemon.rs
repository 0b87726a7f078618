//! A daemon in this process: the part of the Engine API that the backend reads, with faults on demand.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::{Value, json};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) struct Fake {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

pub(crate) struct State {
    pub(crate) api: &'static str,
    pub(crate) min_api: &'static str,
    pub(crate) component: &'static str,
    /// By id, as `/containers/{id}/json` and the list's item.
    containers: BTreeMap<String, (Value, Value)>,
    /// Verbatim after the list's items.
    pub(crate) garbage: Vec<String>,
    history: Vec<(u64, String)>,
    streams: Vec<mpsc::UnboundedSender<Bytes>>,
    /// Open streams that get nothing any more, and are kept open.
    dead: Vec<mpsc::UnboundedSender<Bytes>>,
    pub(crate) requests: Vec<String>,
    /// Answer nothing at all.
    pub(crate) stalled: bool,
    /// Answer each inspection with an error.
    pub(crate) refuses_inspections: bool,
    /// The second half of the history comes so much later than the first, once; then this is zero.
    pub(crate) history_takes: Duration,
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

/// Now, in nanoseconds, and never twice.
fn tick() -> u64 {
    let now = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    CLOCK.fetch_max(now, Ordering::SeqCst);
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

/// A container id like Docker's.
pub(crate) fn id(n: u32) -> String {
    format!("{n:064x}")
}

impl Fake {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State {
            api: "1.41",
            min_api: "1.12",
            component: "Engine",
            containers: BTreeMap::new(),
            garbage: Vec::new(),
            history: Vec::new(),
            streams: Vec::new(),
            dead: Vec::new(),
            requests: Vec::new(),
            stalled: false,
            refuses_inspections: false,
            history_takes: Duration::ZERO,
        }));
        let server = Self::serve(&folder.path().join("docker.sock"), &state);
        Self { folder, state, server }
    }

    fn serve(path: &std::path::Path, state: &Arc<Mutex<State>>) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        })
    }

    /// Gone with everything it remembered, and back on a new socket file.
    pub(crate) async fn restart(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        std::fs::remove_file(self.socket()).unwrap();
        {
            let mut state = self.state();
            state.history.clear();
            state.streams.clear();
        }
        self.server = Self::serve(&self.socket(), &self.state);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    pub(crate) fn config(&self) -> Config {
        Config::default().with_endpoint(Endpoint::unix(self.socket())).with_deadline(Duration::from_secs(30))
    }

    pub(crate) fn backend(&self) -> DockerBackend {
        DockerBackend::new(self.config()).unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    pub(crate) fn put(&mut self, id: &str, name: &str, state: &str, status: &str, labels: &Value) {
        let item = json!({
            "Id": id, "Names": [format!("/{name}")], "Image": "busybox", "ImageID": "sha256:0", "Created": 1_700_000_000,
            "Ports": [], "Labels": labels, "State": state, "Status": status,
            "HostConfig": {"NetworkMode": "default"}, "NetworkSettings": {"Networks": {}}, "Mounts": null,
        });
        let code: i32 = status.split(['(', ')']).nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let inspect = json!({
            "Id": id, "Name": format!("/{name}"), "Created": "2023-11-14T22:13:20.5Z", "RestartCount": 0,
            "State": {"Status": state, "ExitCode": code, "OOMKilled": false, "StartedAt": "2023-11-14T22:13:21.25Z",
                      "FinishedAt": "2023-11-14T22:13:22.75Z"},
            "Config": {"Image": "busybox", "Labels": labels}, "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Ports": {}, "Networks": {}},
        });
        self.containers.insert(id.to_owned(), (item, inspect));
    }

    /// The list goes on showing this, even if an inspect shows something else.
    pub(crate) fn lag(&mut self, id: &str, state: &str, status: &str) {
        let (item, _) = self.containers.get_mut(id).unwrap();
        item["State"] = json!(state);
        item["Status"] = json!(status);
    }

    /// The list has this name first, and an inspect only its present one.
    pub(crate) fn lag_by_name(&mut self, id: &str, old: &str) {
        let (item, _) = self.containers.get_mut(id).unwrap();
        let present = item["Names"][0].clone();
        item["Names"] = json!([format!("/{old}"), present]);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// As API 1.52 writes it: no `status`, `id` and `from`.
    pub(crate) fn tell(&mut self, action: &str, id: &str, attributes: &Value) {
        let at = tick();
        let message = json!({
            "Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": attributes}, "scope": "local",
            "time": at / 1_000_000_000, "timeNano": at,
        });
        self.tell_raw(at, message.to_string() + "\n");
    }

    pub(crate) fn tell_raw(&mut self, at: u64, text: String) {
        self.streams.retain(|stream| stream.send(Bytes::from(text.clone())).is_ok());
        self.history.push((at, text));
        let excess = self.history.len().saturating_sub(256);
        self.history.drain(..excess);
    }

    /// A whole run with its messages.
    pub(crate) fn run(&mut self, id: &str, name: &str) {
        let attributes = json!({"image": "busybox", "name": name});
        self.put(id, name, "created", "Created", &json!({}));
        self.tell("create", id, &attributes);
        self.put(id, name, "running", "Up 1 second", &json!({}));
        self.tell("start", id, &attributes);
    }

    pub(crate) fn die(&mut self, id: &str, name: &str, code: i32) {
        self.put(id, name, "exited", &format!("Exited ({code}) 1 second ago"), &json!({}));
        self.tell("die", id, &json!({"image": "busybox", "name": name, "exitCode": code.to_string()}));
    }

    /// Ends every event stream, cleanly.
    pub(crate) fn sever(&mut self) {
        self.streams.clear();
        self.dead.clear();
    }

    /// The streams stay open, and nothing comes through them any more.
    pub(crate) fn go_deaf(&mut self) {
        let deaf = std::mem::take(&mut self.streams);
        self.dead.extend(deaf);
    }

    /// As if all of the history had happened this much earlier.
    pub(crate) fn age_history(&mut self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap();
        for (at, text) in &mut self.history {
            let mut message: Value = serde_json::from_str(text).unwrap();
            *at -= by;
            (message["time"], message["timeNano"]) = (json!(*at / 1_000_000_000), json!(*at));
            *text = message.to_string() + "\n";
        }
    }

    pub(crate) fn forget_history(&mut self) {
        self.history.clear();
    }
}

fn full(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).boxed_unsync();
    Response::builder().status(status).header("Server", "Docker/fake (linux)").body(body).unwrap()
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let target = request.uri().path_and_query().unwrap().to_string();
    let stalled = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {target}", request.method()));
        state.stalled
    };
    if stalled {
        std::future::pending::<()>().await;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = if path.starts_with("/v1.") { &path[path[1..].find('/').unwrap() + 1..] } else { path };
    let shared = Arc::clone(&state);
    let mut state = state.lock().unwrap();
    Ok(match path {
        "/_ping" => full(200, "OK"),
        "/version" => {
            let reply = json!({
                "Version": "fake", "ApiVersion": state.api, "MinAPIVersion": state.min_api,
                "Components": [{"Name": state.component, "Version": "fake"}],
            });
            full(200, reply.to_string())
        }
        "/containers/json" => {
            let wanted = |id: &str| !query.contains("filters=") || query.contains(id);
            let mut items: Vec<String> =
                state.containers.iter().filter(|(id, _)| wanted(id)).map(|(_, (item, _))| item.to_string()).collect();
            items.extend(state.garbage.iter().cloned());
            full(200, format!("[{}]", items.join(",")))
        }
        "/events" => {
            let time = |name: &str| {
                let given = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
                let (seconds, nanos) = given.split_once('.').unwrap_or((given, "0"));
                Some(seconds.parse::<u64>().unwrap() * 1_000_000_000 + nanos.parse::<u64>().unwrap())
            };
            let since = time("since").unwrap_or(u64::MAX);
            if let Some(until) = time("until") {
                let past = state.history.iter().filter(|(at, _)| (since..=until).contains(at));
                return Ok(full(200, past.map(|(_, text)| text.as_str()).collect::<String>()));
            }
            let (tx, rx) = mpsc::unbounded_channel();
            let asked: Vec<_> = state.history.iter().filter(|(at, _)| *at >= since).collect();
            let prompt = if state.history_takes.is_zero() { asked.len() } else { asked.len() / 2 };
            let (first, rest) = asked.split_at(prompt);
            for (_, text) in first {
                tx.send(Bytes::from(text.clone())).unwrap();
            }
            if !rest.is_empty() {
                let rest = rest.iter().map(|(_, text)| text.clone()).collect::<String>();
                let (tx, later, shared) = (tx.clone(), state.history_takes, Arc::clone(&shared));
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    drop(tx.send(Bytes::from(rest)));
                    shared.lock().unwrap().history_takes = Duration::ZERO;
                });
            }
            state.streams.push(tx);
            let frames = futures_util::stream::unfold(rx, |mut rx| async move {
                Some((Ok::<_, Infallible>(Frame::data(rx.recv().await?)), rx))
            });
            Response::builder().body(StreamBody::new(frames).boxed_unsync()).unwrap()
        }
        _ if path.ends_with("/json") && state.refuses_inspections => full(500, json!({"message": "busy"}).to_string()),
        other => {
            let found = other.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
            match found.and_then(|id| state.containers.get(id)) {
                Some((_, inspect)) => full(200, inspect.to_string()),
                None => full(404, json!({"message": format!("No such container: {other}")}).to_string()),
            }
        }
    })
}
