//! A daemon that speaks as much of Docker's API as a watch and a list need. It runs in a separate process, so that its CPU
//! is not counted, and prepares its output before the clock starts.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::fleet;

/// The argument that makes a bench's own executable a daemon.
const SERVE: &str = "--serve-fake-daemon";

/// Form of the messages, by the daemon's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 20.10, API 1.41: with the old fields at the top.
    V20,
    /// 29, API 1.52: without them.
    V29,
}

impl Dialect {
    fn api(self) -> &'static str {
        if self == Self::V20 { "1.41" } else { "1.52" }
    }

    fn version(self) -> &'static str {
        if self == Self::V20 { "20.10.24" } else { "29.3.1" }
    }
}

/// Messages of one run of a container: create, start, die, destroy.
pub const RUN: usize = 4;

/// The bench's end of a daemon; dropped, it ends it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// Call it first in `main`: a process that was started as a daemon serves here, and exits.
    pub fn serve_if_asked() {
        let mut args = std::env::args().skip_while(|arg| arg != SERVE).skip(1);
        let Some(socket) = args.next() else { return };
        let dialect = if args.next().as_deref() == Some("20") { Dialect::V20 } else { Dialect::V29 };
        let containers = args.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        serve(Path::new(&socket), dialect, containers);
        std::process::exit(0);
    }

    /// Starts a daemon with this many containers.
    pub fn start(dialect: Dialect, containers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = folder.path().join("docker.sock");
        let mut child = Command::new(std::env::current_exe().expect("this executable"))
            .arg(SERVE)
            .arg(&socket)
            .arg(if dialect == Dialect::V20 { "20" } else { "29" })
            .arg(containers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its answers"));
        let mut daemon = Self { child, orders, answers, socket, _folder: folder };
        daemon.answered("listening");
        daemon
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Prepares the messages of this many runs, `per_chunk` messages in a chunk.
    pub fn prepare(&mut self, runs: usize, per_chunk: usize) {
        self.order(&format!("prepare {runs} {per_chunk}"));
        self.answered("prepared");
    }

    /// Sends the prepared messages to every subscriber.
    pub fn go(&mut self) {
        self.order("go");
    }

    /// Sends this many runs, a message stamped when it is written in each interval. The intervals are of 0.5 to 1.5 times this
    /// length: at equal ones each request that a client paces by a timer would coincide with a message, or none would.
    pub fn drip(&mut self, runs: usize, interval: Duration) {
        self.order(&format!("drip {runs} {}", interval.as_micros()));
    }

    /// Waits until this many streams are subscribed.
    pub fn await_subscribers(&mut self, count: usize) {
        self.order(&format!("await {count}"));
        self.answered("subscribed");
    }

    fn order(&mut self, text: &str) {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{text}").expect("the daemon is there");
    }

    fn answered(&mut self, expected: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the daemon is there");
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.orders = None; // The child ends with its input.
        let _ = self.child.wait();
    }
}

/// State that the daemon's threads share.
struct State {
    dialect: Dialect,
    /// Items of the list by id.
    items: HashMap<String, String>,
    list: Vec<u8>,
    subscribers: Mutex<Vec<UnixStream>>,
}

impl State {
    fn subscribers(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(socket: &Path, dialect: Dialect, containers: usize) {
    let listener = UnixListener::bind(socket).expect("the socket");
    let items: Vec<(String, String)> = (0..containers).map(|n| (fleet::id(n), item(dialect, n))).collect();
    let list =
        format!("[{}]\n", items.iter().map(|(_, item)| item.as_str()).collect::<Vec<_>>().join(",")).into_bytes();
    let state = Arc::new(State { dialect, items: items.into_iter().collect(), list, subscribers: Mutex::default() });
    println!("listening");
    let shared = Arc::clone(&state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&shared);
            thread::spawn(move || answer_all(&state, stream));
        }
    });
    let mut serial = 1_000_000;
    let mut prepared = Vec::new();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        match (verb, numbers.as_slice()) {
            ("prepare", &[runs, per_chunk]) => {
                prepared = chunks(dialect, serial, runs, per_chunk);
                serial += runs;
                println!("prepared");
            }
            ("go", _) => send(&state, &prepared),
            ("drip", &[runs, micros]) => {
                drip(&state, serial, runs, Duration::from_micros(micros as u64));
                serial += runs;
            }
            ("await", &[count]) => {
                while state.subscribers().len() < count {
                    thread::sleep(Duration::from_millis(1));
                }
                println!("subscribed");
            }
            other => panic!("no such order: {other:?}"),
        }
    }
}

