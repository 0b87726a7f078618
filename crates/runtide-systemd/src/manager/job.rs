//! Jobs: what a verb asks of systemd is queued, and how it went comes as a signal.
//!
//! A connection of the verb's own, on which the signal is asked for before the job is made: nothing can be missed. It lives as
//! long as the verb, so that a verb that is dropped leaves nothing.

use std::{num::NonZeroUsize, time::Duration};

use futures_util::StreamExt;
use runtide_core::{Error, ErrorKind, Result};
use serde::Serialize;
use zbus::{Connection, DynamicType, MatchRule, MessageStream, OwnedObjectPath, message::Type};

use super::unit::Call;
use crate::{
    client::{BUS, BUS_PATH, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
    subscription::{is_from, subscribe},
};

/// More than the signals of one unit's jobs can be between two polls.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// How often to look whether the job is still there, in case that its signal was lost.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// A link on which the jobs of one unit are heard.
pub(super) struct Jobs<'a> {
    call: Call<'a>,
    connection: Connection,
    removed: MessageStream,
    owner: MessageStream,
    systemd: String,
}

/// How a job ended, in systemd's word; `None`: nobody saw it end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End(pub(super) Option<String>);

impl End {
    pub(super) fn is(&self, word: &str) -> bool {
        self.0.as_deref() == Some(word)
    }

    /// True if it was seen to do what it was to do.
    pub(super) fn is_done(&self) -> bool {
        self.is("done")
    }

    /// True if it may have done what it was to do: the unit tells.
    pub(super) fn may_be_done(&self) -> bool {
        self.0.as_deref().is_none_or(|word| matches!(word, "done" | "skipped"))
    }
}

/// Signals of systemd's.
pub(super) fn signals(interface: &'static str, member: &'static str) -> zbus::match_rule::Builder<'static> {
    MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD).interface(interface).member(member)
}

/// A word of the bus whenever another process, or the same one again, is systemd.
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

/// A link of a verb's own on which these signals are heard.
pub(super) async fn listen<T>(
    call: Call<'_>,
    asked: impl AsyncFnOnce(&Connection) -> zbus::Result<T>,
) -> Result<(Connection, String, T)> {
    subscribe(call.client, call.operation, QUEUE, asked).await
}

impl<'a> Jobs<'a> {
    /// Of `unit`, which may be another than the call's.
    pub(super) async fn open(call: Call<'a>, unit: &str) -> Result<Self> {
        let (connection, systemd, (removed, owner)) = listen(call, async |connection: &Connection| {
            let rule = signals(MANAGER, "JobRemoved").arg(2, unit).build()?;
            let removed = MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await?;
            Ok((removed, owner_changes(connection).await?))
        })
        .await?;
        Ok(Self { call, connection, removed, owner, systemd })
    }

    /// The link itself, for whoever has to ask there what comes after a job was asked for.
    pub(super) fn link(&self) -> Connection {
        self.connection.clone()
    }

    /// Asks for a job, without waiting for its end.
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

    /// Keeps the unit loaded for as long as this link lives. Whether systemd does is of no consequence to most units.
    pub(super) async fn hold(&self) {
        let body = (self.call.unit,);
        let held = self.connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "RefUnit", &body);
        if !matches!(tokio::time::timeout(self.call.client.config().deadline, held).await, Ok(Ok(_))) {
            tracing::debug!(backend = %self.call.client.id(), instance = self.call.unit, "the unit is not held");
        }
    }

    /// Waits for the end of a job. The caller bounds it.
    ///
    /// # Cancel safety
    /// What was heard of other jobs is lost, and may be: a job's end is awaited once.
    pub(super) async fn end(&mut self, job: &OwnedObjectPath) -> Result<End> {
        loop {
            tokio::select! {
                biased;
                signal = self.removed.next() => match signal {
                    Some(Ok(signal)) if !is_from(&signal, &self.systemd) => {}
                    Some(Ok(signal)) => {
                        let said: Result<(u32, OwnedObjectPath, String, String), _> = signal.body().deserialize();
                        if let Ok((_, path, _, result)) = said && path == *job {
                            return Ok(End(Some(result)));
                        }
                    }
                    Some(Err(_)) | None => return self.end_by_looking(job).await,
                },
                _ = self.owner.next() => return self.end_by_looking(job).await,
                () = tokio::time::sleep(LOOK_AFTER) => {
                    // Who does not answer may be re-executing itself; the caller bounds it.
                    if matches!(self.is_over(job).await, Ok(true)) {
                        return Ok(End(None));
                    }
                }
            }
        }
    }

    /// Asks for a job and waits for its end. The caller bounds it.
    pub(super) async fn run<B>(&mut self, method: &'static str, body: &B) -> Result<End>
    where
        B: Serialize + DynamicType + Sync,
    {
        let job = self.send(method, body).await?;
        self.end(&job).await
    }

    /// systemd was re-executed, or the link broke: the job goes on, and its end is not said here.
    async fn end_by_looking(&self, job: &OwnedObjectPath) -> Result<End> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.is_over(job).await {
                Ok(true) => return Ok(End(None)),
                Ok(false) => {}
                // It is just coming up again.
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

/// What a job that did not do its work says.
pub(super) fn failed(call: Call<'_>, what: &str, end: &End) -> Error {
    let word = end.0.as_deref().unwrap_or("unknown");
    let (kind, why) = match word {
        "dependency" => (ErrorKind::Conflict, "a unit that it needs did not start"),
        "timeout" => (ErrorKind::Conflict, "it took longer than the unit allows"),
        "canceled" => (ErrorKind::Conflict, "another job took its place"),
        "skipped" => (ErrorKind::Conflict, "the state that the unit is in has no use for it"),
        "assert" => (ErrorKind::Conflict, "an assertion of the unit does not hold"),
        "invalid" => (ErrorKind::Conflict, "the unit cannot do that"),
        "once" => (ErrorKind::Conflict, "the unit is started only once in each boot"),
        "unsupported" => (ErrorKind::Unsupported, "systemd cannot do that here"),
        "collected" => (ErrorKind::NotFound, "the unit is gone"),
        _ => (ErrorKind::Conflict, "the unit failed"),
    };
    call.error(kind, format!("{what}: {why}")).with_context("reason", word)
}
