//! The stable JSON form: the current output equals the golden files, and the output of an older version is still read.
//!
//! After a deliberate change: `RUNTIDE_BLESS=1 cargo test -p runtide-core --test it golden`, and review the difference.

use std::{
    fmt::Debug,
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{capabilities::*, event::*, manager::*, store::*, watch::*, *};
use serde::{Serialize, de::DeserializeOwned};

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    let mut written = serde_json::to_string_pretty(value).unwrap();
    written.push('\n');
    if std::env::var_os("RUNTIDE_BLESS").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, expected, "{name}: the JSON form changed");
    assert_eq!(serde_json::from_str::<T>(&expected).unwrap(), *value, "{name}: it does not read back");
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + seconds, 123_456_789)
}

fn instance() -> Instance {
    let mut web = Instance::new("docker:local", "4f0c", "web", InstanceKind::Container, InstanceState::Running);
    web.incarnation = Some("2023-11-14T22:13:21Z".into());
    web.health = Some(Health::Healthy);
    web.image = Some("shop/web:2".into());
    web.labels = Some([("koi.dns.name", "web"), ("tier", "front")].into_iter().collect());
    let http = Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp);
    web.ports = Some(vec![
        http.published_at("[::1]:8080".parse().unwrap()).published_at("127.0.0.1:8080".parse().unwrap()),
        Port::new(NonZeroU16::new(9).unwrap(), Protocol::Sctp),
    ]);
    web.addresses = Some(vec![Address::new("172.17.0.2".parse().unwrap(), Some("bridge".to_owned()))]);
    web.group = Some(Group::new(GroupKind::Compose, "shop").with_service(Some("web".to_owned())).into());
    web.node = Some("node-1".into());
    web.created_at = Some(at(0));
    web.started_at = Some(at(1));
    web.restarts = Some(0);
    web.generation = 3;
    web
}

fn event(seq: u64, kind: RuntimeEventKind) -> RuntimeEvent {
    let cursor = Cursor::new("018bcfe5".into(), seq, Some(ResumeToken::new("1700000000.000000001")));
    RuntimeEvent::new("docker:local".into(), cursor, at(2), kind)
}

fn unread() -> Failure {
    Failure::new(ErrorKind::Protocol, "docker.list", "no number in 'db'")
}

#[test]
fn instances() {
    golden("instance", &instance());
    golden("instance_unknown", &Instance::new("b", "i", "n", InstanceKind::Service, InstanceState::Unknown));
    let mut ended = Instance::new("b", "i", "n", InstanceKind::Container, InstanceState::Stopped);
    ended.exit = Some(ExitStatus::code(137).with_oom_killed(true));
    ended.finished_at = Some(at(9));
    golden("instance_ended", &ended);
    ended.exit = Some(ExitStatus::signal(UnixSignal::KILL));
    golden("instance_signalled", &ended);
}

#[test]
fn events() {
    let shared = Arc::new(instance());
    let mut started = event(1, RuntimeEventKind::Started(Arc::clone(&shared)));
    (started.token, started.native_at) = (started.cursor.native.clone(), Some(at(1)));
    let mut unhealthy = instance();
    unhealthy.health = Some(Health::Unhealthy);
    let changed = FieldSet::between(&shared, &unhealthy);
    let failure =
        Failure::from(&Error::new(ErrorKind::Unavailable, "docker.events", "severed").with_context("backend", "b"));
    golden(
        "events",
        &vec![
            started,
            event(2, RuntimeEventKind::Updated { instance: Arc::new(unhealthy), changed }),
            event(3, RuntimeEventKind::Stopped(Arc::clone(&shared))),
            event(4, RuntimeEventKind::Removed(Arc::clone(&shared))),
            event(5, RuntimeEventKind::BackendDisconnected { cause: Some(failure) }),
            event(6, RuntimeEventKind::BackendDisconnected { cause: None }),
            event(7, RuntimeEventKind::BackendReconnected { continuity: Continuity::Lost }),
            event(8, RuntimeEventKind::ResyncBegin { gap: Gap::Lagged { dropped: 7 } }),
            event(9, RuntimeEventKind::Present(shared)),
            event(10, RuntimeEventKind::ResyncEnd(Completeness::Complete)),
            event(10, RuntimeEventKind::Bookmark),
            event(11, RuntimeEventKind::ResyncEnd(Completeness::Partial(vec![unread()]))),
            event(12, RuntimeEventKind::BackendReconnected { continuity: Continuity::Resumed }),
            event(13, RuntimeEventKind::CaughtUp),
        ],
    );
}

