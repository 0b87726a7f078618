//! The example `sidecar`, on real engines: it works, and leaves nothing in any way in which it can end.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    thread,
    time::{Duration, Instant},
};

use runtide_conformance::{daemon::Daemon, report, testbed::Turn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cli::{example, refused, text};

/// Bound of each wait.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn what_cannot_be_started_is_refused_before_anything_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let with = |options: &[&str]| refused("sidecar", &[&["--backend", "memory", "--dir", dir], options].concat());
    assert!(with(&["--name", "../x"]).contains("letters, digits"));
    assert!(with(&["--ready", "tcp:http"]).contains("not a port"));
    assert!(with(&["--ready", "soon"]).contains("log:TEXT"));
    assert!(with(&["--undo", "--hold"]).contains("--hold"));
    assert!(with(&["--beside", "no-such"]).contains("no instance no-such"));
}

#[test]
fn on_docker_a_sidecar_works_and_all_is_undone() {
    on("docker", "RUNTIDE_TEST_DOCKER", works);
}

#[test]
fn on_podman_a_sidecar_works_and_all_is_undone() {
    on("podman", "RUNTIDE_TEST_PODMAN", works);
}

#[test]
fn on_docker_a_sidecar_that_fails_leaves_nothing_and_takes_nothing_of_others() {
    on("docker", "RUNTIDE_TEST_DOCKER", fails);
}

#[test]
fn on_podman_a_sidecar_that_fails_leaves_nothing_and_takes_nothing_of_others() {
    on("podman", "RUNTIDE_TEST_PODMAN", fails);
}

#[test]
fn on_docker_a_sidecar_that_is_interrupted_leaves_nothing() {
    on("docker", "RUNTIDE_TEST_DOCKER", interrupted);
}

#[test]
fn on_podman_a_sidecar_that_is_interrupted_leaves_nothing() {
    on("podman", "RUNTIDE_TEST_PODMAN", interrupted);
}

#[test]
fn on_docker_the_next_start_undoes_a_sidecar_whose_program_was_killed() {
    on("docker", "RUNTIDE_TEST_DOCKER", killed);
}

#[test]
fn on_podman_the_next_start_undoes_a_sidecar_whose_program_was_killed() {
    on("podman", "RUNTIDE_TEST_PODMAN", killed);
}

fn works(engine: &Engine) {
    let output = engine.sidecar(&[]).output().unwrap();
    let (said, notes) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), notes.as_str()), (Some(0), ""), "{said}");
    let steps: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["network", "sidecar", "ready", "main", "Hello", "undone"], "{said}");
    assert_eq!(engine.left(), Vec::<String>::new());

    // A probe from outside of the instance, and from its output.
    for ready in ["http:8080/", "tcp:8080", "log:serving", "running"] {
        let output = engine.sidecar(&["--ready", ready]).output().unwrap();
        // One that merely runs need not serve yet.
        let expected = [Some(0)].into_iter().chain((ready == "running").then_some(Some(1))).collect::<Vec<_>>();
        assert!(expected.contains(&output.status.code()), "{ready}: {}", text(&output.stderr));
        assert_eq!(engine.left(), Vec::<String>::new(), "{ready}");
    }

    // Beside an instance that is there, which is as it was afterwards.
    let other = engine.create("other");
    engine.ask("POST", &format!("/containers/{other}/start"), &Value::Null);
    let before = engine.networks_of(&other);
    let output = engine.sidecar(&["--beside", &other]).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.contains("\nHello from the sidecar\n") && said.contains(&format!("beside    {other}: ")), "{said}");
    assert_eq!(engine.networks_of(&other), before);
    engine.remove(&other);
    assert_eq!(engine.left(), Vec::<String>::new());
}

