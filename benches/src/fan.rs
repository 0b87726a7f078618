//! One writer, many watchers: a watcher that checks what it gets, and what one would write by hand to reach them all.

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

/// An event of which the number says whether one was lost before it.
pub trait Numbered: Clone + Send + 'static {
    /// Its number.
    fn number(&self) -> u64;
}

/// Checks that nothing is lost or out of order, and says when a burst is complete.
#[derive(Clone, Debug)]
pub struct Watcher {
    gate: Arc<Gate>,
    burst: usize,
    seen: usize,
    last: Option<u64>,
    may_lose: bool,
}

impl Watcher {
    /// One that passes the gate after each so many events.
    pub fn new(gate: &Arc<Gate>, burst: usize) -> Self {
        Self { gate: Arc::clone(gate), burst, seen: 0, last: None, may_lose: false }
    }

    /// One that may lose events, because nobody waits for it; none may be out of order.
    pub fn losing() -> Self {
        Self { may_lose: true, ..Self::new(&Arc::default(), usize::MAX) }
    }

    /// One more.
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

    /// Whether it may lose events.
    pub fn may_lose(&self) -> bool {
        self.may_lose
    }

    /// It is where it has to be before the first burst.
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

/// A ring behind a lock, and a number that says how far it is: no filter, no bracket, no end.
pub struct Ringed<E> {
    ring: Arc<Mutex<Ring<E>>>,
    head: watch::Sender<usize>,
}

struct Ring<E> {
    events: VecDeque<E>,
    /// The number of the next one.
    head: usize,
}

impl<E: Numbered> Ringed<E> {
    /// With so many watchers.
    pub fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        let ring = Arc::new(Mutex::new(Ring { events: VecDeque::new(), head: 0 }));
        let (head, told) = watch::channel(0);
        for _ in 0..watchers {
            runtime.spawn(watch_ring(Arc::clone(&ring), told.clone(), watcher.clone()));
        }
        Self { ring, head }
    }

    /// Shows these at once.
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

async fn watch_ring<E: Numbered>(ring: Arc<Mutex<Ring<E>>>, mut told: watch::Receiver<usize>, mut watcher: Watcher) {
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
            if told.wait_for(|head| *head > next).await.is_err() {
                return;
            }
            continue;
        }
        next += taken.len();
        taken.drain(..).for_each(|event| watcher.takes(&event));
    }
}

/// `tokio::sync::broadcast`.
#[derive(Debug)]
pub struct Broadcast<E>(broadcast::Sender<E>);

impl<E: Numbered + Sync> Broadcast<E> {
    /// With so many watchers.
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

    /// Shows one.
    pub fn push(&self, event: E) {
        // Without watchers nobody hears of it.
        let _ = self.0.send(event);
    }
}

/// A channel for each watcher.
#[derive(Debug)]
pub struct Channels<E>(Vec<mpsc::Sender<E>>);

impl<E: Numbered> Channels<E> {
    /// With so many watchers.
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

    /// Shows one.
    pub fn push(&self, event: &E) {
        for sender in &self.0 {
            assert!(sender.try_send(event.clone()).is_ok(), "a watcher lagged");
        }
    }
}
