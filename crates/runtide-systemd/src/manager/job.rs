//! Jobs: a verb's request to systemd is queued, and its result comes as a signal.
//!
//! Each verb has its own connection, on which the signal is subscribed to before the job is queued: none can be missed.
//! It is closed when the verb ends, so that a dropped verb leaves nothing behind.

use std::{num::NonZeroUsize, time::Duration};

use futures_util::StreamExt;
use runtide_core::{Error, ErrorKind, Result};
use serde::Serialize;
use zbus::{Connection, DynamicType, MatchRule, MessageStream, OwnedObjectPath, message::Type};

use super::{changes::Changes, unit::Call};
use crate::{
    client::{BUS, BUS_PATH, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
    subscription::{is_from, signals, subscribe},
};

/// Number of queued messages: more than the signals of one unit's jobs between two polls.
pub(super) const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Interval of polling for the job, in case its signal was lost.
const POLL_AFTER: Duration = Duration::from_secs(1);

/// A connection that receives the end of one unit's jobs.
pub(super) struct Jobs<'a> {
    call: Call<'a>,
    connection: Connection,
    removed: MessageStream,
    owner: MessageStream,
    systemd: String,
}

/// Result of a job, as systemd names it; `None`: its end was not observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End(pub(super) Option<String>);

impl End {
    pub(super) fn is(&self, word: &str) -> bool {
        self.0.as_deref() == Some(word)
    }

    /// True if the job was reported as done.
    pub(super) fn is_done(&self) -> bool {
        self.is("done")
    }

    /// True if the job may have been done: the unit's state decides.
    pub(super) fn may_be_done(&self) -> bool {
        self.0.as_deref().is_none_or(|word| matches!(word, "done" | "skipped"))
    }
}

/// A stream of changes of the owner of systemd's name: another process, or the same one again after its re-execution.
pub(super) async fn owner_changes(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS)
        .path(BUS_PATH)
        .interface(BUS)
        .member("NameOwnerChanged")
        .arg(0, SYSTEMD)
        .build()?;
    MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await
}

/// Opens a connection for one verb that receives these signals.
pub(super) async fn listen<T>(
    call: Call<'_>,
    asked: impl AsyncFnOnce(&Connection) -> zbus::Result<T>,
) -> Result<(Connection, String, T)> {
    subscribe(call.client, call.operation, QUEUE, asked).await
}

impl<'a> Jobs<'a> {
    /// Opens a connection for the jobs of `unit`, which may be another than the call's.
    pub(super) async fn open(call: Call<'a>, unit: &str) -> Result<Self> {
        let (connection, systemd, (removed, owner)) = listen(call, async |connection: &Connection| {
            let rule = signals(MANAGER, "JobRemoved").arg(2, unit).build()?;
            let removed = MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await?;
            Ok((removed, owner_changes(connection).await?))
        })
        .await?;
        Ok(Self { call, connection, removed, owner, systemd })
    }

    /// The connection itself, for calls that must come after a job in order.
    pub(super) fn link(&self) -> Connection {
        self.connection.clone()
    }

    /// Subscribes to the changes of the call's unit.
    pub(super) async fn changes(&self) -> Result<Changes> {
        let (client, operation) = (self.call.client, self.call.operation);
        let site = client.site(operation);
        let asked = async { Changes::of(self.call.unit, &self.connection).await.map_err(|error| site.dbus(error)) };
        let stream = site.within(client.config().deadline, asked).await?;
        Ok(Changes::new(stream, self.systemd.clone()))
    }