fn fails(engine: &Engine) {
    let output = engine.sidecar(&["--ready", "log:never", "--within", "4s"]).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!((output.status.code(), notes.lines().count()), (Some(2), 1), "{notes}");
    assert!(notes.contains("not ready within 4s") && notes.contains("all is undone"), "{notes}");
    assert_eq!(engine.left(), Vec::<String>::new());

    // A name that is taken is another's, and stays.
    for taken in ["sidecar", "main"] {
        let other = engine.create(taken);
        let output = engine.sidecar(&[]).output().unwrap();
        let notes = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{notes}");
        assert!(notes.contains("already_exists") && notes.contains(&other), "{notes}");
        assert_eq!(engine.left(), [other.as_str()]);
        engine.remove(&other);
    }

    // A network that is not private is not taken for one.
    let name = if engine.backend == "docker" { "bridge" } else { "podman" };
    let output = engine.sidecar(&["--name", name]).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()), "{notes}");
    assert!(notes.contains("not private"), "{notes}");
    let dir = engine.folder.path().join("again");
    let output = engine.sidecar(&["--image", "no-such-registry.invalid/x:1"]).arg("--dir").arg(dir).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{notes}");
    assert!(notes.contains("no-such-registry.invalid/x:1 was not here"), "{notes}");
    assert_eq!(engine.left(), Vec::<String>::new());
}

fn interrupted(engine: &Engine) {
    // While it waits until the sidecar is ready.
    let child = Running(engine.sidecar(&["--ready", "log:never"]).spawn().unwrap());
    engine.wait_for("sidecar");
    assert_eq!(child.end_by(Signal::INT), Some(130));
    assert_eq!(engine.left(), Vec::<String>::new());
    // At its begin: whatever it does then.
    let (child, _) = engine.begin(&["--ready", "log:never"], "network");
    assert_eq!(child.end_by(Signal::INT), Some(130));
    assert_eq!(engine.left(), Vec::<String>::new());
    // With all that it makes, which is its regular end; a service manager asks with another signal.
    for signal in [Signal::INT, Signal::TERM] {
        let (child, _) = engine.begin(&["--hold"], "holding");
        assert_eq!(engine.left().len(), 3, "{:?}", engine.left());
        assert_eq!(child.end_by(signal), Some(0));
        assert_eq!(engine.left(), Vec::<String>::new());
    }
    // While another run has the log, none begins.
    let (child, _) = engine.begin(&["--hold"], "holding");
    let output = engine.sidecar(&[]).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!((output.status.code(), notes.contains("another run")), (Some(2), true), "{notes}");
    assert_eq!(engine.left().len(), 3, "it is left alone");
    assert_eq!(child.end_by(Signal::INT), Some(0));
}

