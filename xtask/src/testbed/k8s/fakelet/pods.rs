//! The pods that the API server has bound to the node.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::NODE;
use super::api::{Api, Change, Key};
use super::containers;
use super::status::{self, Container, Ended, State, now};
use crate::process::TICK;

/// The pod is left alone, so that a test writes its status: `idle`, or until it is deleted, and even then: `stuck`.
const LEFT_ALONE: &str = "runtide.test/fake";

const AGAIN: Duration = Duration::from_millis(200);

/// Longest a watch is silent: the server ends it earlier.
const SILENCE: Duration = Duration::from_secs(330);

/// Between SIGTERM and SIGKILL, after the time that the pod has.
const DIE: Duration = Duration::from_secs(5);

/// Between two runs: the first of these, and twice as long each time, up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

pub(super) struct Pods {
    api: Api,
    logs: PathBuf,
    all: Mutex<HashMap<Key, Pod>>,
}

struct Pod {
    since: String,
    policy: String,
    /// It was told to end.
    ends: bool,
    containers: Vec<Run>,
}

struct Run {
    spec: Value,
    container: Container,
    pid: Option<i32>,
    log: PathBuf,
}

/// A container, for questions about it.
pub(super) struct Found {
    pub(super) log: PathBuf,
    pub(super) runs: bool,
}

impl Pods {
    pub(super) fn new(api: Api, logs: PathBuf) -> Self {
        Self { api, logs, all: Mutex::new(HashMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pod>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists and watches, again and again.
    pub(super) fn follow(self: &Arc<Self>) -> ! {
        let target = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}");
        loop {
            if let Some(list) = self.api.get(&target) {
                let items = list.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let listed: HashSet<Key> = items.iter().filter_map(key).collect();
                let gone: Vec<Key> = self.lock().keys().filter(|key| !listed.contains(key)).cloned().collect();
                for key in &gone {
                    self.remove(key);
                }
                for pod in items {
                    self.see(pod);
                }
                let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("0");
                let watch = format!("{target}&watch=1&timeoutSeconds=300&resourceVersion={version}");
                self.api.watch(&watch, SILENCE, |line| self.take(line));
            }
            thread::sleep(AGAIN);
        }
    }

    /// One event of the watch; `false` ends it.
    fn take(self: &Arc<Self>, line: &[u8]) -> bool {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
        let Some(object) = event.get("object") else { return false };
        match event.get("type").and_then(Value::as_str) {
            Some("DELETED") => key(object).iter().for_each(|key| self.remove(key)),
            Some("ADDED" | "MODIFIED") => self.see(object),
            Some("BOOKMARK") => {}
            _ => return false,
        }
        true
    }

    fn see(self: &Arc<Self>, pod: &Value) {
        let Some(key) = key(pod) else { return };
        let left_alone =
            pod.pointer("/metadata/annotations").and_then(|all| all.get(LEFT_ALONE)).and_then(Value::as_str);
        let deleted = pod.pointer("/metadata/deletionTimestamp").is_some();
        if let Some(how) = left_alone {
            if deleted && how != "stuck" {
                self.api.send(&key, Change::Remove);
            }
            return;
        }
        let is_over = matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
        let is_new = !self.lock().contains_key(&key);
        if is_new && !deleted && !is_over {
            self.begin(&key, pod);
        }
        if deleted {
            let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
            self.end(&key, Duration::from_secs(grace));
        }
    }

    fn begin(self: &Arc<Self>, key: &Key, pod: &Value) {
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str);
        let specs = pod.pointer("/spec/containers").and_then(Value::as_array);
        let made = |spec: &Value| {
            let of = |name: &str| spec.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = of("name");
            let log = self.logs.join(format!("{}_{name}.log", key.uid));
            // Started by an earlier fakelet, which is dead, and so is the process.
            let earlier = earlier_restarts(pod, &name);
            if earlier.is_some() {
                containers::turn(&log);
            }
            let container = Container {
                name,
                image: of("image"),
                id: String::new(),
                state: State::BackOff,
                last: None,
                restarts: earlier.map_or(0, |restarts| restarts + 1),
            };
            Run { spec: spec.clone(), container, pid: None, log }
        };
        let runs: Vec<Run> = specs.into_iter().flatten().map(made).collect();
        let count = runs.len();
        let since = text("/status/startTime").map_or_else(now, str::to_owned);
        let policy = text("/spec/restartPolicy").unwrap_or("Always").to_owned();
        self.lock().insert(key.clone(), Pod { since, policy, ends: false, containers: runs });
        for index in 0..count {
            self.run(key, index);
        }
        self.report(key);
    }

    /// Starts the container's command.
    fn run(self: &Arc<Self>, key: &Key, index: usize) {
        let mut all = self.lock();
        let Some(run) = all.get_mut(key).filter(|pod| !pod.ends).and_then(|pod| pod.containers.get_mut(index)) else {
            return;
        };
        run.container.id = format!("fake://{}-{index}-{}", key.uid, run.container.restarts);
        run.container.state = State::Running { since: now() };
        let Some(command) = containers::command(&run.spec, &key.name) else { return };
        let (pods, whose) = (Arc::downgrade(self), key.clone());
        let ended = move |code| ended(&pods, &whose, index, code);
        match containers::run(command, &run.log, ended) {
            Ok(pid) => run.pid = Some(pid),
            // As a runtime says of a command that is not there.
            Err(_) => run.container.state = State::Ended(Ended { code: 128, begin: now(), end: now() }),
        }
    }

    fn report(self: &Arc<Self>, key: &Key) {
        let (pods, whose) = (Arc::downgrade(self), key.clone());
        let status = move || {
            let pods = pods.upgrade()?;
            let all = pods.lock();
            let pod = all.get(&whose)?;
            let containers: Vec<_> = pod.containers.iter().map(|run| run.container.clone()).collect();
            Some(status::of(&containers, &pod.since))
        };
        self.api.send(key, Change::Status(Box::new(status)));
    }

    /// Ends the pod's processes, and removes it from the API server.
    fn end(self: &Arc<Self>, key: &Key, grace: Duration) {
        let running = {
            let mut all = self.lock();
            let Some(pod) = all.get_mut(key) else {
                drop(all);
                self.api.send(key, Change::Remove);
                return;
            };
            if std::mem::replace(&mut pod.ends, true) {
                return;
            }
            // Without a process it ends at once.
            for run in pod.containers.iter_mut().filter(|run| run.pid.is_none()) {
                if let State::Running { since } = &run.container.state {
                    run.container.state = State::Ended(Ended { code: 0, begin: since.clone(), end: now() });
                }
            }
            pod.containers.iter().filter_map(|run| run.pid).collect::<Vec<_>>()
        };
        if running.is_empty() {
            self.report(key);
            self.api.send(key, Change::Remove);
            return;
        }
        let (pods, key) = (Arc::clone(self), key.clone());
        thread::spawn(move || {
            for (signal, limit) in [(Signal::TERM, grace), (Signal::KILL, DIE)] {
                for pid in &running {
                    containers::signal(*pid, signal);
                }
                let end = Instant::now() + limit;
                while pods.has_process(&key) && Instant::now() < end {
                    thread::sleep(TICK);
                }
            }
            pods.report(&key);
            pods.api.send(&key, Change::Remove);
        });
    }

    fn has_process(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|pod| pod.containers.iter().any(|run| run.pid.is_some()))
    }

