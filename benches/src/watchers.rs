//! Two ways to follow a daemon's events: Runtide's watch, and bollard's bare stream. Both check that every message arrives
//! in order.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bollard::{API_DEFAULT_VERSION, Docker, models::EventMessage};
use futures_core::Stream;
use runtide_core::{EventStream, RuntimeBackend, RuntimeEventKind, WatchOptions};
use runtide_docker::{Config, DockerBackend, Endpoint};
use tokio::runtime::Runtime;

/// Events that the consumer takes at a time.
const TAKE: usize = 256;

/// Deadline of a message; longer than any.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runtide on this socket. The daemon may be silent for as long as the peers take their turns.
pub fn runtide(socket: &Path) -> DockerBackend {
    let config = Config::default().with_endpoint(Endpoint::unix(socket)).with_max_silence(Duration::from_secs(3_600));
    DockerBackend::new(config).expect("a configuration")
}

/// bollard on this socket, as its own documentation connects it.
pub fn bollard(socket: &Path) -> Docker {
    let socket = socket.to_str().expect("a path in UTF-8");
    Docker::connect_with_unix(socket, 120, API_DEFAULT_VERSION).expect("a client")
}

/// Runtide's watch: normalized events, in order, after a resync.
pub struct Watch {
    _backend: DockerBackend,
    stream: EventStream,
    last: SystemTime,
}

impl Watch {
    /// Watches, up to the end of the first resync.
    pub fn open(runtime: &Runtime, socket: &Path) -> Self {
        let backend = runtide(socket);
        let stream = runtime.block_on(async {
            let mut stream = backend.watch(WatchOptions::default()).await.expect("a watch");
            loop {
                let event = patient(stream.next()).await.expect("an event").expect("an event");
                if matches!(event.kind, RuntimeEventKind::ResyncEnd(_)) {
                    break;
                }
            }
            stream
        });
        Self { _backend: backend, stream, last: SystemTime::UNIX_EPOCH }
    }

    /// Takes this many reported facts; `seen` gets the daemon's time of each.
    pub async fn take(&mut self, count: usize, mut seen: impl FnMut(SystemTime)) {
        let (mut taken, mut events) = (0, Vec::with_capacity(TAKE));
        while taken < count {
            patient(self.stream.next_batch(&mut events, TAKE)).await.expect("an event").expect("an event");
            for event in events.drain(..) {
                assert!(event.instance().is_some(), "{:?} though nothing went wrong", event.kind);
                // An event of a listing has no token: the daemon did not report it.
                let Some(at) = event.native_at.filter(|_| event.token.is_some()) else { continue };
                assert!(at > self.last, "out of order");
                self.last = at;
                taken += 1;
                seen(at);
            }
        }
        assert_eq!(taken, count);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>>>>;

/// bollard's stream: messages in the daemon's form, without a list and without a check for gaps.
pub struct Bare {
    stream: Messages,
    last: i64,
}

impl Bare {
    /// Subscribes at the first poll.
    pub fn new(socket: &Path) -> Self {
        Self { stream: Box::pin(bollard(socket).events(None)), last: 0 }
    }

    /// Sends the request, which the stream does only when it is polled.
    pub fn open(&mut self, runtime: &Runtime) {
        let first = async {
            let waited = tokio::time::timeout(Duration::from_millis(200), self.next()).await;
            assert!(waited.is_err(), "no event was reported yet");
        };
        runtime.block_on(first);
    }

    /// Takes this many messages.
    pub async fn take(&mut self, count: usize, mut seen: impl FnMut(SystemTime)) {
        for _ in 0..count {
            let message = patient(self.next()).await.expect("a message").expect("a message");
            let at = message.time_nano.expect("a time");
            assert!(at > self.last, "out of order");
            self.last = at;
            seen(SystemTime::UNIX_EPOCH + Duration::from_nanos(at.unsigned_abs()));
        }
    }

    fn next(&mut self) -> impl Future<Output = Option<Result<EventMessage, bollard::errors::Error>>> {
        std::future::poll_fn(|cx| self.stream.as_mut().poll_next(cx))
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

/// A deadline that costs nothing if the answer is ready.
pub(crate) async fn patient<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let at_hand = std::future::poll_fn(|cx: &mut Context<'_>| Poll::Ready(work.as_mut().poll(cx))).await;
    match at_hand {
        Poll::Ready(done) => done,
        Poll::Pending => tokio::time::timeout(TIMEOUT, work).await.expect("a message in time"),
    }
}
