//! The examples, run as a user runs them.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use runtide_conformance::report;
use runtide_core::{Instance, RuntimeEvent, RuntimeEventKind};

const EXAMPLES: [&str; 11] =
    ["changes", "watch", "ps", "logs", "exec", "run", "sidecar", "journal", "store", "custom_backend", "wal"];

/// A socket without a listener.
const NOWHERE: &str = "unix:///nonexistent/docker.sock";

/// The example's program, which cargo builds into a folder next to that of the tests. `DOCKER_HOST` names a daemon that is down.
pub(crate) fn example(name: &str) -> Command {
    let mut folder: PathBuf = env::current_exe().unwrap();
    folder.pop();
    folder.set_file_name("examples");
    let binary = folder.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is not there: run `cargo xtask test examples`", binary.display());
    let mut command = Command::new(binary);
    command.env("DOCKER_HOST", NOWHERE);
    for variable in [
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_API_VERSION",
        "CONTAINER_HOST",
        "CONTAINER_CONNECTION",
        "CLICOLOR_FORCE",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The one line on stderr.
pub(crate) fn refused(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {complaint}");
    assert_eq!(said, "", "{name} {args:?}");
    assert_eq!(complaint.lines().count(), 1, "{name} {args:?}: {complaint}");
    complaint
}

fn events(name: &str, args: &[&str]) -> Vec<RuntimeEvent> {
    let output = run(name, args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Events up to the first after which each of these kinds was seen; then it is killed.
fn events_until(name: &str, args: &[&str], mut kinds: Vec<&str>) -> Vec<RuntimeEvent> {
    let mut running = Running(example(name).args(args).args(["--for", "120s", "--json"]).spawn().unwrap());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut events: Vec<RuntimeEvent> = Vec::new();
    for line in lines.map(Result::unwrap) {
        let event: RuntimeEvent = serde_json::from_str(&line).expect(&line);
        kinds.retain(|kind| *kind != event.kind.name());
        events.push(event);
        if kinds.is_empty() {
            return events;
        }
    }
    panic!("no {kinds:?} among {events:?}");
}

#[test]
fn each_line_of_json_is_an_event_that_reads_back() {
    let kinds = vec!["present", "resync_end", "started", "updated", "stopped", "removed"];
    let events = events_until("watch", &["--backend", "memory"], kinds);
    assert!(matches!(events[0].kind, RuntimeEventKind::ResyncBegin { .. }), "{:?}", events[0]);
    let begin = events[0].observed_at;
    let first = events.iter().find(|event| matches!(event.kind.name(), "started" | "updated" | "stopped")).unwrap();
    assert!(first.observed_at.duration_since(begin).unwrap() < Duration::from_secs(50), "something happens at once");
}

#[test]
fn a_backend_of_ones_own_is_watched_as_any_other() {
    events_until("custom_backend", &[], vec!["present", "started", "stopped"]);
}

#[test]
fn a_backend_takes_less_than_100_lines() {
    let lines = include_str!("../../custom_backend/folder.rs").lines().map(str::trim);
    let count = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    assert!(count < 100, "{count}");
}

#[test]
fn a_filter_lets_only_its_own_through() {
    let filter = ["--backend", "memory", "--for", "1s", "--json", "--filter", "com.docker.compose.service=web"];
    for event in events("watch", &filter) {
        assert!(event.instance().is_none_or(|instance| instance.name == "shop-web-1"), "{event:?}");
    }
}

#[test]
fn it_ends_when_its_time_is_over() {
    for (name, args) in
        [("changes", &["--backend", "memory"][..]), ("watch", &["--backend", "memory"]), ("custom_backend", &[])]
    {
        let begun = Instant::now();
        assert!(run(name, &[args, &["--for", "1s"]].concat()).status.success());
        let took = begun.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(60)).contains(&took), "{name}: {took:?}");
    }
}

/// The program on a machine where no runtime is named. `None`: one may answer here, at a default socket.
fn unnamed(name: &str) -> Option<Command> {
    if ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"]
        .iter()
        .any(|socket| Path::new(socket).exists())
    {
        report::skip("examples", "docker", "a daemon's socket is here, so that a runtime is found without a name");
        return None;
    }
    let mut command = example(name);
    command.env_remove("DOCKER_HOST").env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
    Some(command)
}

#[test]
fn where_no_runtime_is_named_and_none_answers_a_script_runs_and_says_so() {
    for name in ["watch", "changes"] {
        let Some(mut command) = unnamed(name) else { return };
        let output = command.args(["--for", "5s"]).output().unwrap();
        let (said, notes) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && notes.contains("in memory"), "{notes}");
        assert!(said.contains("shop-web-1"), "{said}");
        assert!(!said.contains('\x1b'), "no colours outside a terminal: {said:?}");
    }
}

#[test]
fn what_is_present_is_never_invented() {
    for (name, args) in [("ps", &[][..]), ("ps", &["--json"]), ("logs", &["shop-web-1"])] {
        let Some(mut command) = unnamed(name) else { return };
        let output = command.args(args).output().unwrap();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), said.as_str()), (Some(2), ""), "{name}: {complaint}");
        assert!(complaint.contains("no runtime answers") && complaint.contains("--backend memory"), "{complaint}");
    }
}

