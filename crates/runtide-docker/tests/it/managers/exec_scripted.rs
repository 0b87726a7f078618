//! Sessions on a daemon that misbehaves: it breaks off, sends garbage, forgets, or does not upgrade.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, Result, RuntimeBackend,
    manager::{AttachOptions, ExecManager, ExecSession, LogLine, LogSource},
};
use runtide_docker::{Config, DockerBackend, Endpoint};

use super::exec::{LIMIT, argv, size};
use crate::scripted_daemon::{Fake, Reply};

const RUNS: &str = r#"{"Id":"c1","State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{},"HostConfig":{}}"#;
const ENDED: &str =
    r#"{"Id":"c1","State":{"Status":"exited","Running":false,"ExitCode":137,"StartedAt":"2024-01-01T00:00:00.1Z"}}"#;
const RUNNING: &str = r#"{"ID":"e1","Running":true,"ExitCode":null}"#;
const DONE: &str = r#"{"ID":"e1","Running":false,"ExitCode":3}"#;

fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[stream, 0, 0, 0], &length.to_be_bytes()[..], payload].concat()
}

/// A daemon with one process, whose connection, record and container are as given.
#[derive(Clone)]
struct Script {
    bytes: Vec<u8>,
    stays: bool,
    record: Arc<Mutex<Option<&'static str>>>,
    container: Arc<Mutex<&'static str>>,
}

impl Script {
    fn new(bytes: impl Into<Vec<u8>>, record: Option<&'static str>) -> Self {
        let (record, container) = (Arc::new(Mutex::new(record)), Arc::new(Mutex::new(RUNS)));
        Self { bytes: bytes.into(), stays: false, record, container }
    }

    fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    fn start(&self) -> Fake {
        let script = self.clone();
        Fake::new(move |request| script.reply(request))
    }

    fn reply(&self, request: &str) -> Reply {
        if request.starts_with("POST /containers/c1/exec") {
            Reply::Json(201, r#"{"Id":"e1"}"#.to_owned())
        } else if request.starts_with("POST /exec/e1/start") || request.contains("/attach?") {
            Reply::Upgrade { bytes: self.bytes.clone(), stays: self.stays }
        } else if request.starts_with("GET /exec/e1/json") {
            match *self.record.lock().unwrap() {
                Some(record) => Reply::ok(record),
                None => Reply::message(404, "No such exec instance: e1"),
            }
        } else if request.starts_with("GET /events") || request.contains("/wait?") {
            Reply::Open(Vec::new())
        } else if request.contains("/resize?") {
            Reply::empty()
        } else {
            Reply::ok(*self.container.lock().unwrap())
        }
    }
}

fn id() -> InstanceId {
    "c1".into()
}

fn exec(fake: &Fake) -> &dyn ExecManager {
    fake.backend.exec().unwrap()
}

async fn session(fake: &Fake) -> ExecSession {
    exec(fake).exec(&id(), argv(&["true"])).await.unwrap()
}

/// The lines up to the end, and the error that it ended with.
async fn read(mut session: ExecSession) -> (Vec<(LogSource, Vec<u8>)>, Result<()>) {
    let mut lines = Vec::new();
    loop {
        match tokio::time::timeout(LIMIT, session.output.next()).await.expect("an end") {
            Some(Ok(LogLine { source, bytes, .. })) => lines.push((source, bytes.to_vec())),
            Some(Err(error)) => {
                assert!(session.output.next().await.is_none(), "an error is the last item");
                return (lines, Err(error));
            }
            None => return (lines, Ok(())),
        }
    }
}

#[tokio::test]
async fn the_output_is_whole_only_if_the_process_is_over() {
    let bytes = [frame(1, b"out"), frame(2, b"err")].concat();
    let expected = [(LogSource::Stdout, b"out".to_vec()), (LogSource::Stderr, b"err".to_vec())];
    let fake = Script::new(bytes.clone(), Some(DONE)).start();
    let open = session(&fake).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines, expected);
    end.unwrap();
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));

    // A daemon that was restarted has closed the connection in the same way, and knows no such process.
    let fake = Script::new(bytes.clone(), None).start();
    let open = session(&fake).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines, expected, "nothing of it is lost");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(control.wait().await.unwrap(), None, "how it ended was not seen");

    // The container ended under it: then the process is over as well.
    let script = Script::new(bytes.clone(), None);
    let fake = script.start();
    let open = session(&fake).await;
    *script.container.lock().unwrap() = ENDED;
    let control = open.control.clone();
    read(open).await.1.unwrap();
    assert_eq!(control.wait().await.unwrap(), None);

    // The connection was cut, and the process goes on.
    let script = Script::new(bytes, Some(RUNNING));
    let fake = script.start();
    let open = session(&fake).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!((lines.len(), end.unwrap_err().kind()), (2, ErrorKind::Unavailable));
    let early = tokio::time::timeout(Duration::from_millis(300), control.wait()).await;
    assert!(early.is_err(), "a cut connection is no end of the process");
    *script.record.lock().unwrap() = Some(DONE);
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));
}

