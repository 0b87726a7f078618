//! Sessions on a service that misbehaves: it breaks off, sends garbage, forgets, or says what it did not see.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, Result, RuntimeBackend,
    manager::{AttachOptions, ExecSession, LogLine, LogSource},
};
use runtide_podman::{Config, PodmanBackend};
use tokio::sync::Notify;

use crate::{
    exec::{LIMIT, argv, size},
    scripted::{PODMAN, Reply, Service},
};

const RUNS: &str =
    r#"{"Id":"c1","State":{"Status":"running","StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{},"HostConfig":{}}"#;
const ENDED: &str = r#"{"Id":"c1","State":{"Status":"exited","ExitCode":137,"StartedAt":"2024-01-01T00:00:00.1Z"}}"#;
const RUNNING: &str = r#"{"ID":"e1","Running":true,"CanRemove":false,"ExitCode":0,"Pid":77}"#;
const DONE: &str = r#"{"ID":"e1","Running":false,"CanRemove":true,"ExitCode":3,"Pid":0}"#;
const RESET: &[u8] = b"Error: read unixpacket @->/proc/self/fd/16/attach: read: connection reset by peer\n";

fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[stream, 0, 0, 0], &length.to_be_bytes()[..], payload].concat()
}

/// A service with one process, whose connection, record and container are as given.
#[derive(Clone)]
struct Script {
    bytes: Vec<u8>,
    stays: bool,
    record: Arc<Mutex<Option<&'static str>>>,
    container: Arc<Mutex<&'static str>>,
    /// The processes of the container.
    pids: Arc<Mutex<&'static str>>,
    silent: Arc<Notify>,
}

impl Script {
    fn new(bytes: impl Into<Vec<u8>>, record: Option<&'static str>) -> Self {
        Self {
            bytes: bytes.into(),
            stays: false,
            record: Arc::new(Mutex::new(record)),
            container: Arc::new(Mutex::new(RUNS)),
            pids: Arc::new(Mutex::new("77")),
            silent: Arc::default(),
        }
    }

    fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    fn start(&self) -> Service {
        let script = self.clone();
        Service::new(PODMAN, move |request| script.reply(request))
    }

    fn reply(&self, request: &str) -> Reply {
        if request == "POST /containers/c1/exec" {
            Reply::Whole(201, r#"{"Id":"e1"}"#.to_owned())
        } else if request == "POST /exec/e1/start" || request.contains("/attach?") {
            Reply::Upgrade(self.bytes.clone(), self.stays)
        } else if request == "GET /exec/e1/json" {
            match *self.record.lock().unwrap() {
                Some(record) => Reply::ok(record),
                None => Reply::Whole(404, r#"{"message":"no such exec session"}"#.to_owned()),
            }
        } else if request.starts_with("GET /containers/c1/top") {
            Reply::ok(format!(r#"{{"Titles":["HPID"],"Processes":[["1"],["{}"]]}}"#, self.pids.lock().unwrap()))
        } else if request == "GET /info" {
            Reply::ok(r#"{"host":{"eventLogger":"file"}}"#)
        } else if request.starts_with("GET /events") && !request.contains("stream=false") {
            Reply::Open(Arc::clone(&self.silent), String::new())
        } else if request.starts_with("GET /events") {
            Reply::ok("")
        } else {
            Reply::ok(*self.container.lock().unwrap())
        }
    }
}

fn id() -> InstanceId {
    "c1".into()
}

async fn session(backend: &PodmanBackend) -> ExecSession {
    backend.exec().unwrap().exec(&id(), argv(&["true"])).await.unwrap()
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
    let service = Script::new(bytes.clone(), Some(DONE)).start();
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines, expected);
    end.unwrap();
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));

    // The service removed the record, minutes later or with a restart of the machine.
    let service = Script::new(bytes.clone(), None).start();
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines, expected, "nothing of it is lost");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(control.wait().await.unwrap(), None, "how it ended was not seen");

    // The container ended under it: then the process is over as well.
    let script = Script::new(bytes.clone(), None);
    let service = script.start();
    let open = session(&service.backend()).await;
    *script.container.lock().unwrap() = ENDED;
    let control = open.control.clone();
    read(open).await.1.unwrap();
    assert_eq!(control.wait().await.unwrap(), None);

    // The connection was cut, and the process goes on.
    let script = Script::new(bytes, Some(RUNNING));
    let service = script.start();
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!((lines.len(), end.unwrap_err().kind()), (2, ErrorKind::Unavailable));
    let early = tokio::time::timeout(Duration::from_millis(300), control.wait()).await;
    assert!(early.is_err(), "a cut connection is no end of the process");
    *script.record.lock().unwrap() = Some(DONE);
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));
}