#[test]
fn tables_and_transitions() {
    let mut table = InstanceTable::default();
    let shared = Arc::new(instance());
    let mut steps = Vec::new();
    for (seq, kind) in [
        (1, RuntimeEventKind::ResyncBegin { gap: Gap::Initial }),
        (2, RuntimeEventKind::Present(Arc::clone(&shared))),
        (3, RuntimeEventKind::ResyncEnd(Completeness::Complete)),
        (4, RuntimeEventKind::Removed(shared)),
    ] {
        steps.extend(table.apply(&event(seq, kind)));
        if seq == 3 {
            golden("table", &table);
        }
    }
    golden("transitions", &steps);
    let failure = Failure::from(&Error::new(ErrorKind::Unavailable, "docker.events", "severed"));
    golden(
        "changes",
        &vec![
            Change::Step(steps.remove(0)),
            Change::Synced { gap: Some(Gap::Initial), completeness: Completeness::Complete },
            Change::Offline { cause: Some(failure) },
            Change::Offline { cause: None },
            Change::Online { continuity: Continuity::Resumed },
            Change::Synced { gap: None, completeness: Completeness::Partial(vec![unread()]) },
        ],
    );
}

#[test]
fn runtime_info() {
    let mut capabilities = Capabilities::none("not in this version");
    capabilities.watch = WatchSupport::Resumable;
    capabilities.lifecycle_start = Support::Yes;
    capabilities.exec_run = Support::Unknown;
    let mut info = RuntimeInfo::new(
        "docker:local".into(),
        RuntimeKind::Docker,
        "20.10.24",
        "unix:///run/docker.sock",
        capabilities,
    );
    info.api_version = Some("1.41".into());
    golden("info", &info);
    golden("kinds", &vec![RuntimeKind::Kubernetes, RuntimeKind::Custom("mine".into())]);
}

#[test]
fn specs_and_filters() {
    let mut spec = InstanceSpec::of_image("busybox");
    spec.mounts = vec![Mount::new(MountSource::Volume("data".into()), "/data").read_only()];
    spec.restart = RestartPolicy::OnFailure { attempts: Some(3) };
    golden("spec", &spec);
    let labels = [LabelMatch::Has("a".into()), LabelMatch::Lacks("b".into()), LabelMatch::is("c", "d")];
    golden("filter", &InstanceFilter::default().with_labels(labels).with_states([InstanceState::Running]));
    golden("log_line", &LogLine::new(LogSource::Stderr, Some(at(0)), "line\n".into()));
}

