//! The example `exec`, with pipes and with a terminal.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use runtide_conformance::daemon::Daemon;
use runtide_conformance::{report, testbed::Turn};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use serde_json::json;

use crate::cli::{example, refused, run, text};

/// Deadline of any step.
const LIMIT: Duration = Duration::from_secs(60);

const WEB: [&str; 3] = ["--backend", "memory", "shop-web-1"];

fn args<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [options, &WEB, command].concat()
}

#[test]
fn output_input_and_exit_code_are_passed_on() {
    let output = run("exec", &args(&[], &["echo", "--help", "$HOME;"]));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "--help $HOME;\n".to_owned()));
    assert_eq!(run("exec", &args(&[], &["exit", "3"])).status.code(), Some(3));
    let missing = run("exec", &args(&[], &["no-such-program"]));
    assert_eq!((missing.status.code(), text(&missing.stdout)), (Some(127), String::new()));
    assert_eq!(text(&missing.stderr), "no-such-program: not found\n", "its stderr is on stderr");
    let options = ["-e", "WORD=a=b c", "-u", "someone", "-w", "/srv"];
    assert!(text(&run("exec", &args(&options, &["env"])).stdout).lines().any(|line| line == "WORD=a=b c"));
    assert_eq!(text(&run("exec", &args(&options, &["whoami"])).stdout), "someone\n");
    assert_eq!(text(&run("exec", &args(&options, &["pwd"])).stdout), "/srv\n");
    assert_eq!(run("exec", &args(&["-d"], &["sleep", "3600"])).status.code(), Some(0));

    let mut command = example("exec");
    let mut child = command.args(args(&["-i"], &["cat"])).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let data = vec![b'x'; 1_000_000];
    let expected = data.clone();
    let writing = thread::spawn(move || stdin.write_all(&data).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert_eq!((output.status.code(), output.stdout == expected), (Some(0), true));
}

#[test]
fn what_cannot_be_run_is_refused_in_one_line() {
    assert!(refused("exec", &["--backend", "memory", "no-such", "true"]).contains("no instance no-such"));
    assert!(refused("exec", &args(&["-it"], &["sh"])).contains("stdin is none"));
    assert!(refused("exec", &args(&["-e", "WORD"], &["sh"])).contains("KEY=VALUE"));
    assert!(refused("exec", &args(&["-d", "-i"], &["sh"])).contains("--stdin"));
    assert!(refused("exec", &args(&["-w", "srv"], &["pwd"])).contains("absolute"));
}

/// A program with a terminal of its own; killed when the test fails.
struct Session {
    child: Child,
    terminal: File,
    said: Receiver<u8>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Session {
    fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let program = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let terminal = File::from(terminal);
        resize(&terminal, columns, rows);
        let program = File::from(program);
        let stdio = || Stdio::from(program.try_clone().unwrap());
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let (tell, said) = channel();
        let mut reader = terminal.try_clone().unwrap();
        thread::spawn(move || {
            let mut byte = [0];
            while matches!(reader.read(&mut byte), Ok(1)) && tell.send(byte[0]).is_ok() {}
        });
        Self { child, terminal, said }
    }

    fn until(&self, wanted: &str) -> String {
        let mut said = Vec::new();
        while !said.ends_with(wanted.as_bytes()) {
            said.push(self.said.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no {wanted} in {:?}", text(&said))));
        }
        text(&said)
    }

    fn resize(&self, columns: u16, rows: u16) {
        resize(&self.terminal, columns, rows);
        // The kernel tells it only to a terminal's own session.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::WINCH).unwrap();
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    tcsetwinsize(terminal, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn a_terminal_is_passed_on_with_its_size_and_its_changes() {
    let mut command = example("exec");
    command.args(args(&["-it"], &["size"]));
    let mut session = Session::start(command, 100, 30);
    session.until("100 30\n");
    assert!(session.is_raw(), "each key goes to the program");
    session.resize(132, 43);
    for _ in 0..600 {
        session.press("\n");
        if session.until("\n").starts_with("132 43") {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the new size did not arrive");
}

#[test]
fn on_docker_a_shell_is_interactive_and_its_exit_code_is_passed_on() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_DOCKER") else {
        return report::skip("examples", "docker", "RUNTIDE_TEST_DOCKER is not set");
    };
    let daemon = Daemon::at(address.trim_start_matches("unix://").into());
    let name = format!("runtide-example-exec-{}", std::process::id());
    let body = json!({"Image": image(), "Cmd": ["sleep", "600"], "StopTimeout": 1, "HostConfig": {"Init": true}});
    shell_on("docker", &daemon, &address, &name, (format!("/containers/create?name={name}"), body));
}

#[test]
fn on_podman_a_shell_is_interactive_and_its_exit_code_is_passed_on() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_PODMAN") else {
        return report::skip("examples", "podman", "RUNTIDE_TEST_PODMAN is not set");
    };
    let daemon = Daemon::at(address.trim_start_matches("unix://").into()).below("/v4.0.0/libpod");
    let name = format!("runtide-example-exec-{}", std::process::id());
    let body = json!({"name": name, "image": image(), "command": ["sleep", "600"], "stop_timeout": 1});
    shell_on("podman", &daemon, &address, &name, ("/containers/create".to_owned(), body));
}

fn image() -> String {
    std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned())
}

/// A shell with a terminal, in a container of this name that this request creates.
fn shell_on(backend: &str, daemon: &Daemon, address: &str, name: &str, create: (String, serde_json::Value)) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _turn = tokio.block_on(Turn::shared(backend)).unwrap();
    let ask = |method: &str, path: String, body: serde_json::Value| {
        tokio.block_on(daemon.ask(method, &path, &body)).unwrap_or_else(|error| panic!("{error}"))
    };
    ask("POST", create.0, create.1);
    ask("POST", format!("/containers/{name}/start"), json!(null));

    let mut command = example("exec");
    let script = "printf 'ready> '; read -r line; echo \"<$line>\"; stty size; exit 5";
    command.args(["-it", "--backend", backend, "--host", address, name, "sh", "-c", script]);
    let mut session = Session::start(command, 90, 20);
    session.until("ready> ");
    assert!(session.is_raw());
    session.press("\x10 \x11 hello\r");
    session.until("hello>");
    session.until("20 90");
    let status = session.child.wait().unwrap();
    assert_eq!((status.code(), session.is_raw()), (Some(5), false), "the terminal is as it was");
    ask("DELETE", format!("/containers/{name}?force=true"), json!(null));
}
