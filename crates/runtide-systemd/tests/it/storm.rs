//! Short services back to back, while the manager reloads, re-executes itself, and is killed: on a separate machine
//! (`RUNTIDE_TEST_SYSTEMD2`), so that no other test is disturbed.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_conformance::testbed::{Testbed, Turn};
use runtide_core::{
    ExitStatus, Gap, InstanceState, InstanceTable, RuntimeBackend, RuntimeEvent, RuntimeEventKind as Kind, WatchOptions,
};
use runtide_systemd::{Config, Selection, SystemdBackend};
use zbus::Variant;

use crate::machine::{self, Machine, Settings};

/// One run of a service, as the test that started it knows it.
struct Run {
    unit: String,
    from: Instant,
    to: Instant,
    code: i32,
}

/// The second machine, for one test at a time; `None`: it has no address, which is a failure where it is required.
async fn machine() -> Option<(Arc<Machine>, SystemdBackend, String, Turn)> {
    let Ok(address) = std::env::var("RUNTIDE_TEST_SYSTEMD2") else {
        let why = "RUNTIDE_TEST_SYSTEMD2 is not set: cargo xtask testbed up systemd2";
        runtide_conformance::report::skip("storm", "systemd", why);
        return None;
    };
    let prefix = format!("st{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xff_ffff_ffff);
    let config = Config::system()
        .with_address(address.clone())
        .with_root(std::env::var_os("RUNTIDE_TEST_SYSTEMD2_ROOT").map(PathBuf::from))
        .with_selection(Selection::default().with_pattern(format!("{prefix}*")));
    let turn = Turn::on("systemd2").await.unwrap();
    Some((Arc::new(Machine::at(&address)), SystemdBackend::new(config).unwrap(), prefix, turn))
}

/// Progress of a churn, and the flag that stops it.
#[derive(Default)]
struct Progress {
    runs: AtomicUsize,
    stop: AtomicBool,
}

/// Starts services of 10 to 50 ms one after the other, until `stop` is set.
async fn churn(machine: Arc<Machine>, prefix: String, most: usize, progress: Arc<Progress>) -> Vec<Run> {
    let mut runs = Vec::new();
    for number in 0..most {
        if progress.stop.load(Ordering::Acquire) {
            break;
        }
        let (unit, code) = (format!("{prefix}-{number}.service"), i32::try_from(number % 100).unwrap());
        let shell = format!("sleep 0.0{}; exit {code}", 10 + number % 40);
        let exec = vec![("/bin/sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned(), shell], false)];
        let settings: Settings<'_> =
            vec![("ExecStart", Variant::from(exec)), ("CollectMode", Variant::from("inactive-or-failed"))];
        let aux: Vec<(&str, Settings<'_>)> = Vec::new();
        let from = Instant::now();
        if machine.manager("StartTransientUnit", &(unit.as_str(), "fail", settings, aux)).await.is_err() {
            continue; // the machine went away
        }
        if machine.until(&unit, |seen| seen.is_none_or(machine::rests)).await.is_ok() {
            runs.push(Run { unit, from, to: Instant::now(), code });
            progress.runs.fetch_add(1, Ordering::AcqRel);
        }
    }
    runs
}

type Reported = Arc<Mutex<Vec<(Instant, Arc<RuntimeEvent>)>>>;

/// Reads a watch to its end, with the time at which each event came.
async fn listen(backend: &SystemdBackend) -> (Reported, tokio::task::JoinHandle<()>) {
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let reported = Reported::default();
    let writer = Arc::clone(&reported);
    let task = tokio::spawn(async move {
        // Its last item is the error that the backend was closed.
        while let Some(Ok(event)) = stream.next().await {
            writer.lock().unwrap().push((Instant::now(), event));
        }
    });
    let live = || reported.lock().unwrap().iter().any(|(_, event)| matches!(event.kind, Kind::ResyncEnd(_)));
    while !live() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (reported, task)
}

/// Each unit's starts and ends outside of resyncs.
fn edges(reported: &Reported) -> HashMap<String, (usize, Vec<Option<ExitStatus>>)> {
    let mut edges: HashMap<String, (usize, Vec<Option<ExitStatus>>)> = HashMap::new();
    for (_, event) in reported.lock().unwrap().iter() {
        match &event.kind {
            Kind::Started(instance) => edges.entry(instance.id.to_string()).or_default().0 += 1,
            Kind::Stopped(instance) => edges.entry(instance.id.to_string()).or_default().1.push(instance.exit),
            _ => {}
        }
    }
    edges
}

/// Waits for the end of a resync that came after the last fault.
async fn resync(reported: &Reported, faults: &[(Instant, &str)]) {
    let (from, what) = *faults.last().unwrap();
    for _ in 0..600 {
        if reported.lock().unwrap().iter().any(|(at, event)| *at > from && matches!(event.kind, Kind::ResyncEnd(_))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no resync after a {what}");
}

/// Waits until the end of each of these units is reported.
async fn all_ended(reported: &Reported, units: &[&str]) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let edges = edges(reported);
        let is_missing = |unit: &&&str| edges.get(**unit).is_none_or(|(_, stops)| stops.is_empty());
        let missing: Vec<_> = units.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "no end of {missing:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no event has come for a while: what is reported twice would be among them.
async fn at_rest(reported: &Reported) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let now = reported.lock().unwrap().len();
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// Compares the folded stream with the manager's list: they agree before long.
async fn compare(reported: &Reported, machine: &Machine, prefix: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let mut table = InstanceTable::default();
        for (_, event) in reported.lock().unwrap().iter() {
            let _ = table.apply(event);
        }
        let folded: BTreeMap<String, InstanceState> = table.iter().map(|one| (one.id.to_string(), one.state)).collect();
        let listed = machine.units(&format!("{prefix}*.service")).await.unwrap();
        if listed.iter().eq(folded.keys()) {
            return;
        }
        assert!(Instant::now() < end, "listed {listed:?}, folded {folded:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_edge_outside_the_resyncs_is_reported_through_reloads_reexecutions_and_boots() {
    let Some((machine, backend, prefix, _turn)) = machine().await else { return };
    let testbed = Testbed::of("systemd2");
    let (reported, listening) = listen(&backend).await;
    let progress = Arc::<Progress>::default();
    let churning = tokio::spawn(churn(Arc::clone(&machine), prefix.clone(), 100_000, Arc::clone(&progress)));

    let mut faults: Vec<(Instant, &str)> = Vec::new();
    let pause = || tokio::time::sleep(Duration::from_secs(1));
    for _ in 0..10 {
        pause().await;
        faults.push((Instant::now(), "reload"));
        machine.manager("Reload", &()).await.unwrap();
        // On a loaded machine a resync may come after the next reload, and be taken for that one's, or be one for both.
        resync(&reported, &faults).await;
    }
    for _ in 0..3 {
        pause().await;
        faults.push((Instant::now(), "reexecute"));
        // It leaves the bus without an answer.
        let connection = machine.dial().await.unwrap();
        let systemd = "org.freedesktop.systemd1";
        let _ = connection
            .call_method(
                Some(systemd),
                "/org/freedesktop/systemd1",
                Some("org.freedesktop.systemd1.Manager"),
                "Reexecute",
                &(),
            )
            .await;
        machine.version().await.unwrap();
        resync(&reported, &faults).await;
        pause().await;
    }
    if let Some(testbed) = testbed {
        for _ in 0..2 {
            pause().await;
            faults.push((Instant::now(), "kill"));
            testbed.run(&["kill", "start"]).await.unwrap();
            machine.version().await.unwrap();
            resync(&reported, &faults).await;
            pause().await;
        }
    } else {
        runtide_conformance::report::skip(
            "storm",
            "systemd",
            "RUNTIDE_TESTBED is not set: the machine cannot be killed",
        );
    }
    // Even on a slow machine, so many are outside of the resyncs.
    let ended = || progress.runs.load(Ordering::Acquire);
    let (before, mut last) = (ended(), (ended(), Instant::now()));
    while last.0 < before + 110 {
        assert!(last.1.elapsed() < Duration::from_secs(60), "no run in a minute, after {}", last.0 - before);
        tokio::time::sleep(Duration::from_millis(50)).await;
        if ended() != last.0 {
            last = (ended(), Instant::now());
        }
    }
    progress.stop.store(true, Ordering::Release);
    let runs = churning.await.unwrap();
    let final_runs: Vec<&str> = runs[runs.len() - 100..].iter().map(|run| run.unit.as_str()).collect();
    all_ended(&reported, &final_runs).await;
    at_rest(&reported).await;

    // A fault lasts from its injection to the end of the last resync that began before the next one.
    let ends: Vec<Instant> = reported
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, event)| matches!(event.kind, Kind::ResyncEnd(_)))
        .map(|(at, _)| *at)
        .collect();
    let windows: Vec<(Instant, Instant)> = faults
        .iter()
        .enumerate()
        .map(|(n, (from, what))| {
            let next = faults.get(n + 1).map_or_else(Instant::now, |(next, _)| *next);
            let last = ends.iter().filter(|at| **at > *from && **at < next).max();
            (*from, *last.unwrap_or_else(|| panic!("no resync after a {what}")))
        })
        .collect();
    let edges = edges(&reported);
    let (mut outside, mut of_all) = (0, 0);
    for run in &runs {
        of_all += 1;
        if windows.iter().any(|(from, to)| run.from <= *to && run.to >= *from) {
            continue;
        }
        outside += 1;
        let (starts, stops) = edges.get(&run.unit).cloned().unwrap_or_default();
        assert_eq!((starts, stops), (1, vec![Some(ExitStatus::code(run.code))]), "{}", run.unit);
    }
    println!(
        "{of_all} runs, {outside} of them outside of the resyncs, {} faults, {} resyncs",
        faults.len(),
        ends.len()
    );
    assert!(outside > 100, "only {outside} of {of_all} runs were outside of the resyncs");
    assert!(edges.values().all(|(starts, stops)| *starts <= 1 && stops.len() <= 1), "no edge is reported twice");
    compare(&reported, &machine, &prefix).await;
    backend.close().await.unwrap();
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_monitors_change_nothing_and_none_is_needed() {
    let Some((machine, backend, prefix, _turn)) = machine().await else { return };
    // Another monitor does what monitors should not: it reads properties of every new unit (trap S2).
    let (reported, listening) = listen(&backend).await;
    for round in ["alone", "with another"] {
        let reader = if round == "alone" { None } else { Some(read_whatever_is_new(&machine).await) };
        reported.lock().unwrap().clear();
        let round_prefix = format!("{prefix}-{}", round.replace(' ', "-"));
        let runs = churn(Arc::clone(&machine), round_prefix, 50, Arc::default()).await;
        all_ended(&reported, &runs.iter().map(|run| run.unit.as_str()).collect::<Vec<_>>()).await;
        at_rest(&reported).await;
        let edges = edges(&reported);
        assert_eq!(runs.len(), 50);
        for run in &runs {
            let (starts, stops) = edges.get(&run.unit).cloned().unwrap_or_default();
            assert_eq!((starts, stops), (1, vec![Some(ExitStatus::code(run.code))]), "{round}: {}", run.unit);
        }
        let events = reported.lock().unwrap().len();
        assert!(events < 50 * 6, "{round}: {events} events of 50 runs are a storm");
        let gaps = reported
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, event)| matches!(event.kind, Kind::ResyncBegin { gap: Gap::Disconnected }))
            .count();
        assert_eq!(gaps, 0, "{round}");
        if let Some(reader) = reader {
            reader.abort();
        }
    }
    backend.close().await.unwrap();
    listening.await.unwrap();
}

/// A monitor as none should be.
async fn read_whatever_is_new(machine: &Arc<Machine>) -> tokio::task::JoinHandle<()> {
    use futures_util::StreamExt as _;
    let connection = machine.dial().await.unwrap();
    let mut messages = zbus::MessageStream::from(connection.clone());
    let (bus, systemd) = ("org.freedesktop.DBus", "org.freedesktop.systemd1");
    let rule = "type='signal',sender='org.freedesktop.systemd1',member='UnitNew'";
    connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "AddMatch", &(rule,)).await.unwrap();
    let manager = "org.freedesktop.systemd1.Manager";
    connection.call_method(Some(systemd), "/org/freedesktop/systemd1", Some(manager), "Subscribe", &()).await.unwrap();
    let machine = Arc::clone(machine);
    tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            if let Ok((_, path)) = message.body().deserialize::<(String, zbus::OwnedObjectPath)>() {
                let _ = machine.call(&path, "org.freedesktop.DBus.Properties", "GetAll", &("",)).await;
            }
        }
    })
}