#[test]
fn the_form_of_an_older_version_is_read() {
    // Without fields that were added later, and with one that was removed.
    let old =
        r#"{"id":"4f0c","name":"web","backend":"docker:local","kind":"container","state":"running","colour":"red"}"#;
    let read: Instance = serde_json::from_str(old).unwrap();
    assert_eq!((read.ports, read.generation), (None, 0));
    let old = r#"{"backend":"b","cursor":{"epoch":"e","seq":1},"observed_at":"2023-11-14T22:13:20Z","kind":{"type":"resync_end"}}"#;
    assert_eq!(
        serde_json::from_str::<RuntimeEvent>(old).unwrap().kind,
        RuntimeEventKind::ResyncEnd(Completeness::Unknown)
    );
    assert_eq!(
        serde_json::from_str::<Change>(r#"{"type":"synced","data":{"gap":null}}"#).unwrap(),
        Change::Synced { gap: None, completeness: Completeness::Unknown }
    );
    // With the names that fields had before.
    let old = r#"{"backend":"b","cursor":{"epoch":"e","seq":1},"observed_at":"2023-11-14T22:13:20Z","mark":"m","kind":{"type":"resync_end"}}"#;
    assert_eq!(serde_json::from_str::<RuntimeEvent>(old).unwrap().token, Some(ResumeToken::from("m")));
    let old = r#"{"rows":{},"places":{"b":[{"epoch":"e","seq":1},"live"]}}"#;
    let table: InstanceTable = serde_json::from_str(old).unwrap();
    assert!(table.position(&"b".into()).is_some());
    assert_eq!(table.completeness(&"b".into()), &Completeness::Unknown);
    assert_eq!(serde_json::from_str::<Capabilities>("{}").unwrap(), Capabilities::default());
    assert_eq!(serde_json::from_str::<InstanceFilter>("{}").unwrap(), InstanceFilter::default());
}

#[test]
fn a_key_is_the_same_for_the_same_fact_alone() {
    let shared = Arc::new(instance());
    let fact = |seq, token: Option<&str>, kind: RuntimeEventKind| {
        let mut event = event(seq, kind);
        event.token = token.map(ResumeToken::from);
        event.key()
    };
    let key = fact(1, Some("m"), RuntimeEventKind::Started(Arc::clone(&shared)));
    assert!(key.is_some());
    assert_eq!(
        key,
        fact(99, Some("m"), RuntimeEventKind::Started(Arc::clone(&shared))),
        "another position, the same fact"
    );
    assert_ne!(key, fact(1, Some("n"), RuntimeEventKind::Started(Arc::clone(&shared))));
    assert_ne!(key, fact(1, Some("m"), RuntimeEventKind::Stopped(Arc::clone(&shared))));
    assert_eq!(None, fact(1, None, RuntimeEventKind::Started(shared)), "an event from an inspection has none");
}

#[test]
fn store_events_and_options() {
    let web = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
    let node = ResourceRef::new("", "Node", None, "n1").unwrap();
    let text = Document::yaml("metadata:\n  labels: {tier: front}\n");
    let added = Resource::new(web.clone(), text.clone(), Revision(7));
    let bytes = Resource::new(node.clone(), Document::new(ResourceFormat::Cbor, vec![0xa1, 0xff]), Revision(8));
    let applied = Arc::new(added.clone());
    golden(
        "store_events",
        &vec![
            StoreEvent::Reset { gap: Gap::Restored, revision: Revision(6) },
            StoreEvent::Bookmark { revision: Revision(6) },
            StoreEvent::Added(Arc::clone(&applied)),
            StoreEvent::Modified(Arc::new(bytes)),
            StoreEvent::Deleted { reference: node, revision: Revision(9) },
        ],
    );
    golden("page", &Page::new(vec![applied], Revision(7), Some("7:next".into())));
    let tier = LabelMatch::is("tier", "front");
    golden("selector", &Selector::only(&web).with_label(tier));
    golden("store_stats", &StoreStats::new(2, 1, Revision(9), Revision(3)));
    golden(
        "store_words",
        &(
            [Precondition::None, Precondition::Absent, Precondition::Is(Revision(7))],
            [ApplyOutcome::Created, ApplyOutcome::Changed, ApplyOutcome::Unchanged],
            [Since::Now, Since::Start, Since::After(Revision(7))],
            Digest::of(b""),
        ),
    );
}

#[cfg(feature = "yaml")]
#[test]
fn a_converted_resource_keeps_the_written_document() {
    let web = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
    let written = Arc::new(Resource::new(web, Document::yaml("a: 1\n"), Revision(7)));
    let shown = written.convert(ResourceFormat::Json).unwrap();
    golden("resource_converted", &*shown);
    let read: Resource = serde_json::from_str(&serde_json::to_string(&shown).unwrap()).unwrap();
    assert_eq!((read.digest(), read.written()), (written.digest(), &written.document));
}
