//! Its requests to the API server: the node, and the status and the removal of each pod. A request that gets no answer is repeated, until
//! the server is back.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::https::{Body, Connection, Server};

const LIMIT: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(200);
const BEAT: Duration = Duration::from_secs(4);

/// Connections that send what pods report; a pod has one of them, so that its reports stay in order.
const WRITERS: usize = 8;

/// The namespace, the name and the uid of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// A change that a pod wants, made when it is sent: the last state wins.
pub(super) enum Change {
    Status(Box<dyn Fn() -> Option<Value> + Send>),
    Remove,
}

#[derive(Clone)]
pub(super) struct Api {
    server: Server,
    writers: Arc<Vec<Sender<(Key, Change)>>>,
}

impl Api {
    pub(super) fn new(server: Server) -> Self {
        let writer = |_| {
            let (sender, changes) = mpsc::channel::<(Key, Change)>();
            let server = server.clone();
            thread::spawn(move || {
                let mut connection = None;
                while let Ok((key, change)) = changes.recv() {
                    make(&server, &mut connection, &key, &change);
                }
            });
            sender
        };
        let writers = Arc::new((0..WRITERS).map(writer).collect());
        Self { server, writers }
    }

    /// Sends it in the background.
    pub(super) fn send(&self, key: &Key, change: Change) {
        let hash = key.uid.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        if let Some(writer) = self.writers.get(hash % WRITERS) {
            let _ = writer.send((key.clone(), change));
        }
    }

    pub(super) fn get(&self, target: &str) -> Option<Value> {
        let answer = self.server.ask("GET", target, &Body::NONE, LIMIT).ok()?;
        answer.is_success().then(|| answer.json().ok())?
    }

    /// Hands over the lines of a watch until it ends.
    pub(super) fn watch(&self, target: &str, limit: Duration, take: impl FnMut(&[u8]) -> bool) {
        let _ = self.server.connect(limit).and_then(|mut connection| connection.watch(target, take));
    }

    /// Registers the node, and says from time to time that it is there.
    pub(super) fn keep_node(&self, name: &str, port: u16) -> ! {
        let target = format!("/api/v1/nodes/{name}");
        let mut connection = None;
        let ask = |connection: &mut Option<Connection>, method: &str, target: &str, body: &Value| {
            ask(&self.server, connection, method, target, body).unwrap_or(0)
        };
        loop {
            let status =
                ask(&mut connection, "PATCH", &format!("{target}/status"), &json!({ "status": node(name, port) }));
            if status == 404 {
                let taint = json!({ "key": "runtide.test/fake", "effect": "NoSchedule" });
                let node = json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
                    "spec": { "taints": [taint] },
                });
                ask(&mut connection, "POST", "/api/v1/nodes", &node);
            }
            thread::sleep(if status == 200 { BEAT } else { AGAIN });
        }
    }
}

fn node(name: &str, port: u16) -> Value {
    let room = json!({ "cpu": "1000", "memory": "4Ti", "pods": "100000" });
    let now = super::status::now();
    let ready = json!({
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "it runs nothing",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let addresses = [("InternalIP", "127.0.0.1"), ("Hostname", name)];
    json!({
        "addresses": addresses.map(|(kind, address)| json!({ "type": kind, "address": address })),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        "capacity": room,
        "allocatable": room,
        "conditions": [ready],
    })
}

fn make(server: &Server, connection: &mut Option<Connection>, key: &Key, change: &Change) {
    let target = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
    loop {
        let status = match change {
            Change::Status(status) => {
                let Some(status) = status() else { return };
                let body = json!({ "metadata": { "uid": key.uid }, "status": status });
                ask(server, connection, "PATCH", &format!("{target}/status"), &body)
            }
            Change::Remove => {
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "gracePeriodSeconds": 0,
                    "preconditions": { "uid": key.uid },
                });
                ask(server, connection, "DELETE", &target, &body)
            }
        };
        // Refused for good: the pod is gone, or another one of its name is there.
        if status.is_some_and(|status| status < 500 && status != 429) {
            return;
        }
        thread::sleep(AGAIN);
    }
}

/// Asks on the connection, or on a new one; `None` without an answer.
fn ask(server: &Server, connection: &mut Option<Connection>, method: &str, target: &str, body: &Value) -> Option<u16> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let text = body.to_string();
    let mut used = connection.take().or_else(|| server.connect(LIMIT).ok())?;
    let answer = used.ask(method, target, &Body { kind, bytes: text.as_bytes() }).ok()?;
    *connection = Some(used);
    Some(answer.status)
}