fn killed(engine: &Engine) {
    // When all is there: the sidecar's start is complete, and so is the work.
    let (child, _) = engine.begin(&["--hold"], "holding");
    child.kill();
    assert_eq!(engine.left().len(), 3, "{:?}", engine.left());
    let output = engine.sidecar(&[]).output().unwrap();
    let (said, notes) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(notes.contains("undone, of an earlier run that was killed"), "{notes}");
    assert!(said.contains("\nHello from the sidecar\n"), "{said}");
    assert_eq!(engine.left(), Vec::<String>::new());

    // In the middle of the start.
    let child = Running(engine.sidecar(&["--ready", "log:never"]).spawn().unwrap());
    engine.wait_for("sidecar");
    child.kill();
    let output = engine.sidecar(&["--undo"]).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()), "{notes}");
    assert!(notes.contains(&format!("network {}", engine.name)), "{notes}");
    assert_eq!(engine.left(), Vec::<String>::new());

    // Beside an instance, which leaves the network.
    let other = engine.create("other");
    engine.ask("POST", &format!("/containers/{other}/start"), &Value::Null);
    let before = engine.networks_of(&other);
    let (child, _) = engine.begin(&["--hold", "--beside", &other], "holding");
    assert_ne!(engine.networks_of(&other), before);
    child.kill();
    let output = engine.sidecar(&["--undo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((engine.networks_of(&other), engine.left()), (before, vec![other.clone()]));
    engine.remove(&other);
}

/// A run of the example; killed when the test fails.
struct Running(Child);

impl Running {
    fn end_by(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.0.wait().unwrap().code()
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One real engine, and the names that this test uses on it.
struct Engine<'a> {
    backend: &'a str,
    address: &'a str,
    daemon: Daemon,
    tokio: &'a Runtime,
    folder: tempfile::TempDir,
    /// Of the network, and the begin of all others.
    name: String,
}

fn on(backend: &str, variable: &str, test: fn(&Engine)) {
    let Ok(address) = std::env::var(variable) else {
        return report::skip("examples", backend, format!("{variable} is not set"));
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _turn = tokio.block_on(Turn::shared(backend)).unwrap();
    let daemon = Daemon::at(address.trim_start_matches("unix://").into());
    let daemon = if backend == "podman" { daemon.below("/v4.0.0/libpod") } else { daemon };
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
    let name = format!("runtide-sidecar-{}-{own}", std::process::id());
    test(&Engine { backend, address: &address, daemon, tokio: &tokio, folder, name });
}

impl Engine<'_> {
    fn sidecar(&self, options: &[&str]) -> Command {
        let mut command = example("sidecar");
        command.args(["--backend", self.backend, "--host", self.address]);
        let last = |option: &str| options.contains(&option);
        if !last("--name") {
            command.args(["--name", &self.name]);
        }
        if !last("--image") {
            command.args(["--image", &image()]).arg("--dir").arg(self.folder.path());
        }
        command.args(options);
        command
    }

    /// Starts the example, and waits for the line that begins with this word.
    fn begin(&self, options: &[&str], word: &str) -> (Running, Lines<BufReader<ChildStdout>>) {
        let mut child = self.sidecar(options).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let child = Running(child);
        while !lines.next().unwrap_or_else(|| panic!("it ended before {word}")).unwrap().starts_with(word) {}
        (child, lines)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.tokio.block_on(self.daemon.ask(method, path, body)).unwrap_or_else(|error| panic!("{error}"));
        answer.json().unwrap_or_default()
    }

    /// Names of this test's containers and networks.
    fn left(&self) -> Vec<String> {
        let networks = if self.backend == "docker" { "/networks" } else { "/networks/json" };
        let containers = self.ask("GET", "/containers/json?all=true", &Value::Null);
        let networks = self.ask("GET", networks, &Value::Null);
        let names = containers.as_array().into_iter().flatten().map(|one| &one["Names"][0]);
        let networks = networks.as_array().into_iter().flatten();
        let names = names.chain(networks.flat_map(|one| [&one["Name"], &one["name"]]));
        let names = names.filter_map(Value::as_str).map(|name| name.trim_start_matches('/').to_owned());
        names.filter(|name| name.starts_with(&self.name)).collect()
    }

    fn wait_for(&self, suffix: &str) {
        let (begun, wanted) = (Instant::now(), format!("{}-{suffix}", self.name));
        while !self.left().contains(&wanted) {
            assert!(begun.elapsed() < LIMIT, "no {wanted}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Creates a container that is not the example's.
    fn create(&self, suffix: &str) -> String {
        let name = format!("{}-{suffix}", self.name);
        let command = ["sleep", "600"];
        if self.backend == "docker" {
            let body = json!({"Image": image(), "Cmd": command, "StopTimeout": 1});
            self.ask("POST", &format!("/containers/create?name={name}"), &body);
        } else {
            let body = json!({"name": name, "image": image(), "command": command, "stop_timeout": 1});
            self.ask("POST", "/containers/create", &body);
        }
        name
    }

    fn networks_of(&self, name: &str) -> Vec<String> {
        let inspected = self.ask("GET", &format!("/containers/{name}/json"), &Value::Null);
        let networks = inspected["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
        networks.map(|(name, _)| name.clone()).collect()
    }

    fn remove(&self, name: &str) {
        self.ask("DELETE", &format!("/containers/{name}?force=true"), &Value::Null);
    }
}

fn image() -> String {
    std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned())
}
