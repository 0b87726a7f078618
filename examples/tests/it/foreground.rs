//! The example `run`, and `logs` of several instances.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Output, Stdio},
    time::Duration,
};

use runtide_conformance::{daemon::Daemon, report, testbed::Turn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::{example, refused, run, text};

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_created() {
    assert!(refused("run", &["--backend", "memory", "-p", "http", "a:1"]).contains("expected a port"));
    assert!(refused("run", &["--backend", "memory", "-p", "a:80", "a:1"]).contains("IP:PORT"));
    assert!(refused("run", &["--backend", "memory", "-p", "80:80/icmp", "a:1"]).contains("tcp, udp or sctp"));
    assert!(refused("run", &["--backend", "memory", "--volume", "pages:www", "a:1"]).contains("absolute"));
    assert!(refused("run", &["--backend", "memory", "-e", "=x", "a:1"]).contains("KEY=VALUE"));
    assert!(refused("run", &["--backend", "memory", "-t", "a:1"]).contains("terminal"));
    assert!(refused("run", &["--backend", "memory", "-p", "80-82:80-81", "a:1"]).contains("as many ports"));
    assert!(refused("run", &["--backend", "memory", "-p", "82-80", "a:1"]).contains("expected a port"));
    assert!(refused("run", &["--backend", "memory", "-p", "65535-65536:80-81", "a:1"]).contains("expected a port"));
    assert!(refused("run", &["--backend", "memory", "--volume", "./www:/www", "a:1"]).contains("absolute"));
    let unset = refused("run", &["--backend", "memory", "-e", "RUNTIDE_NO_SUCH", "a:1"]);
    assert_eq!(unset.matches("--help").count(), 1, "{unset}");
}

#[test]
fn lines_of_several_instances_have_their_names_in_front() {
    let output = run("logs", &["--backend", "memory", "shop-web-1", "shop-api-1"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for name in ["shop-web-1 | ", "shop-api-1 | "] {
        assert!(said.lines().any(|line| line.starts_with(name)), "{name} in {said}");
    }
    assert!(said.lines().all(|line| line.starts_with("shop-web-1 | ") || line.starts_with("shop-api-1 | ")), "{said}");
    assert!(refused("logs", &["--backend", "memory", "shop-web-1", "no-such"]).contains("no instance no-such"));
}

#[test]
fn on_docker_an_instance_runs_in_the_foreground_and_is_gone_afterwards() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_DOCKER") else {
        return report::skip("examples", "docker", "RUNTIDE_TEST_DOCKER is not set");
    };
    in_the_foreground("docker", &address, "/containers/json?all=1");
}

#[test]
fn on_podman_an_instance_runs_in_the_foreground_and_is_gone_afterwards() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_PODMAN") else {
        return report::skip("examples", "podman", "RUNTIDE_TEST_PODMAN is not set");
    };
    in_the_foreground("podman", &address, "/v4.0.0/libpod/containers/json?all=true");
}

fn in_the_foreground(backend: &str, address: &str, list: &str) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _turn = tokio.block_on(Turn::shared(backend)).unwrap();
    let daemon = Daemon::at(address.trim_start_matches("unix://").into());
    let image = std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned());
    let name = format!("runtide-example-run-{}", std::process::id());
    let is_there = || {
        let listed = tokio.block_on(daemon.ask("GET", list, &Value::Null)).unwrap().json().unwrap();
        listed.to_string().contains(&name)
    };
    let id = |name: &str| {
        let output = example("ps").args(["--backend", backend, "--host", address, "--json", "--name", name]).output();
        let listed: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        listed[0]["id"].as_str().unwrap().to_owned()
    };
    let args = |options: &[&str], command: &[&str]| -> Vec<String> {
        let target = ["--backend", backend, "--host", address, "--name", &name];
        [&target, options, &[image.as_str()], command].concat().into_iter().map(str::to_owned).collect()
    };
    let shown = |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));

    let output =
        example("run").args(args(&["-e", "WORD=a b"], &["sh", "-c", "echo $WORD; echo no >&2; exit 3"])).output();
    assert_eq!(shown(&output.unwrap()), (Some(3), "a b\n".to_owned(), "no\n".to_owned()));
    assert!(!is_there(), "it is removed");

    // As a shell has it, and as the engine's own tool does.
    let output = example("run").args(args(&["--rm"], &["no-such-program"])).output().unwrap();
    let notes = text(&output.stderr);
    assert_eq!(
        (output.status.code(), notes.contains("no-such-program"), is_there()),
        (Some(127), true, false),
        "{notes}"
    );
    let options = ["--entrypoint", "sh", "-e", "RUNTIDE_WORD", "-p", "127.0.0.1:0:80", "--volume", "/tmp:/given:rw"];
    let output =
        example("run").args(args(&options, &["-c", "echo $RUNTIDE_WORD"])).env("RUNTIDE_WORD", "from here").output();
    assert_eq!(shown(&output.unwrap()), (Some(0), "from here\n".to_owned(), String::new()));

    let mut child = example("run").args(args(&["-i"], &["cat"])).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(shown(&child.wait_with_output().unwrap()), (Some(0), "through\n".to_owned(), String::new()));
    assert!(!is_there(), "it is removed");

    // Ctrl-C, while it runs: it gets the signal to stop, and is removed.
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = example("run").args(args(&[], &["sh", "-c", script])).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    assert!(is_there());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "bye");
    let status = child.wait().unwrap();
    assert_eq!((status.code(), is_there()), (Some(7), false));

    // A command in it that is interrupted goes on, so that its end is not known: that is no success. SIGTERM to `run` is as Ctrl-C.
    let mut child = example("run").args(args(&[], &["sh", "-c", script])).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let id = id(&name);
    let inside = ["--backend", backend, "--host", address, &id[..12], "sh", "-c", "echo inside; exec sleep 600"];
    let mut exec = example("exec").args(inside).spawn().unwrap();
    let mut said = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "inside", "found by the begin of its id");
    kill_process(Pid::from_child(&exec), Signal::INT).unwrap();
    assert_eq!(exec.wait().unwrap().code(), Some(130));
    let output = example("logs").args(["--backend", backend, "--host", address, "-t", "--tail", "all", &name]).output();
    let said = text(&output.unwrap().stdout);
    let (at, word) = said.lines().next().unwrap().split_once(' ').unwrap();
    assert!(at.starts_with("20") && at.ends_with('Z') && at.contains('T') && word == "ready", "{said}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "bye");
    assert_eq!((child.wait().unwrap().code(), is_there()), (Some(7), false));

    // A name that is taken is another's: nothing of it is removed.
    let mut first = example("run").args(args(&[], &["sh", "-c", "echo ready; sleep 600"])).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let second = example("run").args(args(&[], &["true"])).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{}", text(&second.stderr));
    assert!(is_there());
    // Once more, for one that ignores the signal to stop.
    while first.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(&first), Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_there());
}
