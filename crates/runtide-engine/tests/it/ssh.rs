//! Through an `ssh` that is a script: its arguments, its end, and its processes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use runtide_core::{ErrorKind, Result, Retry, backend::CallSite};
use runtide_engine::{Answer, Client, Dialect, Endpoint, Request, Settings, error::Advice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::Demo;

const SECONDS: Duration = Duration::from_secs(60);

/// Answers each request with the version, as `/version` has it.
const ANSWERS: &str = r#"
cr=$(printf '\r')
while IFS= read -r line; do
  if [ "$line" = "$cr" ]; then printf 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1.41'; fi
done
"#;

struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    /// A program that runs these lines, in its folder.
    fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Written by another process: a file that is open for writing, in a child of another test as well, cannot be run.
        let mut child = Command::new("sh")
            .args(["-c", "cat > ssh && chmod +x ssh"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\nat='{}'\n{lines}", folder.path().display());
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, address: &str, deadline: Duration) -> Client<Demo> {
        Client::new(Demo, settings(&self.path("ssh"), address, deadline)).unwrap()
    }
}

fn settings(program: &Path, address: &str, deadline: Duration) -> Settings {
    let Endpoint::Ssh(ssh) = address.parse().unwrap() else { panic!("{address}") };
    let endpoint = Endpoint::Ssh(ssh.with_program(program));
    Settings { id: "demo:test".into(), endpoint, tls: None, deadline, connect_deadline: deadline }
}

async fn version(client: &Client<Demo>) -> Result<String> {
    let answer = client.call("demo.list", Request::get("/list"), client.deadline()).await?;
    Ok(String::from_utf8(answer.to_vec()).unwrap())
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SECONDS, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn requests_go_through_ssh_with_the_docker_clients_arguments() {
    let script = Script::new(&format!("printf '%s\\n' \"$@\" > $at/arguments\n{ANSWERS}"));
    let client = script.client("ssh://me@build-7:2222/run/my%20demo.sock", SECONDS);
    assert_eq!(version(&client).await.unwrap(), "1.41");
    let arguments = fs::read_to_string(script.path("arguments")).unwrap();
    let expected = [
        "-l",
        "me",
        "-p",
        "2222",
        "-o",
        "ConnectTimeout=60",
        "-T",
        "--",
        "build-7",
        "demo '--socket=/run/my demo.sock' dial",
    ];
    assert!(arguments.lines().eq(expected), "{arguments}");
    assert_eq!(client.endpoint(), "ssh://me@build-7:2222/run/my%20demo.sock");
}

#[tokio::test]
async fn the_end_of_ssh_is_the_error() {
    let refused = "echo a banner >&2; echo 'ssh: connect to host h port 22: Connection refused' >&2; exit 255";
    let error = version(&Script::new(refused).client("ssh://h", SECONDS)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Backoff));
    assert!(error.message().ends_with("ssh: connect to host h port 22: Connection refused"), "{error}");
    // It reads no byte of the request, which may not fit into the pipe.
    let denied = "exec 0<&-; echo 'me@h: Permission denied (publickey).' >&2; exit 255";
    let script = Script::new(denied);
    let client = script.client("ssh://me@h", SECONDS);
    let long = Request::post("/x").with_json(&"x".repeat(1 << 20)).unversioned();
    let error = client.call("demo.post", long, SECONDS).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let error = version(&Script::new("demo-of-none").client("ssh://h", SECONDS)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("demo dial"), "{error}");
    let killed = "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n1.'; kill -9 $$";
    let error = version(&Script::new(killed).client("ssh://h", SECONDS)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_ssh_whose_error_output_is_held_open_still_ends() {
    let held = "sleep 600 <&- >&- & echo $! > $at/pid; echo 'Host key verification failed.' >&2; exit 255";
    let script = Script::new(held);
    let error = version(&script.client("ssh://h", SECONDS)).await.unwrap_err();
    let pid = fs::read_to_string(script.path("pid")).unwrap();
    Command::new("kill").arg(pid.trim()).status().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test]
async fn a_missed_deadline_kills_ssh() {
    let script = Script::new("echo $$ > $at/new; mv $at/new $at/pid; exec sleep 600");
    let client = script.client("ssh://h", SECONDS);
    let calling = tokio::spawn({
        let client = client.clone();
        async move { version(&client).await }
    });
    until("ssh runs", || script.path("pid").exists()).await;
    let pid = fs::read_to_string(script.path("pid")).unwrap();
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !matches!(stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()), None | Some('Z'))
    };
    assert!(is_alive());
    calling.abort();
    until("ssh is dead", || !is_alive()).await;

    let client = script.client("ssh://h", Duration::from_millis(200));
    assert_eq!(version(&client).await.unwrap_err().kind(), ErrorKind::Timeout);
}

/// An engine without such a command.
#[derive(Debug)]
struct Bare;
impl Dialect for Bare {
    type Server = ();
    const NEGOTIATE: &'static str = "bare.negotiate";
    const PROBE: &'static str = "/version";
    const ADVICE: Advice = Demo::ADVICE;
    fn understand(&self, _: CallSite<'_>, _: &Answer) -> Result<()> {
        Ok(())
    }
    fn prefix((): &()) -> String {
        String::new()
    }
    fn describe((): &()) -> String {
        String::new()
    }
}

#[tokio::test]
async fn no_process_without_a_program_and_no_client_without_a_command() {
    let client = Client::new(Demo, settings(Path::new("/nonexistent/ssh"), "ssh://h", SECONDS)).unwrap();
    let error = version(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("/nonexistent/ssh"), "{error}");
    let error = Client::new(Bare, settings(Path::new("ssh"), "ssh://h", SECONDS)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn hostile_addresses_run_nothing() {
    for text in
        ["ssh://-oProxyCommand=touch%20x", "ssh://me@-oProxyCommand=x", "ssh://-F@h", "ssh://$(id)@h", "ssh://h;id"]
    {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[tokio::test]
async fn an_upgraded_connection_through_ssh_is_half_closed() {
    let upgrades = r#"
cr=$(printf '\r')
while IFS= read -r line; do [ "$line" = "$cr" ] && break; done
printf 'HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n'
cat
printf ' and the end'
"#;
    let script = Script::new(upgrades);
    let client = script.client("ssh://h", SECONDS);
    let mut hijacked = client.hijack("demo.exec", Request::post("/x").unversioned()).await.unwrap();
    hijacked.writer.write_all(b"input").await.unwrap();
    hijacked.writer.shutdown().await.unwrap();
    let mut output = String::new();
    hijacked.reader.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "input and the end");
}

#[tokio::test]
async fn few_logins_are_under_way_at_once() {
    // Each counts those that have not answered yet, itself included.
    let counts = r"
mkdir -p $at/running && touch $at/running/$$
ls $at/running | wc -l >> $at/counts
sleep 0.2
rm $at/running/$$
";
    let script = Script::new(&format!("{counts}{ANSWERS}"));
    let client = script.client("ssh://h", SECONDS);
    let pings = (0..12).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.ping("demo.ping").await })
    });
    for ping in pings.collect::<Vec<_>>() {
        ping.await.unwrap().unwrap();
    }
    let counts = fs::read_to_string(script.path("counts")).unwrap();
    let most = counts.lines().map(|line| line.trim().parse::<usize>().unwrap()).max().unwrap();
    assert!((2..=4).contains(&most), "{most}");
}
