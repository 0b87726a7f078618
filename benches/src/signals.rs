//! Two ways to follow a manager's signals: Runtide's watch, and zbus alone. Both check that no signal is missing.

use std::{collections::HashMap, future::poll_fn, num::NonZeroUsize, pin::Pin, time::Duration};

use futures_core::Stream;
use runtide_core::{EventStream, RuntimeBackend, RuntimeEventKind, WatchOptions};
use runtide_systemd::{Config, Selection, SystemdBackend};
use tokio::runtime::Runtime;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant, connection::Builder, message::Type};

use crate::{manager::RUN, watchers::patient};

/// Events that the consumer takes at a time.
const TAKE: usize = 256;

/// Messages buffered for the consumer, as many as Runtide buffers.
const QUEUE: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("not zero");

const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Runtide's watch: normalized events, in order, after a resync.
pub struct Watched {
    _backend: SystemdBackend,
    stream: EventStream,
}

impl Watched {
    /// Watches, up to the end of the first resync. The manager may be silent for as long as the peers take their turns.
    pub fn open(runtime: &Runtime, address: &str) -> Self {
        let config = Config::system()
            .with_address(address)
            .with_root(None)
            .with_selection(Selection::all())
            .with_max_silence(Duration::from_secs(3_600));
        let backend = SystemdBackend::new(config).expect("a configuration");
        let stream = runtime.block_on(async {
            let mut stream = backend.watch(WatchOptions::default()).await.expect("a watch");
            while !matches!(
                patient(stream.next()).await.expect("an event").expect("an event").kind,
                RuntimeEventKind::ResyncEnd(_)
            ) {}
            stream
        });
        Self { _backend: backend, stream }
    }

    /// Takes the events of this many runs: of each a start, an end, and the removal.
    pub async fn take(&mut self, runs: usize) {
        let (mut begun, mut ended, mut gone, mut events) = (0, 0, 0, Vec::with_capacity(TAKE));
        while gone < runs {
            patient(self.stream.next_batch(&mut events, TAKE)).await.expect("an event").expect("an event");
            for event in events.drain(..) {
                match &event.kind {
                    RuntimeEventKind::Started(_) => begun += 1,
                    RuntimeEventKind::Stopped(_) => ended += 1,
                    RuntimeEventKind::Removed(_) => gone += 1,
                    RuntimeEventKind::Updated { .. } => {}
                    other => panic!("{other:?} though nothing went wrong"),
                }
            }
        }
        assert_eq!((begun, ended, gone), (runs, runs, runs));
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

/// Work on each signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Only its header is read.
    Header,
    /// Its body is decoded into owned values, as in zbus's proxies.
    Body,
}

/// zbus's stream: each signal as it arrived, without a list or any merging.
pub struct Bare {
    messages: MessageStream,
    _connection: Connection,
}

impl Bare {
    /// Opens the subscription.
    pub fn open(runtime: &Runtime, address: &str) -> Self {
        runtime.block_on(async {
            let connection = Builder::address(address).max_queued(QUEUE).build().await.expect("a connection");
            let messages = MessageStream::from(connection.clone());
            let rule = ("type='signal',sender='org.freedesktop.systemd1'",);
            let added = connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &rule);
            added.await.expect("an answer");
            let subscribed = connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "Subscribe", &());
            subscribed.await.expect("an answer");
            Self { messages, _connection: connection }
        })
    }

    /// Takes the signals of this many runs.
    pub async fn take(&mut self, runs: usize, read: Read) {
        let (mut taken, mut changes) = (0, 0);
        while taken < runs * RUN {
            let next = poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx));
            let message = patient(next).await.expect("a message").expect("a message");
            if message.message_type() != Type::Signal {
                continue; // answers to the subscription's calls
            }
            taken += 1;
            changes += match read {
                Read::Header => usize::from(is_change(&message)),
                Read::Body => usize::from(values(&message)),
            };
        }
        assert_eq!(changes, runs * (RUN - 4));
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

fn is_change(message: &Message) -> bool {
    let header = message.header();
    let member = header.member().expect("a signal's name");
    header.path().is_some() && member.as_str() == "PropertiesChanged"
}

/// `true` for a signal of changed properties, which are read.
fn values(message: &Message) -> bool {
    let header = message.header();
    let body = message.body();
    match header.member().expect("a signal's name").as_str() {
        "PropertiesChanged" => {
            type Changes = (String, HashMap<String, OwnedVariant>, Vec<String>);
            let (_, values, _): Changes = body.deserialize().expect("changes");
            assert!(values.len() > 1);
            return true;
        }
        "UnitNew" | "UnitRemoved" => {
            let _: (String, OwnedObjectPath) = body.deserialize().expect("a unit");
        }
        "JobNew" => {
            let _: (u32, OwnedObjectPath, String) = body.deserialize().expect("a job");
        }
        "JobRemoved" => {
            let _: (u32, OwnedObjectPath, String, String) = body.deserialize().expect("a job");
        }
        other => panic!("{other} was not recorded"),
    }
    false
}
