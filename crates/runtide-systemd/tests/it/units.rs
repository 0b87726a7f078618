//! Units of every sort on a real systemd: labels of files, templates, triggers, one-shots, restarts; and the manager of
//! a user.

use std::{path::PathBuf, time::Duration};

use runtide_conformance::testbed::Turn;
use runtide_core::{
    ErrorKind, ExitStatus, Instance, InstanceState as S, InstanceTable, LabelMatch, Labels, ListOptions, Protocol,
    RuntimeBackend, RuntimeBackendExt, RuntimeEventKind as Kind, UnixSignal, WatchOptions,
    manager::{InstanceSpec, RemoveOptions},
};
use runtide_systemd::{Config, Selection, SystemdBackend};

use crate::machine::{self, Machine};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A variable of the testbed; `None`: it is not set, which is a failure where a real systemd is required.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        runtide_conformance::report::skip("units", "systemd", format!("{name} is not set: cargo xtask testbed up"));
    }
    value
}

/// The second machine, with unit files of this test on it, for one test at a time: each reloads all its units.
struct Fixture {
    _turn: Turn,
    machine: Machine,
    config: Config,
    prefix: String,
    root: PathBuf,
    files: Vec<PathBuf>,
}

impl Fixture {
    async fn with(files: &[(&str, &str)]) -> Option<Self> {
        let address = variable("RUNTIDE_TEST_SYSTEMD2")?;
        let root = PathBuf::from(variable("RUNTIDE_TEST_SYSTEMD2_ROOT")?);
        let prefix =
            format!("un{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xff_ffff_ffff);
        let config = Config::system().with_address(address.clone()).with_root(root.clone());
        let config = config.with_selection(Selection::default().with_pattern(format!("{prefix}*")));
        let turn = Turn::on("systemd2").await.unwrap();
        let mut fixture = Self { _turn: turn, machine: Machine::at(&address), config, prefix, root, files: Vec::new() };
        for (name, text) in files {
            let path = fixture.root.join("run/systemd/system").join(name.replace("PRE", &fixture.prefix));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text.replace("PRE", &fixture.prefix)).unwrap();
            fixture.files.push(path);
        }
        fixture.machine.manager("Reload", &()).await.unwrap();
        Some(fixture)
    }

    fn backend(&self) -> SystemdBackend {
        SystemdBackend::new(self.config.clone()).unwrap()
    }