fn send(state: &State, bytes: &[u8]) {
    state.subscribers().retain_mut(|stream| stream.write_all(bytes).is_ok());
}

/// Sends one message per interval of 0.5 to 1.5 times this length; a late one does not shorten the next interval.
fn drip(state: &State, serial: usize, runs: usize, interval: Duration) {
    let mut chunk = Vec::new();
    for n in 0..runs * RUN {
        let begin = Instant::now();
        chunk.clear();
        let text = message(state.dialect, serial + n / RUN, n % RUN, nanoseconds_now());
        write_chunk(&mut chunk, &text);
        send(state, &chunk);
        thread::sleep(interval.mul_f64(0.5 + spread(n)).saturating_sub(begin.elapsed()));
    }
}

/// Number `n` of a sequence that fills 0 to 1 evenly, the same in each run: multiples of the golden ratio.
fn spread(n: usize) -> f64 {
    const TURN: u32 = 0x9e37_79b9;
    let turned = u32::try_from(n).unwrap_or(0).wrapping_mul(TURN);
    f64::from(turned) / f64::from(u32::MAX)
}

fn nanoseconds_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    now.as_nanos().try_into().expect("before 2554")
}

/// Eight runs at a time, interleaved, as on a busy machine.
fn chunks(dialect: Dialect, serial: usize, runs: usize, per_chunk: usize) -> Vec<u8> {
    const ABREAST: usize = 8;
    let start = nanoseconds_now();
    let (mut bytes, mut chunk) = (Vec::with_capacity(runs * RUN * 512), String::new());
    let mut sent = 0;
    for first in (0..runs).step_by(ABREAST) {
        for step in 0..RUN {
            for run in first..runs.min(first + ABREAST) {
                chunk += &message(dialect, serial + run, step, start + sent as u64);
                sent += 1;
                if sent % per_chunk == 0 {
                    write_chunk(&mut bytes, &chunk);
                    chunk.clear();
                }
            }
        }
    }
    if !chunk.is_empty() {
        write_chunk(&mut bytes, &chunk);
    }
    bytes
}

fn write_chunk(out: &mut Vec<u8>, text: &str) {
    write!(out, "{:x}\r\n{text}\r\n", text.len()).expect("memory");
}