#[tokio::test]
async fn garbage_is_an_error_and_never_output() {
    for (bytes, kind, lines) in [
        (b"hello, world, without frames".to_vec(), ErrorKind::Protocol, 0),
        ([frame(1, b"a"), vec![9; 8]].concat(), ErrorKind::Protocol, 1),
        (frame(0, b"input"), ErrorKind::Protocol, 0),
        ([frame(1, b"a"), frame(3, b"the daemon's own words")].concat(), ErrorKind::Unexpected, 1),
        (frame(1, b"abcdef")[..11].to_vec(), ErrorKind::Unavailable, 1),
        (frame(1, b"abcdef")[..5].to_vec(), ErrorKind::Unavailable, 0),
        // A length of 4 GiB allocates nothing.
        ([&[1, 0, 0, 0, 255, 255, 255, 255][..], &[b'x'; 100]].concat(), ErrorKind::Unavailable, 1),
    ] {
        let fake = Script::new(bytes.clone(), Some(DONE)).start();
        let (read, end) = read(session(&fake).await).await;
        assert_eq!((read.len(), end.unwrap_err().kind()), (lines, kind), "{:?}", bytes.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn a_terminals_bytes_are_never_taken_for_frames() {
    for bytes in [&b"\x01"[..], b"\x01\0\0\0\0\0\0\x05hello", b"\x02x", b"\0", b"login: "] {
        let fake = Script::new(bytes, Some(DONE)).start();
        let open = exec(&fake).exec(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
        let (lines, end) = read(open).await;
        end.unwrap();
        assert_eq!(lines, [(LogSource::Console, bytes.to_vec())]);
        assert!(fake.seen().contains(&"POST /exec/e1/resize?h=24&w=80".to_owned()), "{:?}", fake.seen());
    }
}

#[tokio::test]
async fn a_server_that_does_not_upgrade_and_one_that_names_another_process_are_refused() {
    for (reply, kind) in [
        (|| Reply::ok("raw output"), ErrorKind::Protocol),
        (|| Reply::empty(), ErrorKind::Protocol),
        (|| Reply::message(409, "Container c1 is not running"), ErrorKind::Conflict),
        (|| Reply::Hangup, ErrorKind::Unavailable),
    ] as [(fn() -> Reply, ErrorKind); 4]
    {
        let script = Script::new(Vec::new(), Some(DONE));
        let fake = Fake::new(move |request| if request.contains("/start") { reply() } else { script.reply(request) });
        assert_eq!(exec(&fake).exec(&id(), argv(&["true"])).await.unwrap_err().kind(), kind);
    }
    for answer in [r#"{"Id":"../containers/c1"}"#, r#"{"Id":""}"#, "{}", "[", r#"{"Id":7}"#] {
        let fake =
            Fake::new(
                move |request| {
                    if request.ends_with("/exec") { Reply::Json(201, answer.to_owned()) } else { Reply::ok(RUNS) }
                },
            );
        let error = exec(&fake).exec(&id(), argv(&["true"])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{answer}");
        assert!(!fake.seen().iter().any(|request| request.contains("start")), "{:?}", fake.seen());
    }
}

#[tokio::test]
async fn options_are_refused_before_anything_is_sent() {
    let fake = Script::new(Vec::new(), Some(DONE)).start();
    for options in [argv(&[]), argv(&["a\0b"]), argv(&["a"]).with_user(String::new())] {
        assert_eq!(exec(&fake).exec(&id(), options).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let hostile = exec(&fake).exec(&"../c1".into(), argv(&["true"])).await.unwrap_err();
    assert_eq!(hostile.kind(), ErrorKind::InvalidInput);
    assert_eq!(fake.seen(), Vec::<String>::new());
}

/// With a client that calls a link suspicious after this silence.
fn suspicious(fake: &Fake) -> DockerBackend {
    let config =
        Config::default().with_endpoint(Endpoint::unix(fake.socket())).with_max_silence(Duration::from_millis(100));
    DockerBackend::new(config).unwrap()
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_by_the_process_that_is_over() {
    let script = Script::new(frame(1, b"a"), Some(RUNNING)).staying();
    let fake = script.start();
    let backend = suspicious(&fake);
    let mut open = backend.exec().unwrap().exec(&id(), argv(&["true"])).await.unwrap();
    open.output.next().await.unwrap().unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(500), open.output.next()).await;
    assert!(quiet.is_err(), "a process that runs may be silent");
    *script.record.lock().unwrap() = Some(DONE);
    let begun = Instant::now();
    let exit = tokio::time::timeout(LIMIT, open.control.wait()).await.expect("no event tells it").unwrap();
    assert_eq!(exit, Some(ExitStatus::code(3)));
    let end = tokio::time::timeout(LIMIT, open.output.next()).await.expect("it does not hang").unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Unavailable, "{end}");
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_daemon_that_is_gone_ends_the_output_at_once_and_a_wait_goes_over_its_return() {
    let script = Script::new(frame(1, b"a"), Some(RUNNING)).staying();
    let is_down = Arc::new(AtomicBool::new(false));
    let (down, inner) = (Arc::clone(&is_down), script.clone());
    let fake = Fake::new(move |request| if down.load(Ordering::SeqCst) { Reply::Hangup } else { inner.reply(request) });
    let open = session(&fake).await;
    let control = open.control.clone();
    let waited = tokio::spawn(async move { control.wait().await });
    fake.sees("GET /events").await;
    is_down.store(true, Ordering::SeqCst);
    *script.record.lock().unwrap() = None;
    fake.sever();
    let (lines, end) = read(open).await;
    assert_eq!((lines.len(), end.unwrap_err().kind()), (1, ErrorKind::Unavailable));
    assert!(!waited.is_finished(), "the daemon may come back, and know it");
    is_down.store(false, Ordering::SeqCst);
    let exit = tokio::time::timeout(LIMIT, waited).await.expect("it ends").unwrap().unwrap();
    assert_eq!(exit, None, "the exit was not seen");
}

#[tokio::test]
async fn an_exit_that_cannot_be_one_is_unknown() {
    for record in [r#"{"Running":false,"ExitCode":-1}"#, r#"{"Running":false,"ExitCode":99999999999}"#] {
        let fake = Script::new(Vec::new(), Some(record)).start();
        assert_eq!(session(&fake).await.control.wait().await.unwrap(), None, "{record}");
    }
    let fake = Script::new(Vec::new(), Some(r#"{"Running":"no","ExitCode":0}"#)).start();
    assert_eq!(session(&fake).await.control.wait().await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn an_attach_to_a_container_that_ends_meanwhile_does_not_hang() {
    let script = Script::new(Vec::new(), None).staying();
    let inner = script.clone();
    let fake = Fake::new(move |request| {
        if request.contains("/attach?") {
            *inner.container.lock().unwrap() = ENDED;
        }
        inner.reply(request)
    });
    let error = exec(&fake).attach(&id(), AttachOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// A container that is started with a session. Behind the start its inspection and the wait for its end answer so.
fn started(
    inspected: impl Fn() -> Reply + Send + Sync + 'static,
    waited: impl Fn() -> Reply + Send + Sync + 'static,
) -> Fake {
    let is_started = AtomicBool::new(false);
    let script = Script::new(frame(1, b"a"), None);
    Fake::new(move |request| {
        if request.ends_with("/start") {
            is_started.store(true, Ordering::SeqCst);
            return Reply::empty();
        }
        match request {
            "GET /containers/c1/json" if is_started.load(Ordering::SeqCst) => inspected(),
            "GET /containers/c1/json" => Reply::ok(ENDED),
            _ if request.contains("/wait?") => waited(),
            _ => script.reply(request),
        }
    })
}

#[tokio::test]
async fn a_failed_inspection_of_a_run_that_was_started_is_no_end_of_it() {
    let fake = started(|| Reply::message(500, "the disk is busy"), || Reply::Open(Vec::new()));
    let open = exec(&fake).start_attached(&id(), AttachOptions::default()).await.unwrap();
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines.len(), 1);
    end.unwrap_err();
    let early = tokio::time::timeout(Duration::from_secs(1), control.wait()).await;
    assert!(early.is_err(), "nothing says that it ended: {early:?}");
}

#[tokio::test]
async fn the_next_run_under_a_restart_policy_is_not_taken_for_the_one_that_was_started() {
    const NEXT: &str = r#"{"Id":"c1","State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:09Z"}}"#;
    const COUNTED: &str = r#"{"Id":"c1","RestartCount":1,"State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:09Z"}}"#;
    // The next run has set the code to 0 by the time that the daemon reads it.
    let (five, zero) = (r#"{"StatusCode":5}"#, r#"{"StatusCode":0}"#);
    let cases =
        [(NEXT, five, Some(ExitStatus::code(5))), (COUNTED, five, Some(ExitStatus::code(5))), (COUNTED, zero, None)];
    for (inspected, code, expected) in cases {
        let fake = started(move || Reply::ok(inspected), move || Reply::ok(code));
        let open = exec(&fake).start_attached(&id(), AttachOptions::default()).await.unwrap();
        let control = open.control.clone();
        read(open).await.1.unwrap();
        let exit = tokio::time::timeout(LIMIT, control.wait()).await.expect("it is over").unwrap();
        assert_eq!(exit, expected);
    }
}

#[tokio::test]
async fn a_process_that_runs_is_returned_whatever_becomes_of_its_terminals_size() {
    let script = Script::new(b"$ ".to_vec(), Some(RUNNING)).staying();
    for reply in [(|| Reply::message(500, "no")) as fn() -> Reply, || Reply::Stall] {
        let inner = script.clone();
        let fake = Fake::new(move |request| match request {
            _ if request.contains("/resize?") => reply(),
            "POST /exec/e1/start" if inner.bytes.is_empty() => Reply::empty(),
            _ => inner.reply(request),
        })
        .with_deadline(Duration::from_secs(15));
        exec(&fake).exec(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
        let detached = script.clone();
        let fake = Fake::new(move |request| match request {
            _ if request.contains("/resize?") => reply(),
            "POST /exec/e1/start" => Reply::empty(),
            _ => detached.reply(request),
        })
        .with_deadline(Duration::from_secs(15));
        exec(&fake).exec_detached(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
    }
}

#[tokio::test]
async fn a_terminals_main_process_is_attached_to_with_other_keys_to_detach() {
    const TERMINAL: &str = r#"{"Id":"c1","State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{"Tty":true,"OpenStdin":true},"HostConfig":{}}"#;
    let script = Script::new(b"\x01$ ".to_vec(), None).staying();
    *script.container.lock().unwrap() = TERMINAL;
    let fake = script.start();
    let mut open = exec(&fake).attach(&id(), AttachOptions::default().with_stdin()).await.unwrap();
    let line = open.output.next().await.unwrap().unwrap();
    assert_eq!((line.source, &line.bytes[..]), (LogSource::Console, &b"\x01$ "[..]));
    let seen = fake.seen();
    let attach = seen.iter().find(|request| request.contains("/attach?")).unwrap();
    assert!(attach.contains("stdin=1") && attach.contains("detachKeys=ctrl-%5E"), "{attach}");
}
