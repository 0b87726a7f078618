//! A manager that speaks as much of systemd's D-Bus as a watch needs. It runs in a separate process, so that its CPU is not
//! counted, and prepares its signals before the clock starts.
//!
//! Its signals were recorded from systemd 252, through dbus-daemon: the runs of two transient services, one of which ends with
//! status 3, from `UnitNew` to `UnitRemoved` (`fixtures/`). Each run that is sent has its own name and InvocationID in place of
//! the recorded ones, and is otherwise byte for byte as systemd sent it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    num::NonZeroU32,
    ops::Range,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use zbus::{DynamicType, Message, Variant, message::Builder};

/// The argument that makes a bench's own executable a manager.
const SERVE: &str = "--serve-fake-manager";

/// Signals of one run: `UnitNew`, `JobNew`, four changes of the service and of its unit, `JobRemoved`, `UnitRemoved`.
pub const RUN: usize = 12;

const RECORDED: [&[u8]; 2] =
    [include_bytes!("../fixtures/systemd-252-stopped.bin"), include_bytes!("../fixtures/systemd-252-failed.bin")];

/// The part of the recorded name that differs from run to run.
const NUMBER: &[u8] = b"00000000";

/// Bytes in front of a run's 16 bytes: the name of the property, the type `ay`, the length.
const INVOCATION: &[u8] = b"InvocationID\0\x02ay\0\0\0\0\x10\0\0\0";

/// The bench's end of a manager; dropped, it ends it.
#[derive(Debug)]
pub struct Manager {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Manager {
    /// Call it first in `main`: a process that was started as a manager serves here, and exits.
    pub fn serve_if_asked() {
        let mut args = std::env::args().skip_while(|arg| arg != SERVE).skip(1);
        let Some(socket) = args.next() else { return };
        serve(Path::new(&socket));
        std::process::exit(0);
    }

    /// Starts a manager without units.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = folder.path().join("bus");
        let mut child = Command::new(std::env::current_exe().expect("this executable"))
            .arg(SERVE)
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the manager starts");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its answers"));
        let mut manager = Self { child, orders, answers, socket, _folder: folder };
        manager.answered("listening");
        manager
    }

    /// The address of its bus.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Prepares the signals of this many runs.
    pub fn prepare(&mut self, runs: usize) {
        self.order(&format!("prepare {runs}"));
        self.answered("prepared");
    }

    /// Sends the prepared messages to every subscriber.
    pub fn go(&mut self) {
        self.order("go");
    }

    fn order(&mut self, text: &str) {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{text}").expect("the manager is there");
    }

    fn answered(&mut self, expected: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the manager is there");
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.orders = None; // The child ends with its input.
        let _ = self.child.wait();
    }
}

type Subscribers = Arc<Mutex<Vec<UnixStream>>>;

fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("the socket");
    println!("listening");
    let subscribers = Subscribers::default();
    let shared = Arc::clone(&subscribers);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscribers = Arc::clone(&shared);
            thread::spawn(move || answer_all(&subscribers, stream));
        }
    });
    let recorded = RECORDED.map(Recorded::new);
    let (mut serial, mut prepared) = (0, Vec::new());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("prepare", runs)) => {
                let runs = runs.parse().expect("a number");
                prepared = sequence(&recorded, serial, runs);
                serial += runs;
                println!("prepared");
            }
            // No call is made on the subscribed connection, so that no answer comes between the signals.
            None if line == "go" => subscribers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain_mut(|stream| stream.write_all(&prepared).is_ok()),
            other => panic!("no such order: {other:?}"),
        }
    }
}

/// One recorded run.
struct Recorded {
    bytes: &'static [u8],
    /// Signals that are sent together: one of the manager's, or the changes of a service and of its unit.
    steps: Vec<Range<usize>>,
    numbers: Vec<usize>,
    invocations: Vec<usize>,
}

impl Recorded {
    fn new(bytes: &'static [u8]) -> Self {
        let (mut steps, mut messages, mut begin, mut at) = (Vec::new(), 0, 0, 0);
        while at < bytes.len() {
            let message = &bytes[at..];
            let (length, body) = length(message.first_chunk().expect("a header"));
            at += length;
            messages += 1;
            // The unit's changes follow those of its service.
            if !message[length - body..].starts_with(b"\x20\0\0\0org.freedesktop.systemd1.Service") {
                steps.push(begin..at);
                begin = at;
            }
        }
        assert_eq!((messages, begin), (RUN, bytes.len()));
        let all = |text: &[u8]| (0..bytes.len()).filter(|&at| bytes[at..].starts_with(text)).collect::<Vec<_>>();
        let invocations = all(INVOCATION).into_iter().map(|at| at + INVOCATION.len()).collect();
        Self { bytes, steps, numbers: all(NUMBER), invocations }
    }

