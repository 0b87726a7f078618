//! A small proxy in front of a bus, which decodes the boundaries of D-Bus messages and injects faults.
//!
//! Each client has its own connection to the bus, so that the bus sees as many clients as there are.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use zbus::Message;

/// The faults that are active.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fault; any may be combined")]
pub(crate) struct Broken {
    /// Connections are refused.
    pub(crate) refuse: bool,
    /// Every connection, old or new, stays open and transfers nothing.
    pub(crate) stall: bool,
    /// All stall with the first call of this method.
    pub(crate) stall_at: Option<&'static str>,
    /// Clients are refused at authentication.
    pub(crate) deny: bool,
    /// A subscription ends as soon as it began.
    pub(crate) clean_end: bool,
    /// Subscriptions up to this connection transfer nothing more.
    pub(crate) half_open: Option<u64>,
    /// Delay of the answer to a list.
    pub(crate) slow_list: Option<Duration>,
    /// The connection breaks in place of the answer to a list.
    pub(crate) cut_list: bool,
    /// Inspections of this object have no state.
    pub(crate) bad_item: Option<String>,
}

/// A proxy that runs until it is dropped, which closes its connections too.
pub(crate) struct Bus {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: PathBuf,
    broken: Mutex<Broken>,
    changed: watch::Sender<()>,
    live: Mutex<BTreeMap<u64, Live>>,
    newest: AtomicU64,
    calls: Mutex<BTreeMap<String, usize>>,
}

struct Live {
    kill: CancellationToken,
    subscribed: bool,
    /// Sends messages to the client that the bus did not send.
    say: mpsc::UnboundedSender<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub(crate) fn start(listen: &Path, target: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(listen)?;
        let shared = Arc::new(Shared {
            target: target.to_path_buf(),
            broken: Mutex::default(),
            changed: watch::channel(()).0,
            live: Mutex::default(),
            newest: AtomicU64::new(0),
            calls: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { path: listen.to_path_buf(), shared, accepting })
    }

    /// Injects a fault, until `heal`.
    pub(crate) fn break_with(&self, change: impl FnOnce(&mut Broken, u64)) {
        change(&mut lock(&self.shared.broken), self.shared.newest.load(Ordering::Acquire));
        self.shared.changed.send_replace(());
    }

    /// Ends all faults; connections that missed messages are closed.
    pub(crate) fn heal(&self) {
        let was = std::mem::take(&mut *lock(&self.shared.broken));
        if was.stall {
            self.sever(false);
        }
        if let Some(up_to) = was.half_open {
            for (_, live) in lock(&self.shared.live).range(..=up_to).filter(|(_, live)| live.subscribed) {
                live.kill.cancel();
            }
        }
        self.shared.changed.send_replace(());
    }

    /// Breaks every connection, or those with a subscription.
    pub(crate) fn sever(&self, only_subscribed: bool) {
        for live in lock(&self.shared.live).values().filter(|live| live.subscribed || !only_subscribed) {
            live.kill.cancel();
        }
    }

    /// Sends a message to all subscribed clients.
    pub(crate) fn say(&self, message: &Message) {
        for live in lock(&self.shared.live).values().filter(|live| live.subscribed) {
            let _ = live.say.send(message.data().bytes().to_vec());
        }
    }

    /// Number of calls of each method.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        lock(&self.shared.calls).clone()
    }

    /// Number of open connections.
    pub(crate) fn live(&self) -> usize {
        lock(&self.shared.live).len()
    }

    /// Number of connection attempts.
    pub(crate) fn dials(&self) -> u64 {
        self.shared.newest.load(Ordering::Acquire)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sever(false);
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let id = shared.newest.fetch_add(1, Ordering::AcqRel) + 1;
        if lock(&shared.broken).refuse {
            continue;
        }
        let kill = CancellationToken::new();
        let (say, injected) = mpsc::unbounded_channel();
        lock(&shared.live).insert(id, Live { kill: kill.clone(), subscribed: false, say });
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                () = kill.cancelled() => {}
                // Both ends are closed, after any outcome.
                _ = carry(id, client, injected, &shared) => {}
            }
            lock(&shared.live).remove(&id);
        });
    }
}

/// The calls under way on one connection, by their serials.
type Calls = Arc<Mutex<HashMap<u32, Call>>>;

struct Call {
    member: String,
    path: String,
}

async fn carry(
    id: u64,
    client: UnixStream,
    injected: mpsc::UnboundedReceiver<Vec<u8>>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    shared.passes(id).await;
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    if lock(&shared.broken).deny {
        let mut line = Vec::new();
        while from_client.read_until(b'\n', &mut line).await? > 0 {
            to_client.write_all(b"REJECTED EXTERNAL\r\n").await?;
            line.clear();
        }
        return Ok(());
    }
    // The bus asks the socket for the credentials of its client: they are this process's, as without a proxy.
    let (from_bus, to_bus) = UnixStream::connect(&shared.target).await?.into_split();
    let calls = Calls::default();
    tokio::select! {
        done = up(id, from_client, to_bus, &calls, shared) => done,
        done = down(id, BufReader::new(from_bus), to_client, injected, &calls, shared) => done,
    }
}