/// One message of the stream, as recorded from daemons of both versions.
fn message(dialect: Dialect, n: usize, step: usize, nano: u64) -> String {
    let action = ["create", "start", "die", "destroy"][step % RUN];
    let id = fleet::id(n);
    let mut text = String::with_capacity(640);
    text.push('{');
    if dialect == Dialect::V20 {
        let _ = write!(text, r#""status":"{action}","id":"{id}","from":"shop/web:1.27.3","#);
    }
    let _ = write!(text, r#""Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"#);
    let _ = write!(text, r#""com.docker.compose.project":"shop-{}","com.docker.compose.service":"web","#, n / 8);
    if action == "die" {
        text.push_str(if dialect == Dialect::V20 {
            r#""exitCode":"0","#
        } else {
            r#""execDuration":"1","exitCode":"0","#
        });
    }
    let _ = write!(text, r#""image":"shop/web:1.27.3","name":"shop-{}-web-{n}"}}}},"scope":"local","#, n / 8);
    let _ = write!(text, r#""time":{},"timeNano":{nano}}}"#, nano / 1_000_000_000);
    text.push('\n');
    text
}

/// Container `n` in the list: running, with eight labels, two ports, one network.
fn item(dialect: Dialect, n: usize) -> String {
    let (id, project) = (fleet::id(n), n / 8);
    let labels: Vec<String> = fleet::labels(n).iter().map(|(key, value)| format!(r#""{key}":"{value}""#)).collect();
    let image = fleet::id(77);
    let health = if dialect == Dialect::V29 { r#""Health":{"Status":"healthy","FailingStreak":0},"# } else { "" };
    format!(
        concat!(
            r#"{{"Id":"{id}","Names":["/shop-{project}-web-{n}"],"Image":"registry.example.org/shop/web:1.27.3","#,
            r#""ImageID":"sha256:{image}","Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":1750000000,"#,
            r#""Ports":[{{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":{port},"Type":"tcp"}},"#,
            r#"{{"PrivatePort":443,"Type":"tcp"}}],"Labels":{{{labels}}},"State":"running","#,
            r#""Status":"Up 3 hours (healthy)",{health}"HostConfig":{{"NetworkMode":"shop-{project}_default"}},"#,
            r#""NetworkSettings":{{"Networks":{{"shop-{project}_default":{{"IPAMConfig":null,"Links":null,"Aliases":null,"#,
            r#""NetworkID":"{image}","EndpointID":"{id}","Gateway":"172.18.0.1","IPAddress":"172.18.{high}.{low}","#,
            r#""IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"#,
            r#""MacAddress":"02:42:ac:12:00:02","DriverOpts":null}}}}}},"Mounts":[]}}"#
        ),
        id = id,
        project = project,
        n = n,
        image = image,
        port = 20_000 + n % 40_000,
        labels = labels.join(","),
        health = health,
        high = n / 250 % 250,
        low = n % 250,
    )
}

fn answer_all(state: &State, mut stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    while let Some(path) = request(&mut reader) {
        // A request may name the whole address.
        let path = path.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(&path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
        let (status, body) = match path {
            "/events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                if stream.write_all(head.as_bytes()).is_ok() {
                    state.subscribers().push(stream);
                    // The client sends no more; the end of the connection is noticed when it closes.
                    let _ = reader.read(&mut [0]);
                }
                return;
            }
            "/_ping" => ("200 OK", b"OK".to_vec()),
            "/version" => ("200 OK", version(state.dialect).into_bytes()),
            "/containers/json" => ("200 OK", list(state, query)),
            _ => ("404 Not Found", br#"{"message":"page not found"}"#.to_vec()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nApi-Version: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            state.dialect.api(),
            body.len()
        );
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

/// The target of the next request, none of which has a body.
fn request(reader: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        if line == "\r\n" {
            return Some(target);
        }
    }
}

fn version(dialect: Dialect) -> String {
    let (version, api) = (dialect.version(), dialect.api());
    let oldest = if dialect == Dialect::V20 { "1.12" } else { "1.44" };
    format!(
        concat!(
            r#"{{"Platform":{{"Name":"Docker Engine - Community"}},"Components":[{{"Name":"Engine","Version":"{version}","#,
            r#""Details":{{"ApiVersion":"{api}","MinAPIVersion":"{oldest}"}}}}],"Version":"{version}","ApiVersion":"{api}","#,
            r#""MinAPIVersion":"{oldest}","Os":"linux","Arch":"amd64"}}"#
        ),
        version = version,
        api = api,
        oldest = oldest,
    )
}

/// The list, or the items whose ids the filter names: every part of the query with the length of an id is one.
fn list(state: &State, query: &str) -> Vec<u8> {
    if !query.contains("filters") {
        return state.list.clone();
    }
    let wanted: HashSet<&str> = query.split(['%', '"']).map(|word| word.get(2..).unwrap_or("")).collect();
    let found: Vec<&str> =
        state.items.iter().filter(|(id, _)| wanted.contains(id.as_str())).map(|(_, item)| item.as_str()).collect();
    format!("[{}]\n", found.join(",")).into_bytes()
}