/// Podman holds the connection until it has written the exit down: one that ends before was cut by something in between.
#[tokio::test]
async fn an_output_that_ends_before_its_process_is_not_whole_though_the_process_ends_soon_after() {
    let script = Script::new(frame(1, b"a"), Some(DONE));
    let inspected = AtomicBool::new(false);
    let service = Service::new(PODMAN, move |request| {
        if request == "GET /exec/e1/json" && !inspected.swap(true, Ordering::SeqCst) {
            return Reply::ok(RUNNING);
        }
        script.reply(request)
    });
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!((lines.len(), end.unwrap_err().kind()), (1, ErrorKind::Unavailable));
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));
}

#[tokio::test]
async fn an_exit_that_the_service_did_not_see_is_unknown_and_the_output_not_whole() {
    const CUT: &str = r#"{"Running":false,"CanRemove":true,"ExitCode":-1}"#;
    let service = Script::new(frame(1, b"a"), Some(CUT)).start();
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    assert_eq!(read(open).await.1.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(control.wait().await.unwrap(), None);
    for record in [
        r#"{"Running":false,"CanRemove":true,"ExitCode":99999999999}"#,
        r#"{"Running":false,"CanRemove":true,"ExitCode":null}"#,
    ] {
        let service = Script::new(Vec::new(), Some(record)).start();
        assert_eq!(session(&service.backend()).await.control.wait().await.unwrap(), None, "{record}");
    }
    let service = Script::new(Vec::new(), Some(r#"{"Running":"no","CanRemove":true,"ExitCode":0}"#)).start();
    let error = session(&service.backend()).await.control.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_record_of_a_process_that_is_gone_is_no_exit_and_holds_up_no_wait() {
    // A service that was restarted does not notice the end of what the one before it started: the code is 0, as before any end.
    for record in [RUNNING, r#"{"Running":false,"CanRemove":false,"ExitCode":0,"Pid":0}"#] {
        let script = Script::new(frame(1, b"a"), Some(record));
        *script.pids.lock().unwrap() = "78";
        let service = script.start();
        let waited = session(&service.backend()).await.control.wait().await;
        assert_eq!(waited.unwrap(), None, "{record}");
    }
}

#[tokio::test]
async fn a_process_whose_end_a_restarted_service_does_not_report_is_looked_for() {
    let script = Script::new(frame(1, b"a"), Some(RUNNING)).staying();
    let (inner, restart, restarted) = (script.clone(), Arc::new(Notify::new()), AtomicBool::new(false));
    let ending = Arc::clone(&restart);
    let service = Service::new(PODMAN, move |request| {
        let is_events = request.starts_with("GET /events") && !request.contains("stream=false");
        if is_events && !restarted.swap(true, Ordering::SeqCst) {
            return Reply::Ending(Arc::clone(&ending), String::new());
        }
        inner.reply(request)
    });
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let waited = tokio::spawn(async move { control.wait().await });
    let subscribed = async |times: usize| {
        while service.asked().iter().filter(|request| request.starts_with("GET /events")).count() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, subscribed(1)).await.unwrap();
    restart.notify_one();
    tokio::time::timeout(LIMIT, subscribed(2)).await.unwrap();
    // The look behind the new subscription finds the process alive.
    let looks = || service.asked().iter().filter(|request| *request == "GET /exec/e1/json").count();
    let before = looks();
    let looked = async {
        while looks() < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, looked)
        .await
        .expect("it looks again, without a message and before the silence of a minute");
    *script.pids.lock().unwrap() = "78";
    assert_eq!(waited.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn an_exit_behind_a_refused_resize_may_be_made_up() {
    const MARKED: &str = r#"{"Running":false,"CanRemove":true,"ExitCode":0}"#;
    let script = Script::new(b"$ ".to_vec(), Some(RUNNING)).staying();
    let inner = script.clone();
    let service = Service::new(PODMAN, move |request| {
        if request.contains("/resize?") {
            *inner.record.lock().unwrap() = Some(MARKED);
            return Reply::Whole(500, r#"{"message":"cannot resize: it has stopped"}"#.to_owned());
        }
        inner.reply(request)
    });
    let backend = service.backend();
    let open = backend.exec().unwrap().exec(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
    assert_eq!(open.control.resize(size(1, 1)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(open.control.wait().await.unwrap(), None);
    // An exit that the service wrote down before is not touched.
    let script = Script::new(b"$ ".to_vec(), Some(MARKED));
    let service = script.start();
    let backend = service.backend();
    let open = backend.exec().unwrap().exec(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
    assert_eq!(open.control.resize(size(1, 1)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(open.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
    assert!(!service.asked().iter().any(|request| request.contains("/resize")), "{:?}", service.asked());
}

#[tokio::test]
async fn the_services_own_words_at_the_end_are_an_error_and_elsewhere_output() {
    let service = Script::new([frame(1, b"a"), frame(2, RESET)].concat(), Some(DONE)).start();
    let open = session(&service.backend()).await;
    let control = open.control.clone();
    let (lines, end) = read(open).await;
    assert_eq!(lines, [(LogSource::Stdout, b"a".to_vec())]);
    let end = end.unwrap_err();
    assert!(end.kind() == ErrorKind::Unexpected && end.to_string().contains("connection reset"), "{end}");
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)), "the exit is known");

    let bytes = [frame(2, RESET), frame(2, RESET), frame(1, b"a"), frame(2, b"b")].concat();
    let (lines, end) = read(session(&Script::new(bytes, Some(DONE)).start().backend()).await).await;
    end.unwrap();
    let all: Vec<_> = lines.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(all, [RESET, RESET, b"a", b"b"], "a program wrote them");

    let missing = r#"{"Running":false,"CanRemove":true,"ExitCode":127}"#;
    let reason = b"Error: runc: exec failed: not found\n";
    let service = Script::new([frame(2, reason), frame(2, RESET)].concat(), Some(missing)).start();
    let (lines, end) = read(session(&service.backend()).await).await;
    end.unwrap();
    assert_eq!(lines, [(LogSource::Stderr, reason.to_vec())], "the reason is all of the output");
}

#[tokio::test]
async fn garbage_is_an_error_and_never_output() {
    for (bytes, kind, lines) in [
        (b"hello, world, without frames".to_vec(), ErrorKind::Protocol, 0),
        ([frame(1, b"a"), vec![9; 8]].concat(), ErrorKind::Protocol, 1),
        (frame(1, b"abcdef")[..11].to_vec(), ErrorKind::Unavailable, 1),
        ([&[1, 0, 0, 0, 255, 255, 255, 255][..], &[b'x'; 100]].concat(), ErrorKind::Unavailable, 1),
    ] {
        let service = Script::new(bytes.clone(), Some(DONE)).start();
        let (read, end) = read(session(&service.backend()).await).await;
        assert_eq!((read.len(), end.unwrap_err().kind()), (lines, kind), "{:?}", bytes.escape_ascii().to_string());
    }
    for bytes in [&b"\x01"[..], b"\x01\0\0\0\0\0\0\x05hello", b"login: "] {
        let service = Script::new(bytes, Some(DONE)).start();
        let backend = service.backend();
        let open = backend.exec().unwrap().exec(&id(), argv(&["sh"]).with_tty(size(80, 24))).await.unwrap();
        let (lines, end) = read(open).await;
        end.unwrap();
        assert_eq!(lines, [(LogSource::Console, bytes.to_vec())], "a terminal's bytes are never taken for frames");
    }
}

#[tokio::test]
async fn options_are_refused_before_anything_is_sent() {
    let service = Script::new(Vec::new(), Some(DONE)).start();
    let backend = service.backend();
    let exec = backend.exec().unwrap();
    for options in [argv(&[]), argv(&["a\0b"]), argv(&["a"]).with_user(String::new())] {
        assert_eq!(exec.exec(&id(), options).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let hostile = exec.exec(&"../c1".into(), argv(&["true"])).await.unwrap_err();
    assert_eq!(hostile.kind(), ErrorKind::InvalidInput);
    assert_eq!(service.asked(), Vec::<String>::new());
    for answer in [r#"{"Id":"../containers/c1"}"#, r#"{"Id":""}"#, "{}", "["] {
        let service = Service::new(PODMAN, move |request| match request {
            "POST /containers/c1/exec" => Reply::Whole(201, answer.to_owned()),
            _ => Reply::ok(RUNS),
        });
        let error = service.backend().exec().unwrap().exec(&id(), argv(&["true"])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{answer}");
        assert!(!service.asked().iter().any(|request| request.contains("start")), "{:?}", service.asked());
    }
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_by_the_process_that_is_over() {
    let script = Script::new(frame(1, b"a"), Some(RUNNING)).staying();
    let service = script.start();
    let config: Config = service.config().with_max_silence(Duration::from_millis(100));
    let backend = PodmanBackend::new(config).unwrap();
    let mut open = session(&backend).await;
    open.output.next().await.unwrap().unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(500), open.output.next()).await;
    assert!(quiet.is_err(), "a process that runs may be silent");
    *script.record.lock().unwrap() = Some(DONE);
    let exit = tokio::time::timeout(LIMIT, open.control.wait()).await.expect("no event tells it").unwrap();
    assert_eq!(exit, Some(ExitStatus::code(3)));
    let end = tokio::time::timeout(LIMIT, open.output.next()).await.expect("it does not hang").unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Unavailable, "{end}");
}

#[tokio::test]
async fn a_record_is_removed_where_the_version_can() {
    const NEWER: &str = "Libpod-Api-Version: 5.4.2\r\nServer: Libpod/5.4.2 (linux)\r\n";
    for (headers, removes) in [(PODMAN, false), (NEWER, true)] {
        let script = Script::new(frame(1, b"a"), Some(DONE));
        let service = Service::new(headers, move |request| script.reply(request));
        read(session(&service.backend()).await).await.1.unwrap();
        let asked = service.asked();
        assert_eq!(asked.iter().any(|request| request == "POST /exec/e1/remove"), removes, "{asked:?}");
    }
}

#[tokio::test]
async fn an_attach_says_which_streams_it_takes_and_takes_no_keys() {
    let service = Script::new(Vec::new(), None).staying().start();
    let backend = service.backend();
    let _open = backend.exec().unwrap().attach(&id(), AttachOptions::default()).await.unwrap();
    let asked = service.asked();
    let attach = asked.iter().find(|request| request.contains("/attach?")).unwrap();
    let expected = "POST /containers/c1/attach?logs=false&stream=true&stdin=false&stdout=true&stderr=true&detachKeys=";
    assert_eq!(attach, expected, "an input that is not named is attached, and ended with the session");
}

#[tokio::test]
async fn an_attach_to_a_container_that_ends_meanwhile_does_not_hang() {
    let script = Script::new(Vec::new(), None).staying();
    let inner = script.clone();
    let service = Service::new(PODMAN, move |request| {
        if request.contains("/attach?") {
            *inner.container.lock().unwrap() = ENDED;
        }
        inner.reply(request)
    });
    let error = service.backend().exec().unwrap().attach(&id(), AttachOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// The exit of a run that a session starts, where the container shows this afterwards and the log has these messages.
async fn started(now: &'static str, logged: &'static str) -> Option<ExitStatus> {
    let is_started = Arc::new(AtomicBool::new(false));
    let script = Script::new(frame(1, b"a"), None);
    let service = Service::new(PODMAN, move |request| match request {
        "POST /containers/c1/start" => {
            is_started.store(true, Ordering::SeqCst);
            Reply::Whole(204, String::new())
        }
        "GET /containers/c1/json" if is_started.load(Ordering::SeqCst) => match now {
            "" => Reply::Whole(404, r#"{"message":"no such container"}"#.to_owned()),
            now => Reply::ok(now),
        },
        "GET /containers/c1/json" => Reply::ok(ENDED),
        _ if request.contains("stream=false") && is_started.load(Ordering::SeqCst) => {
            Reply::ok([BEFORE, logged].concat())
        }
        _ if request.contains("stream=false") => Reply::ok(BEFORE),
        _ => script.reply(request),
    });
    let backend = service.backend();
    let open = backend.exec().unwrap().start_attached(&id(), AttachOptions::default()).await.unwrap();
    tokio::time::timeout(LIMIT, open.control.wait()).await.expect("it is over").unwrap()
}

const BEFORE: &str = r#"{"Type":"container","Action":"died","Actor":{"ID":"c1","Attributes":{"containerExitCode":"137"}},"timeNano":1704067201000000000}"#;
const FIRST: &str = r#"{"Type":"container","Action":"died","Actor":{"ID":"c1","Attributes":{"containerExitCode":"5"}},"timeNano":1704067203000000000}"#;
const SECOND: &str = r#"{"Type":"container","Action":"died","Actor":{"ID":"c1","Attributes":{"containerExitCode":"5"}},"timeNano":1704067203000000000}{"Type":"container","Action":"died","Actor":{"ID":"c1","Attributes":{"containerExitCode":"0"}},"timeNano":1704067204000000000}"#;

#[tokio::test]
async fn the_end_of_a_run_that_a_session_starts_is_the_first_one_behind_the_one_before() {
    const NEXT: &str = r#"{"Id":"c1","State":{"Status":"running","StartedAt":"2024-01-01T00:00:09Z"},"HostConfig":{"RestartPolicy":{"Name":"always"}}}"#;
    assert_eq!(started("", FIRST).await, Some(ExitStatus::code(5)), "it removed itself");
    assert_eq!(started(NEXT, FIRST).await, Some(ExitStatus::code(5)), "the next run is there");
    assert_eq!(started(NEXT, SECOND).await, Some(ExitStatus::code(5)), "and is over");
    assert_eq!(started("", "").await, None, "nothing has it");
}

#[tokio::test]
async fn a_run_before_that_the_journal_has_late_is_not_the_one_that_a_session_starts() {
    let is_started = Arc::new(AtomicBool::new(false));
    let script = Script::new(frame(1, b"a"), None);
    let (silent, said) = (Arc::clone(&script.silent), Arc::new(Notify::new()));
    said.notify_one();
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"journald"}}"#),
        "POST /containers/c1/start" => {
            is_started.store(true, Ordering::SeqCst);
            Reply::Whole(204, String::new())
        }
        "GET /containers/c1/json" if is_started.load(Ordering::SeqCst) => {
            Reply::Whole(404, r#"{"message":"no such container"}"#.to_owned())
        }
        "GET /containers/c1/json" => Reply::ok(ENDED),
        _ if request.contains("stream=false") && is_started.load(Ordering::SeqCst) => {
            Reply::ok([BEFORE, FIRST].concat())
        }
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") && !is_started.load(Ordering::SeqCst) => {
            Reply::Open(Arc::clone(&said), BEFORE.to_owned())
        }
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&silent), String::new()),
        _ => script.reply(request),
    });
    let backend = service.backend();
    let open = backend.exec().unwrap().start_attached(&id(), AttachOptions::default()).await.unwrap();
    let exit = tokio::time::timeout(LIMIT, open.control.wait()).await.expect("it is over").unwrap();
    assert_eq!(exit, Some(ExitStatus::code(5)), "137 is that of the run before");
}

#[tokio::test]
async fn the_record_of_a_process_that_does_not_begin_is_removed_where_there_is_a_request_for_it() {
    const LATER: &str = "Libpod-Api-Version: 4.8.0\r\nServer: Libpod/4.8.0 (linux)\r\n";
    const COULD_NOT: &str = r#"{"ID":"e1","Running":false,"CanRemove":true,"ExitCode":126,"Pid":0}"#;
    const CREATED: &str = r#"{"ID":"e1","Running":false,"CanRemove":false,"ExitCode":0,"Pid":0}"#;
    for (version, removes) in [(LATER, true), (PODMAN, false)] {
        for (record, is_session) in [(COULD_NOT, true), (CREATED, false)] {
            let script = Script::new([], Some(record));
            let service = Service::new(version, move |request| match request {
                "POST /exec/e1/start" => Reply::Whole(500, r#"{"message":"it cannot begin"}"#.to_owned()),
                "POST /exec/e1/remove" => Reply::ok(""),
                other => script.reply(other),
            });
            let backend = service.backend();
            let begun = backend.exec().unwrap().exec(&id(), argv(&["true"])).await;
            assert_eq!(begun.is_ok(), is_session, "{record}");
            let removed = service.asked().iter().any(|request| request == "POST /exec/e1/remove");
            assert_eq!(removed, removes, "{record}");
            let detached = backend.exec().unwrap().exec_detached(&id(), argv(&["true"])).await;
            assert_eq!(detached.err().unwrap().kind(), ErrorKind::Conflict, "{record}");
            let removed = service.asked().iter().filter(|request| *request == "POST /exec/e1/remove").count();
            assert_eq!(removed, if removes { 2 } else { 0 }, "{record}");
        }
    }
}

#[tokio::test]
async fn an_exec_that_is_dropped_before_it_begins_leaves_no_record_where_there_is_a_request_for_it() {
    const LATER: &str = "Libpod-Api-Version: 4.8.0\r\nServer: Libpod/4.8.0 (linux)\r\n";
    let script = Script::new([], Some(RUNNING));
    let service = Service::new(LATER, move |request| match request {
        "POST /exec/e1/start" => Reply::Silent,
        "POST /exec/e1/remove" => Reply::Whole(409, r#"{"message":"it runs"}"#.to_owned()),
        other => script.reply(other),
    });
    let backend = service.backend();
    tokio::select! {
        _ = session(&backend) => panic!("it has not begun"),
        () = service.sees("POST /exec/e1/start") => {}
    }
    service.sees("POST /exec/e1/remove").await;
}