    async fn verb(&self, verb: &str, unit: &str) -> String {
        let unit = unit.replace("PRE", &self.prefix);
        self.machine.manager(verb, &(unit.as_str(), "replace")).await.unwrap();
        unit
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A free port, below those that the system gives to connections: the machine's network is shared by all tests.
fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 6_000).unwrap();
    (first..32_000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

async fn until(backend: &SystemdBackend, unit: &str, done: impl Fn(&Instance) -> bool + Send + Sync) -> Instance {
    let end = tokio::time::Instant::now() + TIMEOUT;
    loop {
        match backend.wait_for(&unit.into(), &done, TIMEOUT).await {
            Ok(found) => return Instance::clone(&found),
            // The unit was only just started, and its start is not reported yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(tokio::time::Instant::now() < end, "{unit} never came");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{unit}: {error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_templates_and_triggers_are_read_from_the_units() {
    let listened = free_port();
    let socket = format!("[Socket]\nListenStream=127.0.0.1:{listened}\n");
    let files = [
        ("PREweb@.service", "[Service]\nExecStart=/bin/sleep 1000\n[X-koi]\ndns.name=web-%i\n[X-Labels]\nteam=a b\n"),
        ("PREweb@.service.d/10.conf", "[X-Labels]\nteam=c\nextra=1\n"),
        ("PREsock.service", "[Unit]\nRequires=PREsock.socket\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("PREsock.socket", socket.as_str()),
    ];
    let Some(fixture) = Fixture::with(&files).await else { return };
    let backend = fixture.backend();
    let web = fixture.verb("StartUnit", "PREweb@1.service").await;
    let seen =
        until(&backend, &web, |one| one.state == S::Running && one.labels.is_some() && one.group.is_some()).await;
    let labels = Labels::from_iter([("koi.dns.name", "web-%i"), ("team", "c"), ("extra", "1")]);
    assert_eq!(seen.labels, Some(labels));
    let group = seen.group.unwrap();
    assert_eq!(group.service, Some(format!("{}web@.service", fixture.prefix)));
    assert!(group.name.contains(".slice"), "{}", group.name);

    let sock = fixture.verb("StartUnit", "PREsock.service").await;
    until(&backend, &sock, |one| one.state == S::Running).await;
    let seen = backend.inspect(&sock.as_str().into()).await.unwrap();
    assert_eq!(seen.group.as_ref().unwrap().triggers, [format!("{}sock.socket", fixture.prefix)]);
    let ports = seen.ports.as_ref().unwrap();
    assert!(ports.iter().any(|port| port.number.get() == listened && port.protocol == Protocol::Tcp), "{ports:?}");

    let chosen = Selection::default()
        .with_pattern(format!("{}*", fixture.prefix))
        .with_label(LabelMatch::is("koi.dns.name", "web-%i"))
        .with_slice(group.name.clone());
    let only = SystemdBackend::new(fixture.config.clone().with_selection(chosen)).unwrap();
    let listed = only.list_instances(ListOptions::default()).await.unwrap();
    let ids: Vec<&str> = listed.instances.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, [web.as_str()], "sockets' service has no such label");
    for unit in [&web, &sock] {
        fixture.verb("StopUnit", unit).await;
    }
    fixture.verb("StopUnit", "PREsock.socket").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shots_restarts_limits_and_conditions_have_their_states() {
    let files = [
        (
            "PREjob.service",
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'while [ ! -e /run/PREgo ]; do sleep 0.05; done'\nRemainAfterExit=yes\n",
        ),
        (
            "PREloop.service",
            "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\nExecStart=/bin/sh -c 'exit 7'\nRestart=always\nRestartSec=200ms\n",
        ),
        ("PREnever.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 1000\n"),
        (
            "PREdog.service",
            "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=300ms\nWatchdogSignal=KILL\nExecStart=/bin/sh -c 'systemd-notify --ready; sleep 1000'\n",
        ),
    ];
    let Some(fixture) = Fixture::with(&files).await else { return };
    let backend = fixture.backend();
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    while !matches!(events.next().await.unwrap().unwrap().kind, Kind::ResyncEnd(_)) {}

    let job = fixture.verb("StartUnit", "PREjob.service").await;
    until(&backend, &job, |one| one.state == S::Running).await;
    let go = fixture.root.join("run").join(format!("{}go", fixture.prefix));
    std::fs::write(&go, "").unwrap();
    let done = until(&backend, &job, |one| one.state == S::Stopped).await;
    assert_eq!(done.exit, Some(ExitStatus::code(0)), "its process is gone, and the unit stays up");
    std::fs::remove_file(go).unwrap();

    let looping = fixture.verb("StartUnit", "PREloop.service").await;
    let failed = until(&backend, &looping, |one| one.state == S::Failed).await;
    assert_eq!(
        (failed.exit, failed.reason.as_deref()),
        (Some(ExitStatus::code(7)), Some("exit-code")),
        "systemd keeps what it saw first"
    );
    let mut incarnations = std::collections::BTreeSet::new();
    let mut exits = Vec::new();
    while exits.len() < 3 {
        let event = tokio::time::timeout(TIMEOUT, events.next()).await.expect("three ends").unwrap().unwrap();
        if let Kind::Stopped(one) = &event.kind
            && one.id.as_str() == looping
        {
            incarnations.insert(one.incarnation.clone().unwrap());
            exits.push(one.exit);
        }
    }
    assert_eq!((incarnations.len(), exits), (3, vec![Some(ExitStatus::code(7)); 3]), "each restart is a separate run");

    let never = fixture.prefix.clone() + "never.service";
    fixture.machine.manager("StartUnit", &(never.as_str(), "replace")).await.unwrap();
    let is_tried = |seen: Option<&machine::Properties>| {
        seen.is_none_or(|seen| machine::number(seen, "ConditionTimestampMonotonic") != 0)
    };
    fixture.machine.until(&never, is_tried).await.unwrap();
    match backend.inspect(&never.as_str().into()).await {
        Ok(one) => assert_eq!((one.state, &one.incarnation), (S::Created, &None)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound), // unloaded again
    }

    let dog = fixture.verb("StartUnit", "PREdog.service").await;
    let failed = until(&backend, &dog, |one| one.state == S::Failed).await;
    assert_eq!(failed.reason.as_deref(), Some("watchdog"), "{failed:?}");
    for unit in [&job, &looping, &dog] {
        let _ = fixture.machine.manager("StopUnit", &(unit.as_str(), "replace")).await;
        let _ = fixture.machine.manager("ResetFailedUnit", &(unit.as_str(),)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_refused_takes_nothing_from_the_run_before() {
    let files = [
        (
            "PRElimit.service",
            "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n[Service]\nExecStart=/bin/sh -c 'exit 7'\n",
        ),
        (
            "PREloop.service",
            "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=/bin/sh -c 'exit 7'\nRestart=always\nRestartSec=50ms\n",
        ),
        ("PREcondition.service", "[Unit]\nConditionPathExists=!/run/PREno\n[Service]\nExecStart=/bin/sh -c 'exit 7'\n"),
        (
            "PREassertion.service",
            "[Unit]\nAssertPathExists=!/run/PREno\n[Service]\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
        ),
        // Its main process never ran.
        (
            "PREbefore.service",
            "[Unit]\nConditionPathExists=!/run/PREno\n[Service]\nExecStartPre=/bin/false\nExecStart=/bin/true\n",
        ),
        // Kept loaded by another unit, although it ended well; what is refused then is its failure.
        ("PREwell.service", "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n[Service]\nExecStart=/bin/true\n"),
        ("PREkeeper.service", "[Unit]\nAfter=PREwell.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
    ];
    let Some(fixture) = Fixture::with(&files).await else { return };
    let backend = fixture.backend();
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    let mut table = InstanceTable::default();
    while !matches!(events.next().await.unwrap().unwrap().kind, Kind::ResyncEnd(_)) {}
    fixture.verb("StartUnit", "PREkeeper.service").await;
    let runs = [
        ("limit", Some(ExitStatus::code(7)), "exit-code"),
        ("loop", Some(ExitStatus::code(7)), "exit-code"),
        ("condition", Some(ExitStatus::code(7)), "exit-code"),
        ("assertion", Some(ExitStatus::signal(UnixSignal::KILL)), "signal"),
        ("before", None, "exit-code"),
        ("well", Some(ExitStatus::code(0)), "start-limit-hit"),
    ];
    let mut expected = Vec::new();
    for (name, exit, reason) in runs {
        let unit = fixture.verb("StartUnit", &format!("PRE{name}.service")).await;
        let is_over = |seen: Option<&machine::Properties>| {
            seen.is_some_and(|seen| machine::rests(seen) && machine::number(seen, "InactiveEnterTimestamp") != 0)
        };
        fixture.machine.until(&unit, is_over).await.unwrap();
        let seen = fixture.machine.properties(&unit).await.unwrap().unwrap();
        expected.push((unit, machine::invocation(&seen).unwrap(), exit, reason));
    }
    let marker = fixture.root.join("run").join(format!("{}no", fixture.prefix));
    std::fs::write(&marker, "").unwrap();
    for (unit, ..) in &expected {
        fixture.verb("StartUnit", unit).await;
        let checked = "ConditionTimestampMonotonic";
        let is_refused = |seen: Option<&machine::Properties>| {
            seen.is_some_and(|seen| {
                machine::number(seen, checked) > machine::number(seen, "InactiveExitTimestampMonotonic")
            })
        };
        fixture.machine.until(unit, is_refused).await.unwrap();
    }
    fixture.machine.manager("Reload", &()).await.unwrap();
    let listed = backend.list_instances(ListOptions::default()).await.unwrap();
    let is_right = |one: &Instance, (unit, run, exit, reason): &(String, String, Option<ExitStatus>, &str)| {
        one.id.as_str() == unit
            && one.state == S::Failed
            && one.incarnation.as_ref().map(ToString::to_string).as_ref() == Some(run)
            && (one.exit, one.reason.as_deref()) == (*exit, Some(*reason))
    };
    for expected in &expected {
        let seen = fixture.machine.properties(&expected.0).await.unwrap().unwrap();
        assert_eq!(machine::invocation(&seen).as_ref(), Some(&expected.1), "the manager still has the run");
        let row = listed.instances.iter().find(|one| one.id.as_str() == expected.0);
        assert!(row.is_some_and(|row| is_right(row, expected)), "{expected:?}: {row:?}");
    }
    let end = tokio::time::Instant::now() + TIMEOUT;
    let mut is_listed = false;
    loop {
        let wrong: Vec<_> = expected.iter().filter(|run| !table.iter().any(|one| is_right(one, run))).collect();
        if wrong.is_empty() && is_listed {
            break;
        }
        let Ok(event) = tokio::time::timeout_at(end, events.next()).await else {
            let shown = wrong.iter().map(|run| table.iter().find(|one| one.id.as_str() == run.0));
            panic!("listed {is_listed}: {wrong:?} are {:?}", shown.collect::<Vec<_>>());
        };
        let event = event.unwrap().unwrap();
        is_listed |= matches!(event.kind, Kind::ResyncEnd(_));
        let _ = table.apply(&event);
    }
    std::fs::remove_file(marker).unwrap();
    for (unit, ..) in &expected {
        let _ = fixture.machine.manager("ResetFailedUnit", &(unit.as_str(),)).await;
    }
    fixture.verb("StopUnit", "PREkeeper.service").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_loses_its_file_is_removed_after_its_run() {
    let files = [
        // It keeps the other's name loaded, so that no signal reports its removal.
        ("PREreferrer.service", "[Unit]\nWants=PREorphan.service\n[Service]\nExecStart=/bin/sleep 1000\n"),
        ("PREorphan.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
    ];
    let Some(fixture) = Fixture::with(&files).await else { return };
    let backend = fixture.backend();
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    let referrer = fixture.verb("StartUnit", "PREreferrer.service").await;
    let orphan = format!("{}orphan.service", fixture.prefix);
    until(&backend, &orphan, |one| one.state == S::Running).await;
    while events.next().await.unwrap().unwrap().instance().is_none_or(|one| one.id.as_str() != orphan) {}
    std::fs::remove_file(fixture.files.last().unwrap()).unwrap();
    fixture.machine.manager("Reload", &()).await.unwrap();
    // Its resync shows it once more.
    let mut is_shown = false;
    loop {
        let event = tokio::time::timeout(TIMEOUT, events.next()).await.expect("a resync").unwrap().unwrap();
        match &event.kind {
            Kind::ResyncBegin { .. } => is_shown = false,
            Kind::Present(one) if one.id.as_str() == orphan => is_shown = true,
            Kind::ResyncEnd(_) if is_shown => break,
            _ => {}
        }
    }
    let seen = backend.inspect(&orphan.as_str().into()).await.unwrap();
    assert_eq!(seen.state, S::Running, "it runs, file or not");
    fixture.verb("StopUnit", "PREorphan.service").await;
    let mut stopped = false;
    loop {
        let event = tokio::time::timeout(TIMEOUT, events.next()).await.expect("it goes").unwrap().unwrap();
        match &event.kind {
            Kind::BackendDisconnected { cause } => panic!("{cause:?}"),
            Kind::Stopped(one) if one.id.as_str() == orphan => stopped = true,
            Kind::Removed(one) if one.id.as_str() == orphan => break,
            _ => {}
        }
    }
    assert!(stopped);
    let error = backend.inspect(&orphan.as_str().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    fixture.verb("StopUnit", &referrer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_manager_is_one_like_the_systems() {
    let Some(address) = variable("RUNTIDE_TEST_SYSTEMD_USER") else { return };
    let mut config = Config::user("/nowhere").with_address(address);
    config.selection = Selection::default().with_pattern("runtide-user-*");
    let backend = SystemdBackend::new(config).unwrap();
    let info = backend.connect().await.unwrap();
    assert!(info.version.starts_with(|letter: char| letter.is_ascii_digit() || letter == 'v'), "{}", info.version);
    let mut spec = InstanceSpec::default();
    spec.name = Some(format!("runtide-user-{}", std::process::id()));
    spec.command = vec!["/bin/sh".to_owned(), "-c".to_owned(), "exit 5".to_owned()];
    spec.labels.insert("a.b", "c");
    let id = backend.provision().unwrap().create(&spec).await.unwrap();
    let created = backend.inspect(&id).await.unwrap();
    assert_eq!((created.state, created.labels.as_ref().unwrap().get("a.b")), (S::Created, Some("c")));
    let lifecycle = backend.lifecycle().unwrap();
    let _ = lifecycle.start(&id).await.unwrap();
    assert_eq!(lifecycle.wait(&id).await.unwrap(), Some(ExitStatus::code(5)));
    let _ = lifecycle.remove(&id, RemoveOptions::default()).await.unwrap();
    assert_eq!(backend.inspect(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn where_there_is_no_systemd_the_answer_comes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let backend = SystemdBackend::new(Config::user(folder.path()).with_deadline(TIMEOUT * 4)).unwrap();
    let began = std::time::Instant::now();
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < TIMEOUT);
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first.kind, Kind::BackendDisconnected { cause: Some(_) }), "{first:?}");
}