    /// The API server has no such pod any more.
    fn remove(&self, key: &Key) {
        let Some(pod) = self.lock().remove(key) else { return };
        for run in pod.containers {
            if let Some(pid) = run.pid {
                containers::signal(pid, Signal::KILL);
            }
            let _ = fs::remove_file(containers::previous(&run.log));
            let _ = fs::remove_file(run.log);
        }
    }

    pub(super) fn find(&self, namespace: &str, pod: &str, container: &str) -> Option<Found> {
        let all = self.lock();
        let (_, pod) = all.iter().find(|(key, _)| key.namespace == namespace && key.name == pod)?;
        let run = pod.containers.iter().find(|run| run.container.name == container)?;
        Some(Found { log: run.log.clone(), runs: matches!(run.container.state, State::Running { .. }) })
    }

    pub(super) fn kill_all(&self) {
        for run in self.lock().values().flat_map(|pod| &pod.containers) {
            run.pid.iter().for_each(|pid| containers::signal(*pid, Signal::KILL));
        }
    }
}

/// The process of a container ended.
fn ended(pods: &Weak<Pods>, key: &Key, index: usize, code: i32) {
    let Some(pods) = pods.upgrade() else { return };
    let again = {
        let mut all = pods.lock();
        let Some(pod) = all.get_mut(key) else { return };
        let again = !pod.ends && (pod.policy == "Always" || pod.policy == "OnFailure" && code != 0);
        let Some(run) = pod.containers.get_mut(index) else { return };
        let begin = if let State::Running { since } = &run.container.state { since.clone() } else { now() };
        let ended = Ended { code, begin, end: now() };
        run.pid = None;
        run.container.state = if again { State::BackOff } else { State::Ended(ended.clone()) };
        again.then(|| {
            run.container.last = Some(ended);
            run.container.restarts
        })
    };
    pods.report(key);
    let Some(restarts) = again else { return };
    let (first, most) = BACK_OFF;
    thread::sleep(first.saturating_mul(1 << restarts.min(10)).min(most));
    {
        let mut all = pods.lock();
        let Some(run) = all.get_mut(key).and_then(|pod| pod.containers.get_mut(index)) else { return };
        run.container.restarts += 1;
        containers::turn(&run.log);
    }
    pods.run(key, index);
    pods.report(key);
}

fn key(pod: &Value) -> Option<Key> {
    let text = |name: &str| Some(pod.get("metadata")?.get(name)?.as_str()?.to_owned());
    Some(Key { namespace: text("namespace")?, name: text("name")?, uid: text("uid")? })
}

/// How often the API server says that a container was started again; `None` if it was never started.
fn earlier_restarts(pod: &Value, container: &str) -> Option<u64> {
    let all = pod.pointer("/status/containerStatuses")?.as_array()?;
    let status = all.iter().find(|status| status.get("name").is_some_and(|name| name == container))?;
    status.get("restartCount")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_an_earlier_fakelet_started_counts_as_restarted() {
        let pod = serde_json::json!({ "status": { "containerStatuses": [{ "name": "c", "restartCount": 4 }] } });
        assert_eq!(earlier_restarts(&pod, "c"), Some(4));
        assert_eq!(earlier_restarts(&pod, "d"), None);
        assert_eq!(earlier_restarts(&serde_json::json!({}), "c"), None);
    }
}