#[test]
fn a_runtime_that_was_named_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("config.json"), r#"{"currentContext":"elsewhere"}"#).unwrap();
    let named = [
        ("DOCKER_HOST", NOWHERE, NOWHERE),
        ("DOCKER_HOST", "tcp://127.0.0.1:1", "127.0.0.1:1"),
        ("DOCKER_HOST", "nonsense", "DOCKER_HOST"),
        ("DOCKER_CONTEXT", "elsewhere", "elsewhere"),
        ("DOCKER_CONFIG", config.to_str().unwrap(), "elsewhere"),
    ];
    for (name, args) in [
        ("ps", &[][..]),
        ("logs", &["shop-web-1"]),
        ("watch", &["--for", "60s"]),
        ("changes", &["--for", "60s"]),
        ("journal", &["--for", "60s", "--dir", journal.to_str().unwrap()]),
    ] {
        for (variable, value, names) in named {
            let mut command = example(name);
            command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONFIG").env("HOME", "/nonexistent");
            let output = command.env(variable, value).args(args).output().unwrap();
            let (said, complaint) = (text(&output.stdout), text(&output.stderr));
            assert_eq!((output.status.code(), said.as_str()), (Some(2), ""), "{name} {variable}={value}: {complaint}");
            assert!(
                complaint.contains(names) && complaint.lines().count() == 1,
                "{name} {variable}={value}: {complaint}"
            );
        }
    }
    assert!(!journal.exists(), "nothing was journaled");
}

#[test]
fn a_list_is_a_table_or_an_array() {
    let said = text(&run("ps", &["--backend", "memory"]).stdout);
    assert!(said.starts_with("NAME") && said.contains("shop-web-1"), "{said}");
    let said = text(&run("ps", &["--backend", "memory", "--all", "--json"]).stdout);
    let there: Vec<Instance> = serde_json::from_str(&said).expect(&said);
    assert!(there.iter().any(|instance| instance.name == "shop-web-1"), "{said}");
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    for name in EXAMPLES {
        assert!(refused(name, &["--no-such-option"]).contains("--no-such-option"));
    }
    assert!(refused("watch", &["--for", "10"]).contains("500ms"), "says what is expected");
    assert!(refused("watch", &["--filter", "=x"]).contains("KEY=VALUE"));
    assert!(refused("watch", &["--host", "gopher://nowhere"]).contains("unix:///"));
}

#[test]
fn an_unknown_runtime_is_answered_with_the_accepted_names() {
    for name in ["watch", "ps"] {
        let line = refused(name, &["--backend", "dokcer"]);
        assert!(line.contains("auto, memory, docker, podman, systemd"), "{line}");
        assert!(["incus", "kubernetes"].iter().all(|absent| !line.contains(absent)), "what this build has: {line}");
        let line = refused(name, &["--backend", "incus"]);
        assert!(line.contains("no backend for incus; it has memory, docker, podman, systemd"), "{line}");
    }
}

#[test]
fn a_daemon_that_is_asked_for_by_name_must_answer() {
    for name in ["changes", "watch", "ps"] {
        for args in [&["--backend", "docker"][..], &["--host", NOWHERE]] {
            let line = refused(name, args);
            assert!(line.contains(NOWHERE) && line.contains("DOCKER_HOST"), "says where and what to do: {line}");
        }
    }
    let line = refused("custom_backend", &["--folder", "/nonexistent/folder"]);
    assert!(line.contains("/nonexistent/folder"), "{line}");
}

#[test]
fn a_daemon_that_does_not_answer_is_one_clear_line() {
    let refused = |variable: &str, value: &str| {
        let mut command = example("ps");
        // `DOCKER_HOST` takes precedence if both are set.
        command.env_remove("DOCKER_HOST").env("HOME", "/nonexistent").env(variable, value);
        let output = command.args(["--backend", "docker"]).output().unwrap();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), said.as_str(), complaint.lines().count()), (Some(2), "", 1), "{complaint}");
        assert!(!complaint.contains("client error") && !complaint.contains("hunter2"), "{complaint}");
        complaint
    };
    for (variable, value, advice) in [
        ("DOCKER_HOST", "gopher://h", "expected unix:///path"),
        ("DOCKER_HOST", "ssh://me:hunter2@h", "give ssh a key"),
        ("DOCKER_HOST", "tcp://me:hunter2@h:1", "no credentials"),
        ("DOCKER_HOST", "tcp://127.0.0.1:1", "start the daemon"),
        ("DOCKER_HOST", "tcp://no-such-host.invalid", "is its name right"),
        ("DOCKER_CONTEXT", "elsewhere", "docker context ls"),
        ("DOCKER_API_VERSION", "7", "as 1.41"),
    ] {
        let line = refused(variable, value);
        assert!(line.contains(advice), "{variable}={value}: {line}");
        let named = line.split("; ").next().unwrap_or_default().matches(variable).count();
        assert_eq!(named, 1, "the source of the setting is named once: {line}");
    }
}

