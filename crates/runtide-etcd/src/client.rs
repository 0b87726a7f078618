//! A connection to each member, made when it is needed, and the choice among them: [`Client`].

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result, Retry, backend::CallSite};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Status, transport::Endpoint};

use crate::{
    call::{Call, telling},
    config::Config,
    connection::Connection,
    error::{Fault, Faults, Recovery},
    wire::{KeyValue, RangeResponse, ResponseOp, TxnRequest, TxnResponse},
};

/// Bytes that a member may send ahead of what is read, on one stream and on one connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Interval of HTTP/2 pings. etcd closes connections that are pinged more often than every 5 s, or while no call is open.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// All members, and the one that calls go to.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    members: Vec<Member>,
    current: AtomicUsize,
    /// Highest revision in an answer.
    seen: AtomicU64,
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

/// A connection, with its number among those that were made to the member.
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

/// Response to a transaction, read operation by operation.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Revision of the write, if there was one; else of the store at that time.
    pub(crate) revision: u64,
    /// All comparisons held.
    pub(crate) succeeded: bool,
    parts: std::vec::IntoIter<ResponseOp>,
}

impl Answer {
    fn new(response: TxnResponse) -> Self {
        let revision = response.header.map_or(0, |header| positive(header.revision));
        Self { revision, succeeded: response.succeeded, parts: response.responses.into_iter() }
    }

    /// Keys that the next operation read; none for one that writes.
    pub(crate) fn range(&mut self) -> RangeResponse {
        self.parts.next().and_then(|part| part.range).unwrap_or_default()
    }

    /// The single key that the next operation read.
    pub(crate) fn one(&mut self) -> Option<KeyValue> {
        self.range().kvs.into_iter().next()
    }
}

/// A number of etcd's as unsigned: revisions, versions and counts are never negative.
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
        // A member that does not respond must leave time for the others.
        let attempt = if members.len() > 1 { config.request_timeout / 3 } else { config.request_timeout };
        Ok(Self {
            name,
            members,
            current: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            user: config.user.clone(),
            attempt,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Pause before another attempt after this error, if no member listens: each of several has an attempt in its interval.
    /// `None`: a member was reached, and the pause must grow.
    pub(crate) fn poll_pause(&self, error: &Error) -> Option<Duration> {
        let Retry::Poll(interval) = error.retry() else { return None };
        Some(interval / u32::try_from(self.members.len()).unwrap_or(1).max(1))
    }

    /// A revision that the cluster has reached: the highest one in an answer; 0 before the first.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn member(&self, at: usize) -> Option<&Member> {
        self.members.get(at.checked_rem(self.members.len())?)
    }

    /// Number of the member that calls go to; it counts on past the last one.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Moves on from a member that failed, unless another call has done so.
    fn leave(&self, at: usize) {
        let _ = self.current.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The connection to a member; made and authenticated, if there is none.
    async fn link(&self, at: usize, operation: &'static str, limit: Duration) -> Result<Link, Fault> {
        let Some(member) = self.member(at) else {
            let error = Error::new(ErrorKind::InvalidInput, operation, "there are no endpoints");
            return Err(Fault { error, uncertain: false, recovery: Recovery::None });
        };
        let site = CallSite::of_store(operation, &self.name).with_endpoint(&member.url);
        let made = async {
            let mut slot = member.slot.lock().await;
            if let Some(link) = &slot.link {
                return Ok(link.clone());
            }
            // Not when the first request is sent: a call that ends here has sent nothing.
            let channel = member.endpoint.connect().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let connection = Connection::open(channel, self.user.clone()).await?;
            slot.serial += 1;
            let link = Link { connection, serial: slot.serial };
            slot.link = Some(link.clone());
            Ok(link)
        };
        match timeout(limit, made).await {
            Ok(Ok(link)) => Ok(link),
            // Only credentials were sent, no request.
            Ok(Err(status)) => Err(Fault { uncertain: false, ..site.fault(status) }),
            Err(_) => Err(Fault { uncertain: false, ..site.timed_out(limit) }),
        }
    }

    /// Drops a connection that failed.
    async fn forget(&self, at: usize, serial: u64) {
        let Some(member) = self.member(at) else { return };
        let mut slot = member.slot.lock().await;
        if slot.link.as_ref().is_some_and(|link| link.serial == serial) {
            slot.link = None;
        }
    }

    /// One attempt at the current member. If the member failed, the next attempt goes to the next one.
    pub(crate) async fn attempt<T, F>(
        &self,
        operation: &'static str,
        left: Duration,
        send: impl FnOnce(Connection) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let at = self.current();
        let limit = self.attempt.min(left);
        let (serial, outcome) = match self.link(at, operation, limit).await {
            Ok(Link { connection, serial }) => {
                let endpoint = self.member(at).map_or("", |member| member.url.as_str());
                let site = CallSite::of_store(operation, &self.name).with_endpoint(endpoint);
                let outcome = match timeout(limit, send(connection)).await {
                    Ok(response) => response.map_err(|status| site.fault(status)),
                    Err(_) => Err(site.timed_out(limit)),
                };
                (serial, outcome)
            }
            Err(fault) => (0, Err(fault)),
        };
        if let Err(fault) = &outcome {
            tracing::debug!(store = %self.name, operation, error = %fault.error, "an attempt failed");
            match fault.recovery {
                Recovery::NextMember => {
                    self.forget(at, serial).await;
                    self.leave(at);
                }
                Recovery::Authenticate => self.forget(at, serial).await,
                Recovery::None
                | Recovery::Alarm
                | Recovery::SmallerPage
                | Recovery::Compacted
                | Recovery::FutureRevision => {}
            }
        }
        outcome
    }

    /// Attempts until one succeeds, or the deadline passes. The request must be safe to send twice, unless the call is to be made
    /// [`once`](Call::once): then an attempt that may have had its effect is the last.
    pub(crate) async fn with_retries<T, F>(
        &self,
        call: &mut Call,
        mut send: impl FnMut(Connection) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut authenticated = false;
        let mut earlier = None;
        loop {
            let left = call.left();
            let fault = match self.attempt(call.operation, left, &mut send).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            call.failed(&fault);
            let Fault { error, uncertain, recovery } = fault;
            let error = telling(earlier.take(), error, left < self.attempt / 2);
            let again = match recovery {
                _ if call.once && call.uncertain => false,
                Recovery::NextMember => true,
                Recovery::Authenticate => !std::mem::replace(&mut authenticated, true),
                Recovery::None
                | Recovery::Alarm
                | Recovery::SmallerPage
                | Recovery::Compacted
                | Recovery::FutureRevision => false,
            };
            if !again {
                return Err(Fault { error: call.gave_up(error), uncertain, recovery });
            }
            let poll = self.poll_pause(&error);
            match call.pause(poll, error).await {
                Ok(error) => earlier = Some(error),
                Err(error) => return Err(Fault { error, uncertain, recovery }),
            }
        }
    }

    pub(crate) async fn txn(&self, call: &mut Call, txn: TxnRequest) -> Result<Answer> {
        self.try_txn(call, txn).await.map_err(|fault| fault.error)
    }

    /// [`txn`](Self::txn), for callers that can recover from a fault.
    pub(crate) async fn try_txn(&self, call: &mut Call, txn: TxnRequest) -> Result<Answer, Fault> {
        let txn = Arc::new(txn);
        let response = self.with_retries(call, |connection| {
            let txn = Arc::clone(&txn);
            async move { connection.txn(&txn).await }
        });
        let answer = Answer::new(response.await?);
        self.seen.fetch_max(answer.revision, Ordering::Relaxed);
        Ok(answer)
    }
}
