//! One writer, many watchers: a watcher that checks its events, and three hand-written fan-outs.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
};

use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc, watch},
};

use crate::{Clock, Gate, Round};

/// Events that the bare ring and the broadcast keep.
pub const RING: usize = 4_096;
/// Events that a watcher takes at a time.
pub const TAKE: usize = 256;

/// An event with a number, by which a lost one is noticed.
pub trait Numbered: Clone + Send + 'static {
    /// The event's number; the next event has the next one.
    fn number(&self) -> u64;
}

/// Checks that no event is lost or out of order, and passes the gate at the end of a burst.
#[derive(Clone, Debug)]
pub struct Watcher {
    gate: Arc<Gate>,
    burst: usize,
    seen: usize,
    last: Option<u64>,
    may_lose: bool,
}

impl Watcher {
    /// A watcher that passes the gate after each `every` events.
    pub fn new(gate: &Arc<Gate>, burst: usize) -> Self {
        Self { gate: Arc::clone(gate), burst, seen: 0, last: None, may_lose: false }
    }

    /// A watcher that may lose events, because the writer does not wait for it; none may be out of order.
    pub fn losing() -> Self {
        Self { may_lose: true, ..Self::new(&Arc::default(), usize::MAX) }
    }

    /// Takes the next event.
    pub fn takes(&mut self, event: &impl Numbered) {
        let number = event.number();
        if let Some(last) = self.last.replace(number) {
            assert!(number == last + 1 || number == 0 || self.may_lose && number > last, "{number} after {last}");
        }
        self.seen += 1;
        if self.seen == self.burst {
            self.seen = 0;
            self.gate.pass();
        }
    }

    /// `true` if it may lose events.
    pub fn may_lose(&self) -> bool {
        self.may_lose
    }

    /// Passes the gate once the watcher is ready for the first burst.
    pub fn is_ready(&self) {
        self.gate.pass();
    }
}

/// Runs one burst, from its first event until every watcher has all of it.
pub fn burst(runtime: &Runtime, gate: &Gate, watchers: usize, events: usize, send: impl FnOnce()) -> Round {
    gate.arm(watchers);
    let clock = Clock::start();
    send();
    runtime.block_on(gate.wait());
    clock.stop((watchers * events) as u64)
}

/// A ring behind a lock, with a channel for its head: no filter, no resync, no end.
pub struct Ringed<E> {
    ring: Arc<Mutex<Ring<E>>>,
    head: watch::Sender<usize>,
}

struct Ring<E> {
    events: VecDeque<E>,
    /// Number of the next event.
    head: usize,
}

impl<E: Numbered> Ringed<E> {
    /// Starts this many watchers.
    pub fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        let ring = Arc::new(Mutex::new(Ring { events: VecDeque::new(), head: 0 }));
        let (head, heads) = watch::channel(0);
        for _ in 0..watchers {
            runtime.spawn(watch_ring(Arc::clone(&ring), heads.clone(), watcher.clone()));
        }
        Self { ring, head }
    }

    /// Appends these events together.
    pub fn push(&self, events: impl IntoIterator<Item = E>) {
        let mut ring = self.ring.lock().expect("no panic");
        for event in events {
            if ring.events.len() >= RING {
                ring.events.pop_front();
            }
            ring.events.push_back(event);
            ring.head += 1;
        }
        let head = ring.head;
        drop(ring);
        self.head.send_replace(head);
    }
}

impl<E> fmt::Debug for Ringed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ringed").finish_non_exhaustive()
    }
}

async fn watch_ring<E: Numbered>(ring: Arc<Mutex<Ring<E>>>, mut heads: watch::Receiver<usize>, mut watcher: Watcher) {
    let mut next = 0;
    let mut taken: Vec<E> = Vec::with_capacity(TAKE);
    loop {
        {
            let ring = ring.lock().expect("no panic");
            let behind = ring.head - next;
            assert!(behind <= ring.events.len() || watcher.may_lose, "a watcher lagged");
            let behind = behind.min(ring.events.len());
            next = ring.head - behind;
            let at = ring.events.len() - behind;
            taken.extend(ring.events.range(at..at + behind.min(TAKE)).cloned());
        }
        if taken.is_empty() {
            if heads.wait_for(|head| *head > next).await.is_err() {
                return;
            }
            continue;
        }
        next += taken.len();
        taken.drain(..).for_each(|event| watcher.takes(&event));
    }
}

/// A channel of `tokio::sync::broadcast`.
#[derive(Debug)]
pub struct Broadcast<E>(broadcast::Sender<E>);

impl<E: Numbered + Sync> Broadcast<E> {
    /// Starts this many watchers.
    pub fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        let (sender, _) = broadcast::channel::<E>(RING);
        for _ in 0..watchers {
            let (mut receiver, mut watcher) = (sender.subscribe(), watcher.clone());
            runtime.spawn(async move {
                loop {
                    match receiver.recv().await {
                        Ok(event) => watcher.takes(&event),
                        Err(broadcast::error::RecvError::Closed) => return,
                        Err(lagged) => assert!(watcher.may_lose, "{lagged}"),
                    }
                }
            });
        }
        Self(sender)
    }

    /// Sends one event.
    pub fn push(&self, event: E) {
        // An error only means that there are no watchers.
        let _ = self.0.send(event);
    }
}

/// A channel for each watcher.
#[derive(Debug)]
pub struct Channels<E>(Vec<mpsc::Sender<E>>);

impl<E: Numbered> Channels<E> {
    /// Starts this many watchers.
    pub fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        let senders = (0..watchers).map(|_| {
            let (sender, mut receiver) = mpsc::channel::<E>(RING);
            let mut watcher = watcher.clone();
            runtime.spawn(async move {
                let mut events = Vec::with_capacity(TAKE);
                while receiver.recv_many(&mut events, TAKE).await > 0 {
                    events.drain(..).for_each(|event| watcher.takes(&event));
                }
            });
            sender
        });
        Self(senders.collect())
    }

    /// Sends one event.
    pub fn push(&self, event: &E) {
        for sender in &self.0 {
            assert!(sender.try_send(event.clone()).is_ok(), "a watcher lagged");
        }
    }
}
