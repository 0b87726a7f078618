//! A connection to each member, made when it is needed, and the choice among them: [`Client`].

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Status, transport::Endpoint};

use crate::{
    call::Call,
    config::Config,
    connection::Connection,
    error::{Cure, Fault, Place},
    wire::{KeyValue, RangeResponse, ResponseOp, TxnRequest, TxnResponse},
};

/// How much may be under way to us on one stream, and on one connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// etcd closes connections that are probed more often than every 5 s, and while nothing is asked.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// All members, and which of them is asked.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    members: Vec<Member>,
    current: AtomicUsize,
    user: Option<(String, runtide_core::manager::Secret)>,
    attempt: Duration,
}

#[derive(Debug)]
struct Member {
    url: String,
    endpoint: Endpoint,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    link: Option<Link>,
    serial: u64,
}

/// A connection, and its number among those that were made to the member.
#[derive(Clone)]
struct Link {
    connection: Connection,
    serial: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// What a transaction answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of the store, when it was answered; of the write, if there was one.
    pub(crate) revision: u64,
    /// Whether the comparisons held.
    pub(crate) held: bool,
    parts: std::vec::IntoIter<ResponseOp>,
}

impl Answer {
    fn new(response: TxnResponse) -> Self {
        let revision = response.header.map_or(0, |header| positive(header.revision));
        Self { revision, held: response.succeeded, parts: response.responses.into_iter() }
    }

    /// What the next operation of the transaction read; nothing for one that writes.
    pub(crate) fn range(&mut self) -> RangeResponse {
        self.parts.next().and_then(|part| part.range).unwrap_or_default()
    }

    /// The one key that the next operation read.
    pub(crate) fn one(&mut self) -> Option<KeyValue> {
        self.range().kvs.into_iter().next()
    }
}

/// Revisions are never negative on the wire.
pub(crate) fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Client {
    pub(crate) fn new(config: &Config, name: String) -> Result<Self> {
        let tls = config.tls_settings()?;
        let mut members = Vec::new();
        for url in config.urls()? {
            let bad = |error: tonic::transport::Error| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "etcd.config",
                    "this endpoint, or what TLS is to use, cannot be used",
                )
                .with_context("endpoint", &url)
                .with_source(error)
            };
            let mut endpoint = Endpoint::from_shared(url.clone()).map_err(bad)?;
            if url.starts_with("https://") {
                endpoint = endpoint.tls_config(tls.clone()).map_err(bad)?;
            }
            let endpoint = endpoint
                .connect_timeout(config.connect_timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .http2_keep_alive_interval(PROBE_EVERY)
                .keep_alive_timeout(config.connect_timeout)
                .keep_alive_while_idle(false);
            members.push(Member { url, endpoint, slot: Mutex::default() });
        }
        // One that does not answer must leave time for the others.
        let attempt = if members.len() > 1 { config.request_timeout / 3 } else { config.request_timeout };
        Ok(Self { name, members, current: AtomicUsize::new(0), user: config.user.clone(), attempt })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn member(&self, at: usize) -> Option<&Member> {
        self.members.get(at.checked_rem(self.members.len())?)
    }

    /// Which member is asked next.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Away from a member that failed, unless somebody else has gone already.
    fn leave(&self, at: usize) {
        let _ = self.current.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The connection to a member; made, and authenticated, if there is none.
    async fn link(&self, at: usize, operation: &'static str, limit: Duration) -> Result<Link, Fault> {
        let Some(member) = self.member(at) else {
            let error = Error::new(ErrorKind::InvalidInput, operation, "there are no endpoints");
            return Err(Fault { error, maybe: false, cure: Cure::None });
        };
        let place = Place { operation, store: &self.name, endpoint: &member.url };
        let made = async {
            let mut slot = member.slot.lock().await;
            if let Some(link) = &slot.link {
                return Ok(link.clone());
            }
            let connection = Connection::open(member.endpoint.connect_lazy(), self.user.clone()).await?;
            slot.serial += 1;
            let link = Link { connection, serial: slot.serial };
            slot.link = Some(link.clone());
            Ok(link)
        };
        match timeout(limit, made).await {
            Ok(Ok(link)) => Ok(link),
            // Nothing but who we are was sent.
            Ok(Err(status)) => Err(Fault { maybe: false, ..place.fault(status) }),
            Err(_) => Err(Fault { maybe: false, ..place.silent(limit) }),
        }
    }

    /// A connection that failed is not used again.
    async fn forget(&self, at: usize, serial: u64) {
        let Some(member) = self.member(at) else { return };
        let mut slot = member.slot.lock().await;
        if slot.link.as_ref().is_some_and(|link| link.serial == serial) {
            slot.link = None;
        }
    }

    /// One attempt at the current member. On failure the next attempt is at the next one.
    pub(crate) async fn attempt<T, F>(
        &self,
        operation: &'static str,
        left: Duration,
        ask: impl FnOnce(Connection) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let at = self.current();
        let limit = self.attempt.min(left);
        let (serial, outcome) = match self.link(at, operation, limit).await {
            Ok(Link { connection, serial }) => {
                let endpoint = self.member(at).map_or("", |member| member.url.as_str());
                let place = Place { operation, store: &self.name, endpoint };
                let asked = timeout(limit, ask(connection)).await;
                (serial, asked.map_or_else(|_| Err(place.silent(limit)), |said| said.map_err(|e| place.fault(e))))
            }
            Err(fault) => (0, Err(fault)),
        };
        if let Err(fault) = &outcome {
            tracing::debug!(store = %self.name, operation, error = %fault.error, "an attempt failed");
            match fault.cure {
                Cure::Elsewhere => {
                    self.forget(at, serial).await;
                    self.leave(at);
                }
                Cure::Authenticate => self.forget(at, serial).await,
                Cure::None | Cure::Less | Cure::Compacted | Cure::Future => {}
            }
        }
        outcome
    }

    /// Attempts until one is answered, or the time is over. What is asked must bear being asked twice.
    pub(crate) async fn ask<T, F>(&self, call: &mut Call, mut ask: impl FnMut(Connection) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut authenticated = false;
        loop {
            let fault = match self.attempt(call.operation, call.left(), &mut ask).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            call.failed(&fault);
            let Fault { error, maybe, cure } = fault;
            let again = match cure {
                Cure::Elsewhere => true,
                Cure::Authenticate => !std::mem::replace(&mut authenticated, true),
                Cure::None | Cure::Less | Cure::Compacted | Cure::Future => false,
            };
            if !again {
                return Err(Fault { error: call.gave_up(error), maybe, cure });
            }
            if let Err(error) = call.pause(error).await {
                return Err(Fault { error, maybe, cure });
            }
        }
    }

    pub(crate) async fn txn(&self, call: &mut Call, txn: TxnRequest) -> Result<Answer> {
        self.try_txn(call, txn).await.map_err(|fault| fault.error)
    }

    /// The same, for callers that can do something about a fault.
    pub(crate) async fn try_txn(&self, call: &mut Call, txn: TxnRequest) -> Result<Answer, Fault> {
        let txn = Arc::new(txn);
        self.ask(call, |connection| {
            let txn = Arc::clone(&txn);
            async move { connection.txn(&txn).await }
        })
        .await
        .map(Answer::new)
    }
}