#[test]
fn without_a_systemd_the_bus_that_was_asked_is_named() {
    let bus = ["--bus", "unix:path=/nonexistent/bus"];
    for (name, args) in [
        ("ps", &["--backend", "systemd"][..]),
        ("watch", &[][..]),
        ("logs", &["web"][..]),
        ("store", &["--store", "systemd:/etc/systemd/system", "list"][..]),
    ] {
        let line = refused(name, &[&bus[..], args].concat());
        assert!(line.contains("unix:path=/nonexistent/bus") && line.contains("DBUS_SYSTEM_BUS_ADDRESS"), "{line}");
    }
    assert!(refused("ps", &["--backend", "docker", "--root", "/"]).contains("--root is for systemd"));
    assert!(refused("store", &["--root", "/", "list"]).contains("--store systemd:PATH"));
    assert!(refused("store", &["--store", "systemd:units", "list"]).contains("systemd:/etc/systemd/system"));
}

#[test]
fn the_output_of_an_instance_is_found_by_its_name_or_its_id() {
    let line = refused("logs", &["--backend", "memory", "no-such"]);
    assert!(line.contains("no instance no-such") && line.contains("ps --all"), "{line}");
    assert!(refused("logs", &["--since", "yesterday", "x"]).contains("how long ago"));
    let output = run("logs", &["--backend", "memory", "shop-web-1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn an_answer_that_is_not_a_daemons_is_reported_so() {
    use std::{io::Write, os::unix::net::UnixListener};

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_10.0\r\n");
        }
    });
    let line = refused("ps", &["--host", &format!("unix://{}", socket.display())]);
    assert!(line.contains("does not speak http") && line.contains("docker.sock"), "{line}");
}

#[test]
fn help_is_not_an_error() {
    for name in EXAMPLES {
        let output = run(name, &["--help"]);
        assert!(output.status.success() && text(&output.stdout).contains("Usage"), "{name}");
    }
}

#[test]
fn a_journal_that_was_killed_goes_on_and_reports_its_gap() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let args = ["--backend", "memory", "--dir", dir.to_str().unwrap()];
    let mut first = example("journal").args(args).spawn().unwrap();
    let mut reader = BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    // An instance that a new runtime does not begin with, so that it is gone then.
    while !line.contains("metrics-board-1") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended");
    }
    first.kill().unwrap();
    first.wait().unwrap();

    let second = example("journal").args(args).args(["--for", "15s"]).output().unwrap();
    let (said, notes) = (text(&second.stdout), text(&second.stderr));
    assert!(second.status.success() && said.contains("gone"), "{said}{notes}");
    let anchor = notes.split_whitespace().find(|word| word.starts_with("runtide-anchor:")).expect(&notes).to_owned();
    let verified = example("journal").args(args).args(["--verify", &anchor]).output().unwrap();
    assert!(verified.status.success() && text(&verified.stdout).contains("anchored"), "{}", text(&verified.stderr));

    let segment = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "wal")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4_300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let line = refused("journal", &[&args[..], &["--verify", &anchor]].concat());
    assert!(line.contains("corrupt"), "{line}");
}

/// Up and printing; killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `watch`; returns it with the reader of its stdout, after its first line.
    fn watch(args: &[&str]) -> (Self, BufReader<std::process::ChildStdout>) {
        let mut child = example("watch").args(["--backend", "memory", "--for", "60s"]).args(args).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        (Self(child), reader)
    }

    fn end(mut self) -> (std::process::ExitStatus, String) {
        let status = self.0.wait().unwrap();
        let mut complaint = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (status, complaint)
    }
}

#[test]
fn a_pipe_without_a_reader_is_an_end() {
    for args in [&[][..], &["--json"]] {
        let (running, reader) = Running::watch(args);
        let begun = Instant::now();
        drop(reader);
        let (status, complaint) = running.end();
        assert_eq!((status.code(), complaint.as_str()), (Some(0), ""));
        assert!(begun.elapsed() < Duration::from_secs(50), "at the next event");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_is_an_end() {
    let (running, mut reader) = Running::watch(&[]);
    let begun = Instant::now();
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let (status, complaint) = running.end();
    assert_eq!((status.code(), complaint.as_str()), (Some(0), ""));
    assert!(begun.elapsed() < Duration::from_secs(50));
    assert!(rest.is_empty() || rest.ends_with('\n'), "no half line: {rest:?}");
}