    /// The run of unit `n`.
    fn run(&self, n: usize) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        for &at in &self.numbers {
            bytes[at..at + NUMBER.len()].copy_from_slice(format!("{n:08}").as_bytes());
        }
        for &at in &self.invocations {
            bytes[at..at + 16].copy_from_slice(&(n as u128 + 1).to_be_bytes());
        }
        bytes
    }
}

/// The length of a message and of its body, by the first 16 bytes.
fn length(head: &[u8; 16]) -> (usize, usize) {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let body = number(4);
    ((16 + number(12)).next_multiple_of(8) + body, body)
}

/// Eight runs at a time, interleaved, as on a busy machine.
fn sequence(recorded: &[Recorded; 2], serial: usize, runs: usize) -> Vec<u8> {
    const ABREAST: usize = 8;
    let mut bytes = Vec::with_capacity(runs * recorded[0].bytes.len());
    for first in (serial..serial + runs).step_by(ABREAST) {
        let units = first..(serial + runs).min(first + ABREAST);
        let abreast: Vec<_> = units.map(|n| (&recorded[n % 2], recorded[n % 2].run(n))).collect();
        for step in 0..recorded[0].steps.len() {
            for (recorded, run) in &abreast {
                bytes.extend_from_slice(&run[recorded.steps[step].clone()]);
            }
        }
    }
    bytes
}

/// Performs the handshake of a bus, then answers calls.
fn answer_all(subscribers: &Subscribers, mut stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    if !shake_hands(&mut reader, &mut stream) {
        return;
    }
    let mut head = [0; 16];
    while reader.read_exact(&mut head).is_ok() {
        let (length, _) = length(&head);
        let mut rest = vec![0; length - head.len()];
        if reader.read_exact(&mut rest).is_err() {
            return;
        }
        let serial = NonZeroU32::new(u32::from_le_bytes([head[8], head[9], head[10], head[11]])).expect("a serial");
        // The texts in the header name the call.
        let says = |text: &[u8]| rest.windows(text.len()).any(|part| part == text);
        let answer = if says(b"\0Hello\0") {
            answer(serial, &(":1.7",))
        } else if says(b"\0GetAll\0") {
            answer(serial, &(properties(),))
        } else if says(b"\0ListUnitsByPatterns\0") {
            type Listed<'a> = (
                &'a str,
                &'a str,
                &'a str,
                &'a str,
                &'a str,
                &'a str,
                zbus::ObjectPath<'a>,
                u32,
                &'a str,
                zbus::ObjectPath<'a>,
            );
            answer(serial, &(Vec::<Listed<'_>>::new(),))
        } else if says(b"\0GetUnit\0") {
            // The units of a burst are gone before a client can inspect them.
            let error = Message::error(&call().header(), "org.freedesktop.systemd1.NoSuchUnit");
            finish(error, serial, &("Unit not loaded.",))
        } else {
            answer(serial, &()) // AddMatch, Subscribe
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
        if says(b"\0Subscribe\0") {
            let subscriber = stream.try_clone().expect("a descriptor");
            subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
        }
    }
}

fn shake_hands(reader: &mut BufReader<UnixStream>, stream: &mut UnixStream) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        if !matches!(reader.read_line(&mut line), Ok(length) if length > 0) {
            return false;
        }
        let reply = match line.trim_matches(['\0', '\r', '\n']) {
            "BEGIN" => return true,
            "NEGOTIATE_UNIX_FD" => "AGREE_UNIX_FD\r\n",
            line if line.starts_with("AUTH EXTERNAL") => "OK 8ac81205b49f41cdc70df2586b022ad2\r\n",
            _ => "ERROR\r\n",
        };
        if stream.write_all(reply.as_bytes()).is_err() {
            return false;
        }
    }
}

/// A call, to be answered.
fn call() -> Message {
    Message::method_call("/", "Any").build(&()).expect("a call")
}

fn answer(serial: NonZeroU32, body: &(impl serde::Serialize + DynamicType)) -> Vec<u8> {
    finish(Message::method_return(&call().header()), serial, body)
}

fn finish(answer: Builder<'_>, serial: NonZeroU32, body: &(impl serde::Serialize + DynamicType)) -> Vec<u8> {
    let answer = answer.reply_serial(Some(serial)).build(body).expect("an answer");
    answer.data().bytes().to_vec()
}

/// Properties of the manager.
fn properties() -> std::collections::HashMap<&'static str, Variant<'static>> {
    [
        ("Version", Variant::from("252.38-1~deb12u1")),
        ("UserspaceTimestampMonotonic", Variant::from(5_000_000_u64)),
        ("UnitPath", Variant::from(vec!["/etc/systemd/system", "/run/systemd/system", "/lib/systemd/system"])),
    ]
    .into()
}
