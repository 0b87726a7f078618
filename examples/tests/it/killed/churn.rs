//! Containers that come, change and go, until the churn is ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use runtide_conformance::daemon::Daemon;

const PREFIX: &str = "rt-killed-";

/// Deadline of any daemon's work.
const LIMIT: Duration = Duration::from_secs(120);

/// Interval of the polls of `wait_for_more`.
const TICK: Duration = Duration::from_millis(5);

pub(crate) struct Churn<'a> {
    tokio: &'a Runtime,
    daemon: Daemon,
    containers: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    workers: std::cell::RefCell<Vec<JoinHandle<()>>>,
}

impl<'a> Churn<'a> {
    pub(crate) fn begin(tokio: &'a Runtime, daemon: &Daemon) -> Self {
        let (containers, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        tokio.block_on(clean_up(daemon));
        let image = image();
        let work = |_| {
            let (daemon, containers, over, image) =
                (daemon.clone(), Arc::clone(&containers), Arc::clone(&over), image.clone());
            tokio.spawn(async move {
                while !over.load(Ordering::Acquire) {
                    let n = containers.fetch_add(1, Ordering::AcqRel);
                    one_run(&daemon, n, &image).await;
                }
            })
        };
        let workers = std::cell::RefCell::new((0..3).map(work).collect());
        Self { tokio, daemon: daemon.clone(), containers, over, workers }
    }

    pub(crate) fn containers(&self) -> usize {
        self.containers.load(Ordering::Acquire)
    }

    /// Blocks until this many more containers were begun.
    pub(crate) fn wait_for_more(&self, more: usize) {
        let (begun, since) = (self.containers(), Instant::now());
        while self.containers() < begun + more {
            assert!(since.elapsed() < LIMIT, "the daemon makes no more containers");
            thread::sleep(TICK);
        }
    }

    /// Waits for the containers under way, creates a last one, and returns its name.
    pub(crate) fn end(&self) -> String {
        self.over.store(true, Ordering::Release);
        let name = format!("{PREFIX}last");
        self.tokio.block_on(async {
            for worker in self.workers.take() {
                worker.await.expect("a worker");
            }
            create(&self.daemon, &name, "exit 0", &image()).await;
        });
        name
    }

    pub(crate) fn clean_up(&self) {
        self.tokio.block_on(clean_up(&self.daemon));
    }
}

fn image() -> String {
    std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned())
}

async fn create(daemon: &Daemon, name: &str, command: &str, image: &str) -> String {
    let body = json!({"Image": image, "Cmd": ["sh", "-c", command], "StopTimeout": 1, "HostConfig": {"Init": false}});
    let created = daemon.ask("POST", &format!("/containers/create?name={name}"), &body).await.expect("a container");
    created.json().unwrap()["Id"].as_str().unwrap().to_owned()
}

/// One container's run, to its end or to a state that lasts.
async fn one_run(daemon: &Daemon, n: usize, image: &str) {
    let command = match n % 3 {
        0 => format!("exit {}", n % 7),
        1 => format!("sleep 0.{}; exit {}", n % 4 + 1, n % 5),
        _ => "trap 'exit 3' TERM; while :; do sleep 0.1; done".to_owned(),
    };
    let id = create(daemon, &format!("{PREFIX}{n}"), &command, image).await;
    let ask = async |method: &str, path: String| {
        daemon.ask(method, &format!("/containers/{id}{path}"), &Value::Null).await.expect("it is done");
    };
    if n % 10 == 9 {
        return;
    }
    ask("POST", "/start".to_owned()).await;
    match n % 12 {
        2 => ask("POST", "/stop?t=1".to_owned()).await,
        5 => ask("POST", "/pause".to_owned()).await,
        8 => ask("POST", "/restart?t=1".to_owned()).await,
        _ => {}
    }
    if n % 3 != 2 {
        ask("POST", "/wait".to_owned()).await;
    }
    if n % 4 != 1 {
        ask("DELETE", "?force=1".to_owned()).await;
    }
}

async fn clean_up(daemon: &Daemon) {
    let list = daemon.ask("GET", "/containers/json?all=1", &Value::Null).await.expect("a list").json().unwrap();
    for item in list.as_array().unwrap() {
        let name = item["Names"][0].as_str().unwrap_or_default();
        if name.trim_start_matches('/').starts_with(PREFIX) {
            let path = format!("/containers/{}?force=1&v=1", item["Id"].as_str().unwrap());
            daemon.ask("DELETE", &path, &Value::Null).await.expect("it goes");
        }
    }
}
