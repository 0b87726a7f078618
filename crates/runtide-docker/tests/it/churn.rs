//! Containers come and go as fast as a real daemon goes, a third of them too short-lived to be inspected, and the daemon
//! is killed five times under it, with live-restore. Then: the folded stream equals the daemon's own list, and every start
//! and die that the daemon printed outside the marked gaps was delivered, once, with its exit code.
//!
//! `RUNTIDE_TEST_DOCKER` is the daemon's address and `RUNTIDE_TESTBED` the tool that kills it; `RUNTIDE_CHURN` is the number of
//! containers (300).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use runtide_conformance::{
    daemon::Daemon,
    report,
    testbed::{Testbed, Turn},
};
use runtide_core::{
    ExitCause, InstanceTable, ListOptions, RuntimeBackend, RuntimeEvent, RuntimeEventKind as Kind, WatchOptions,
};
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::{Value, json};

use crate::name::known_as;

const KILLS: u32 = 5;
const PREFIX: &str = "rt-churn-";

/// A start or die as the daemon printed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Printed {
    nanos: u64,
    id: String,
    action: String,
    exit: Option<i32>,
}

fn printed(event: &Value) -> Option<Printed> {
    let action = event["Action"].as_str().filter(|action| *action == "start" || *action == "die")?;
    let attributes = &event["Actor"]["Attributes"];
    attributes["name"].as_str().filter(|name| name.starts_with(PREFIX))?;
    Some(Printed {
        nanos: event["timeNano"].as_u64()?,
        id: event["Actor"]["ID"].as_str()?.to_owned(),
        action: action.to_owned(),
        exit: attributes["exitCode"].as_str().and_then(|code| code.parse().ok()),
    })
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

/// The events that the stream delivered, and the gaps that it reported.
#[derive(Default)]
struct Heard {
    table: InstanceTable,
    edges: Vec<Printed>,
    /// From the last event before the gap to the end of the resync, by the clock of this machine, which is the daemon's too.
    gaps: Vec<(u64, u64)>,
    /// The containers whose end the resync of each gap had, though the daemon may print its message a moment later.
    ended: Vec<BTreeSet<String>>,
    open_gap: Option<u64>,
    last_native: u64,
    outages: u32,
    resumed: u32,
    twice: Vec<String>,
    keys: BTreeSet<[u8; 32]>,
}

impl Heard {
    fn hear(&mut self, event: &RuntimeEvent) {
        self.table.apply(event);
        if event.key().is_some_and(|key| !self.keys.insert(key)) {
            self.twice.push(format!("{event:?}"));
        }
        let native = event
            .cursor
            .native
            .as_ref()
            .and_then(|token| token.as_str().split(' ').next()?.replace('.', "").parse().ok());
        match &event.kind {
            Kind::BackendDisconnected { .. } => self.outages += 1,
            Kind::BackendReconnected { continuity } => {
                self.resumed += u32::from(*continuity == runtide_core::event::Continuity::Resumed);
            }
            Kind::ResyncBegin { .. } => self.open_gap = Some(self.last_native),
            Kind::ResyncEnd(_) => {
                let from = self.open_gap.take().unwrap_or(0);
                self.gaps.push((from, nanos(event.observed_at)));
                let ended = self.table.iter().filter(|row| !row.state.is_alive());
                self.ended.push(ended.map(|row| row.id.as_str().to_owned()).collect());
            }
            Kind::Started(_) | Kind::Stopped(_) => {
                let token = event.token.as_ref().map_or(String::new(), |token| token.as_str().to_owned());
                let mut parts = token.split(' ');
                if let (Some(time), Some(action), Some(instance)) = (parts.next(), parts.next(), event.instance()) {
                    let exit = instance.exit.and_then(|exit| match exit.end {
                        ExitCause::Code(code) => Some(code),
                        _ => None,
                    });
                    self.edges.push(Printed {
                        nanos: time.replace('.', "").parse().unwrap_or(0),
                        id: instance.id.as_str().to_owned(),
                        action: action.to_owned(),
                        exit: exit.filter(|_| action == "die"),
                    });
                }
            }
            _ => {}
        }
        self.last_native = native.unwrap_or(self.last_native);
    }
}

async fn testbed(verb: &str) {
    let testbed = Testbed::of(known_as()).expect("RUNTIDE_TESTBED says how to kill the daemon");
    testbed.run(&[verb]).await.expect("the testbed runs");
}

/// Tries until it works: the daemon is down now and then.
async fn insist(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Option<Value> {
    let mut refused = 0;
    for _ in 0..300 {
        match daemon.try_ask(method, path, body).await {
            // A killed daemon cannot start a half-made container again.
            Ok(answer) if answer.status >= 500 && refused >= 10 => return None,
            Ok(answer) if answer.status >= 500 => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(answer) if answer.status < 300 || answer.status == 304 => {
                return Some(answer.json().unwrap_or(Value::Null));
            }
            Ok(answer) if answer.status == 404 || answer.status == 409 => return None,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("{method} {path}: the daemon did not come back");
}

/// One container's run: a third too short to inspect, some killed by a signal that ends nothing, some removed, some stay.
async fn one_run(daemon: &Daemon, n: usize, image: &str) {
    let command = match n % 3 {
        0 => format!("exit {}", n % 7),
        1 => format!("trap : HUP; sleep 0.{}; exit {}", n % 9 + 1, n % 5),
        _ => "trap 'exit 3' TERM; while :; do sleep 0.2; done".to_owned(),
    };
    let body = json!({"Image": image, "Cmd": ["sh", "-c", command], "StopTimeout": 2, "HostConfig": {"Init": false}});
    let created = insist(daemon, "POST", &format!("/containers/create?name={PREFIX}{n}"), &body).await;
    // A name that is taken: the answer to the first attempt was lost with the daemon.
    let id = match created {
        Some(created) => created["Id"].as_str().unwrap_or_default().to_owned(),
        None => format!("{PREFIX}{n}"),
    };
    insist(daemon, "POST", &format!("/containers/{id}/start"), &Value::Null).await;
    if n % 3 == 1 {
        insist(daemon, "POST", &format!("/containers/{id}/kill?signal=HUP"), &Value::Null).await;
    }
    if n % 6 == 2 {
        insist(daemon, "POST", &format!("/containers/{id}/stop?t=2"), &Value::Null).await;
    }
    if n.is_multiple_of(4) {
        insist(daemon, "DELETE", &format!("/containers/{id}?force=1"), &Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_with_a_daemon_that_is_killed_five_times() {
    let Some(address) = std::env::var_os("RUNTIDE_TEST_DOCKER") else {
        report::skip("churn", "docker", "RUNTIDE_TEST_DOCKER is not set");
        return;
    };
    let socket = PathBuf::from(address.to_string_lossy().trim_start_matches("unix://"));
    let count: usize = std::env::var("RUNTIDE_CHURN").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let image = std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned());
    let _turn = Turn::on(known_as()).await.expect("a lock");
    testbed("start").await;
    let daemon = Daemon::at(socket.clone());
    clean_up(&daemon).await;

    let backend =
        Arc::new(DockerBackend::new(Config::default().with_endpoint(Endpoint::unix(&socket))).expect("a backend"));
    let mut stream = backend.watch(WatchOptions::default()).await.expect("a watch");
    let heard = Arc::new(Mutex::new(Heard::default()));
    let listening = tokio::spawn({
        let heard = Arc::clone(&heard);
        async move {
            while let Some(event) = stream.next().await {
                heard.lock().unwrap().hear(&event.expect("an event"));
            }
        }
    });
    // The reference: the daemon's own events, from a separate connection that is opened again after each kill.
    let reference: Arc<Mutex<BTreeSet<Printed>>> = Arc::default();
    let begin = SystemTime::now();
    let reading = tokio::spawn({
        let (daemon, reference) = (daemon.clone(), Arc::clone(&reference));
        async move {
            loop {
                let since = nanos(begin);
                let since = format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000);
                let _ = daemon.events(&since, |event| reference.lock().unwrap().extend(printed(&event))).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });

    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let started = std::time::Instant::now();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (daemon, next, image) = (daemon.clone(), Arc::clone(&next), image.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    one_run(&daemon, n, &image).await;
                }
            })
        })
        .collect();
    let done = || next.load(std::sync::atomic::Ordering::Relaxed).min(count);
    for kill in 1..=KILLS {
        while done() < count * kill as usize / (KILLS as usize + 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        testbed("kill").await;
        testbed("start").await;
    }
    for worker in workers {
        worker.await.expect("a worker");
    }
    let took = started.elapsed();

    // At rest: nothing more is printed, and the fold has caught up.
    let wrong = loop_until_equal(&backend, &daemon, &heard).await;
    reading.abort();
    listening.abort();
    assert_eq!(wrong, Vec::<String>::new(), "the fold and the daemon's list differ");
    let proven =
        verdict(&heard.lock().unwrap(), &reference.lock().unwrap(), &format!("{count} containers in {took:.1?}"));
    assert!(proven >= count, "only {proven} edges were compared: the test proves nothing");
    clean_up(&daemon).await;
}

/// Time, in nanoseconds, by which a daemon prints the message of an end that its listing has: a busy machine takes seconds.
const PRINTED_WITHIN: u64 = 60_000_000_000;

/// Checks that every event outside the gaps was delivered once, as the daemon printed it. Returns their number.
fn verdict(heard: &Heard, reference: &BTreeSet<Printed>, what: &str) -> usize {
    assert!(heard.outages >= 1, "the daemon was killed, and no outage was reported");
    let in_gap = |one: &Printed| {
        let is_seen = |ended: &BTreeSet<String>| one.action == "die" && ended.contains(&one.id);
        heard.gaps.iter().zip(&heard.ended).any(|((from, to), ended)| {
            let to = if is_seen(ended) { to.saturating_add(PRINTED_WITHIN) } else { *to };
            *from < one.nanos && one.nanos <= to
        })
    };
    let mut delivered: BTreeMap<(u64, &str, &str), Vec<Option<i32>>> = BTreeMap::new();
    for edge in &heard.edges {
        delivered.entry((edge.nanos, edge.id.as_str(), edge.action.as_str())).or_default().push(edge.exit);
    }
    let (mut proven, mut excused, mut faults) = (0, 0, Vec::new());
    for one in reference {
        match delivered.get(&(one.nanos, one.id.as_str(), one.action.as_str())).map(Vec::as_slice) {
            Some([exit]) if *exit == one.exit => proven += 1,
            Some(other) => faults.push(format!("{one:?} was delivered as {other:?}")),
            None if in_gap(one) => excused += 1,
            None => faults.push(format!("{one:?} was not delivered")),
        }
    }
    println!(
        "{what}, {KILLS} kills: {proven} starts and dies delivered once, {excused} in marked gaps; {} outages, {} resumed, \
         {} brackets, of {:?} ms",
        heard.outages,
        heard.resumed,
        heard.gaps.len(),
        heard.gaps.iter().map(|(from, to)| to.saturating_sub(*from) / 1_000_000).collect::<Vec<_>>()
    );
    assert_eq!(heard.twice, Vec::<String>::new(), "a fact was reported twice");
    faults.truncate(10);
    assert!(faults.is_empty(), "of {} these are wrong: {faults:#?}", reference.len());
    proven
}

/// The fold against `GET /containers/json?all=1`, read by nothing of ours, and against `list_instances`.
async fn loop_until_equal(backend: &DockerBackend, daemon: &Daemon, heard: &Mutex<Heard>) -> Vec<String> {
    let mut wrong = Vec::new();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(Ok(list)) = daemon.ask("GET", "/containers/json?all=1", &Value::Null).await.map(|answer| answer.json())
        else {
            continue;
        };
        let listed = backend.list_instances(ListOptions::default()).await.expect("a list");
        let heard = heard.lock().unwrap();
        let rows: BTreeMap<&str, _> = heard.table.iter().map(|row| (row.id.as_str(), row)).collect();
        wrong.clear();
        for item in list.as_array().into_iter().flatten() {
            let (id, state) = (item["Id"].as_str().unwrap_or_default(), item["State"].as_str().unwrap_or_default());
            let expected = match state {
                "exited" => "stopped",
                state => state,
            };
            match rows.get(id) {
                Some(row) if row.state.as_str() == expected => {}
                Some(row) => wrong.push(format!("{id} is {expected}, and in the fold {}", row.state)),
                None => wrong.push(format!("{id} is {expected}, and not in the fold")),
            }
        }
        if rows.len() != list.as_array().map_or(0, Vec::len) {
            wrong.push(format!("{} rows in the fold", rows.len()));
        }
        if !listed.is_complete() || listed.instances.len() != rows.len() {
            wrong.push(format!("{} instances in our own list", listed.instances.len()));
        }
        if wrong.is_empty() {
            break;
        }
    }
    wrong
}

async fn clean_up(daemon: &Daemon) {
    let list = insist(daemon, "GET", "/containers/json?all=1", &Value::Null).await.unwrap_or_default();
    for item in list.as_array().into_iter().flatten() {
        let ours = item["Names"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|name| name.as_str().is_some_and(|name| name.trim_start_matches('/').starts_with(PREFIX)));
        if let Some(id) = item["Id"].as_str().filter(|_| ours) {
            insist(daemon, "DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null).await;
        }
    }
}