    /// Queues a job, without waiting for its end.
    pub(super) async fn send<B>(&self, method: &'static str, body: &B) -> Result<OwnedObjectPath>
    where
        B: Serialize + DynamicType + Sync,
    {
        let (client, operation) = (self.call.client, self.call.operation);
        let site = client.site(operation);
        let sent = async {
            let sent = self.connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), method, body);
            sent.await.map_err(|error| site.dbus(error))
        };
        let answer = site.within(client.config().deadline, sent).await?;
        client.read(operation, &answer)
    }

    /// Keeps the unit loaded for as long as this connection is open. A refusal is ignored: most units do not need it.
    pub(super) async fn hold(&self) {
        let body = (self.call.unit,);
        let held = self.connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "RefUnit", &body);
        if !matches!(tokio::time::timeout(self.call.client.config().deadline, held).await, Ok(Ok(_))) {
            tracing::debug!(backend = %self.call.client.id(), instance = self.call.unit, "the unit is not held");
        }
    }

    /// Returns once all has been received that systemd signalled before this call: the changes that a job's end goes
    /// with may come after it.
    pub(super) async fn catch_up(&self) {
        let asked = self.connection.call_method(Some(SYSTEMD), ROOT, Some("org.freedesktop.DBus.Peer"), "Ping", &());
        if !matches!(tokio::time::timeout(self.call.client.config().deadline, asked).await, Ok(Ok(_))) {
            tracing::debug!(backend = %self.call.client.id(), instance = self.call.unit, "some changes may not be seen");
        }
    }

    /// Waits for the end of a job. The caller sets the deadline.
    ///
    /// # Cancel safety
    /// Signals of other jobs are lost, which is harmless: the end of a job is awaited once.
    pub(super) async fn end(&mut self, job: &OwnedObjectPath) -> Result<End> {
        loop {
            tokio::select! {
                biased;
                signal = self.removed.next() => match signal {
                    Some(Ok(signal)) if !is_from(&signal, &self.systemd) => {}
                    Some(Ok(signal)) => {
                        let removed: Result<(u32, OwnedObjectPath, String, String), _> = signal.body().deserialize();
                        if let Ok((_, path, _, result)) = removed && path == *job {
                            return Ok(End(Some(result)));
                        }
                    }
                    Some(Err(_)) | None => return self.end_by_polling(job).await,
                },
                _ = self.owner.next() => return self.end_by_polling(job).await,
                () = tokio::time::sleep(POLL_AFTER) => {
                    // A manager that does not answer may be re-executing itself; the caller sets the deadline.
                    if matches!(self.is_over(job).await, Ok(true)) {
                        return Ok(End(None));
                    }
                }
            }
        }
    }

    /// Queues a job and waits for its end. The caller sets the deadline.
    pub(super) async fn run<B>(&mut self, method: &'static str, body: &B) -> Result<End>
    where
        B: Serialize + DynamicType + Sync,
    {
        let job = self.send(method, body).await?;
        self.end(&job).await
    }

    /// Polls after systemd was re-executed, or the connection broke: the job goes on, and no signal reports its end
    /// here.
    async fn end_by_polling(&self, job: &OwnedObjectPath) -> Result<End> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.is_over(job).await {
                Ok(true) => return Ok(End(None)),
                Ok(false) => {}
                // The manager is just coming up again.
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn is_over(&self, job: &OwnedObjectPath) -> Result<bool> {
        let id = job.as_str().rsplit_once('/').and_then(|(_, id)| id.parse::<u32>().ok()).unwrap_or(0);
        let (client, operation) = (self.call.client, self.call.operation);
        match client.manager(operation, "GetJob", &(id,)).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The error of a job that was not done.
pub(super) fn failed(call: Call<'_>, what: &str, end: &End) -> Error {
    let word = end.0.as_deref().unwrap_or("unknown");
    let (kind, why) = match word {
        "dependency" => (ErrorKind::Conflict, "a unit that it needs did not start"),
        "timeout" => (ErrorKind::Conflict, "it took longer than the unit allows"),
        "canceled" => (ErrorKind::Conflict, "another job replaced it"),
        "skipped" => (ErrorKind::Conflict, "it does not apply to the unit's state"),
        "assert" => (ErrorKind::Conflict, "an assertion of the unit does not hold"),
        "invalid" => (ErrorKind::Conflict, "the unit cannot do that"),
        "once" => (ErrorKind::Conflict, "the unit is started only once in each boot"),
        "unsupported" => (ErrorKind::Unsupported, "systemd cannot do that here"),
        "collected" => (ErrorKind::NotFound, "the unit is gone"),
        _ => (ErrorKind::Conflict, "the unit failed"),
    };
    call.error(kind, format!("{what}: {why}")).with_context("reason", word)
}