async fn up(
    id: u64,
    mut from: BufReader<OwnedReadHalf>,
    mut to: OwnedWriteHalf,
    calls: &Calls,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        to.write_all(&line).await?;
        if line.ends_with(b"BEGIN\r\n") {
            break;
        }
    }
    while let Some(bytes) = read(&mut from).await? {
        shared.passes(id).await;
        if let Some(header) = Header::of(&bytes) {
            let call = Call { member: header.member, path: header.path };
            if call.member == "AddMatch"
                && let Some(live) = lock(&shared.live).get_mut(&id)
            {
                live.subscribed = true;
            }
            *lock(&shared.calls).entry(call.member.clone()).or_default() += 1;
            let stalls = {
                let mut broken = lock(&shared.broken);
                broken.stall |= broken.stall_at == Some(call.member.as_str());
                broken.stall
            };
            lock(calls).insert(header.serial, call);
            if stalls {
                shared.passes(id).await;
            }
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}

async fn down(
    id: u64,
    mut from: BufReader<OwnedReadHalf>,
    mut to: OwnedWriteHalf,
    mut injected: mpsc::UnboundedReceiver<Vec<u8>>,
    calls: &Calls,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    // Lines, up to the first message: the last one is the answer to NEGOTIATE_UNIX_FD, or to AUTH.
    loop {
        let first = from.fill_buf().await?.first().copied();
        match first {
            None => return Ok(()),
            Some(b'l' | b'B') => break,
            Some(_) => {
                let mut line = Vec::new();
                from.read_until(b'\n', &mut line).await?;
                to.write_all(&line).await?;
            }
        }
    }
    loop {
        let next = tokio::select! {
            Some(words) = injected.recv() => {
                to.write_all(&words).await?;
                continue;
            }
            next = read(&mut from) => next?,
        };
        let Some(mut bytes) = next else { return Ok(()) };
        shared.passes(id).await;
        let answered = Header::of(&bytes).and_then(|header| header.answers);
        let call = answered.and_then(|serial| lock(calls).remove(&serial));
        let broken = lock(&shared.broken).clone();
        if let Some(call) = call {
            let lists = call.member.starts_with("ListUnits");
            if lists && broken.cut_list {
                return Ok(());
            }
            if lists && let Some(time) = broken.slow_list {
                tokio::time::sleep(time).await;
            }
            if call.member == "GetAll" && broken.bad_item.is_some_and(|path| path == call.path) {
                replace(&mut bytes, b"ActiveState\0", b"ActiveStatX\0");
            }
            if call.member == "Subscribe" && broken.clean_end {
                to.write_all(&bytes).await?;
                return Ok(());
            }
        }
        to.write_all(&bytes).await?;
    }
}

impl Shared {
    /// Waits for as long as this connection transfers nothing.
    async fn passes(&self, id: u64) {
        let mut changed = self.changed.subscribe();
        loop {
            let held = {
                let broken = lock(&self.broken);
                let subscribed = || lock(&self.live).get(&id).is_some_and(|live| live.subscribed);
                broken.stall || broken.half_open.is_some_and(|up_to| id <= up_to && subscribed())
            };
            if !held {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Reads one message; `None`: the end.
async fn read(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    if from.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let mut bytes = vec![0; 16];
    from.read_exact(&mut bytes).await?;
    let number = |at: usize| {
        let four: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        if bytes[0] == b'l' { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    let rest = (number(12) as usize).next_multiple_of(8) + number(4) as usize;
    bytes.resize(16 + rest, 0);
    from.read_exact(&mut bytes[16..]).await?;
    Ok(Some(bytes))
}

/// The decoded header fields of a message.
#[derive(Default)]
struct Header {
    serial: u32,
    path: String,
    member: String,
    answers: Option<u32>,
}

impl Header {
    fn of(bytes: &[u8]) -> Option<Self> {
        let little = *bytes.first()? == b'l';
        let number = |at: usize| {
            let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
        };
        let mut header = Self { serial: number(8)?, ..Self::default() };
        let end = 16 + number(12)? as usize;
        let mut at = 16_usize;
        while at < end {
            at = at.next_multiple_of(8);
            let (code, kind) = (*bytes.get(at)?, *bytes.get(at + 2)?);
            at += 4; // the code, and a signature of one letter
            match kind {
                b's' | b'o' => {
                    at = at.next_multiple_of(4);
                    let length = number(at)? as usize;
                    let text = String::from_utf8_lossy(bytes.get(at + 4..at + 4 + length)?).into_owned();
                    match code {
                        1 => header.path = text,
                        3 => header.member = text,
                        _ => {}
                    }
                    at += 4 + length + 1;
                }
                b'u' => {
                    at = at.next_multiple_of(4);
                    if code == 5 {
                        header.answers = number(at);
                    }
                    at += 4;
                }
                b'g' => at += 1 + usize::from(*bytes.get(at)?) + 1,
                _ => return None,
            }
        }
        Some(header)
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}
