//! A command beside a container: a process of this machine, over WebSocket in the channels of version 4 or 5.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::super::super::packages;
use super::containers;
use super::request::{Request, Stream, answer};
use super::websocket::{BINARY, CLOSE, Frames, PING, PONG, accept, frame};

const VERSIONS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Of version 5: the client closes the channel that follows.
const CLOSES: u8 = 255;

const TICK: Duration = Duration::from_millis(10);

pub(super) fn exec(stream: &mut Stream, request: &Request) -> std::io::Result<()> {
    let offered = request.header("sec-websocket-protocol").unwrap_or_default();
    let version = VERSIONS.into_iter().find(|version| offered.split(',').any(|offered| offered.trim() == *version));
    let key = request.header("sec-websocket-key");
    let (Some(version), Some(key)) = (version, key) else {
        return answer(stream, 400, "a fakelet speaks WebSocket alone, v4 and v5.channel.k8s.io");
    };
    send(
        stream,
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {version}\r\n\r\n",
            accept(key)
        )
        .as_bytes(),
    )?;
    // As the kubelet: an empty message says that the channel is open.
    let opened = [("output", STDOUT), ("error", STDERR)].into_iter().find(|(name, _)| request.is_set(name));
    send(stream, &frame(BINARY, &[opened.map_or(STATUS, |(_, channel)| channel)]))?;
    let status = run(stream, request)?;
    let mut last = vec![STATUS];
    last.extend_from_slice(status.to_string().as_bytes());
    send(stream, &frame(BINARY, &last))?;
    send(stream, &frame(CLOSE, &1000_u16.to_be_bytes()))
}

fn send(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    let stream = stream.get_mut();
    stream.write_all(bytes)?;
    stream.flush()
}

/// Runs the command; the status that the client gets. An error is the client's end, with which the command ends.
fn run(stream: &mut Stream, request: &Request) -> std::io::Result<Value> {
    let mut words = request.values("command");
    let Some(program) = words.next() else { return Ok(failure("no command", None)) };
    let mut command = packages::command(program);
    let has_stdin = request.is_set("input");
    command.args(words).current_dir("/").process_group(0);
    command.stdin(if has_stdin { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(failure(&format!("error executing command in container: {error}"), None)),
    };
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let (sender, output) = mpsc::channel();
    child.stdout.take().into_iter().for_each(|from| copy(from, STDOUT, sender.clone()));
    // There is no terminal, but one stream, as with one.
    let errors = if request.is_set("tty") { STDOUT } else { STDERR };
    child.stderr.take().into_iter().for_each(|from| copy(from, errors, sender.clone()));
    drop(sender);
    let mut input = child.stdin.take().map(writer);
    // Not a thread for each direction: a TLS stream has no halves.
    stream.get_ref().sock.set_read_timeout(Some(TICK))?;
    let mut frames = Frames::default();
    let spoken = loop {
        match output.try_recv() {
            Ok(bytes) => {
                if let Err(error) = send(stream, &frame(BINARY, &bytes)) {
                    break Err(error);
                }
                continue;
            }
            // Both outputs have ended.
            Err(TryRecvError::Disconnected) => break Ok(()),
            Err(TryRecvError::Empty) => {}
        }
        if let Err(error) = receive(stream, &mut frames, &mut input) {
            break Err(error);
        }
    };
    if spoken.is_err() {
        containers::signal(pid, Signal::KILL);
    }
    drop(input);
    let code = child.wait().map(containers::code);
    spoken?;
    Ok(match code? {
        0 => json!({ "metadata": {}, "status": "Success" }),
        code => failure(&format!("command terminated with non-zero exit code: exit status {code}"), Some(code)),
    })
}

/// Takes what the client says, if anything within a tick.
fn receive(stream: &mut Stream, frames: &mut Frames, input: &mut Option<Sender<Vec<u8>>>) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(read) => frames.feed(buffer.get(..read).unwrap_or_default()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => return Err(error),
    }
    while let Some((kind, message)) = frames.next() {
        match (kind, message.as_slice()) {
            (CLOSE, _) => return Err(ErrorKind::ConnectionAborted.into()),
            (PING, said) => send(stream, &frame(PONG, said))?,
            (_, [CLOSES, STDIN]) => *input = None,
            (_, [STDIN, bytes @ ..]) if !bytes.is_empty() => {
                if let Some(input) = input {
                    let _ = input.send(bytes.to_vec());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes to the command in the background: a command that does not read must not keep its output.
fn writer(mut into: ChildStdin) -> Sender<Vec<u8>> {
    let (sender, bytes) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        while let Ok(bytes) = bytes.recv() {
            if into.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    sender
}

fn copy(mut from: impl Read + Send + 'static, channel: u8, into: Sender<Vec<u8>>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(read) = from.read(&mut buffer) {
            let mut message = vec![channel];
            message.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if read == 0 || into.send(message).is_err() {
                return;
            }
        }
    });
}

fn failure(message: &str, code: Option<i32>) -> Value {
    let mut status = json!({ "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError" });
    if let (Some(code), Some(status)) = (code, status.as_object_mut()) {
        status.insert("reason".to_owned(), "NonZeroExitCode".into());
        let cause = json!({ "reason": "ExitCode", "message": code.to_string() });
        status.insert("details".to_owned(), json!({ "causes": [cause] }));
    }
    status
}
