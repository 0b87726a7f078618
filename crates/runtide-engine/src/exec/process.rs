//! [`Process`]: a process next to the main one, by the daemon's record of it.
//!
//! A wait is woken by the container's messages and then reads the record, for the messages themselves are no evidence: of a process
//! that dies with its container Docker reports an exit that it made up (127), and Podman 4.3 does not say which process it means.

use std::{fmt, pin::Pin, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use futures_core::Stream;
use futures_util::StreamExt;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{ExecControl, TtySize},
};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use super::{
    Owner,
    output::{Seen, Subject, is_absence},
};
use crate::dialect::Dialect;

/// Longest absence of the daemon before a wait fails.
const ABSENCE: Duration = Duration::from_secs(30);

/// Shortest and longest pause between two inspections where there are no messages.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The state of a process, by the daemon's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It goes on, as far as the record says.
    Alive,
    /// It ended, and the record does not have the exit yet.
    Ending,
    /// It ended; `None`: the record has an exit that cannot be one.
    Over(Option<ExitStatus>),
    /// The daemon stopped following it, and does not know how it ended.
    Lost,
}

/// Messages after each of which the record is read. The end: there are no more.
pub type Hints = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// The daemon's record of one process.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Its engine.
    type Dialect: Dialect;

    /// Name of the call that resizes the terminal, in errors.
    const RESIZE: &'static str;

    /// Time that the daemon has to write down the end of a process, and that of one whose container ended.
    const SETTLES_WITHIN: Duration;

    /// As [`Subject::is_recorded_first`].
    const IS_RECORDED_FIRST: bool;

    /// The call that made the process.
    fn owner(&self) -> &Owner<Self::Dialect>;

    /// The process has a terminal.
    fn has_terminal(&self) -> bool;

    /// The record, read now; `None`: there is none.
    async fn record(&self) -> Result<Option<Noted>>;

    /// True while the run of the container goes on in which the process was started.
    async fn container_runs(&self) -> Result<bool>;

    /// Subscribes to messages about the ends of the container and of the processes in it.
    async fn hints(&self) -> Result<Hints>;

    /// Sets the size of the terminal.
    async fn resize(&self, size: TtySize) -> Result<()>;

    /// The end of the process was seen: the record is needed no more.
    async fn over(&self) {}

    /// As [`Subject::is_daemons`].
    fn is_daemons(&self, _stderr: &[u8]) -> bool {
        false
    }
}

/// A process next to the main one.
pub struct Process<R> {
    records: R,
    /// How it ended, once that was seen: the daemon forgets it.
    exit: OnceLock<Option<ExitStatus>>,
    output_ended: watch::Sender<bool>,
}

impl<R: Records> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("container", &self.records.owner().container).finish_non_exhaustive()
    }
}

/// Answer of `POST /containers/{id}/exec`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

/// The id in the answer to a create. It becomes a part of paths, so that it must be a plain word.
///
/// # Errors
/// `Protocol` for an answer without one.
pub fn id_in<D: Dialect>(owner: &Owner<D>, answer: &[u8]) -> Result<String> {
    let unreadable = || owner.error(ErrorKind::Protocol, "the daemon's answer names no process");
    let Created { id } = serde_json::from_slice(answer).map_err(|error| unreadable().with_source(error))?;
    let is_plain = !id.is_empty() && id.len() <= 255 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { Ok(id) } else { Err(unreadable()) }
}

impl<R: Records> Process<R> {
    /// The process behind this record.
    pub fn new(records: R) -> Self {
        Self { records, exit: OnceLock::new(), output_ended: watch::Sender::new(false) }
    }

    /// The process behind this record, which is over.
    pub fn ended(records: R, exit: Option<ExitStatus>) -> Self {
        Self { exit: OnceLock::from(exit), ..Self::new(records) }
    }

    /// The daemon's record.
    pub fn records(&self) -> &R {
        &self.records
    }

    async fn over(&self, exit: Option<ExitStatus>) -> Seen {
        let seen = Seen::Over(*self.exit.get_or_init(|| exit));
        self.records.over().await;
        seen
    }
}

#[async_trait]
impl<R: Records> Subject for Process<R> {
    type Dialect = R::Dialect;

    fn owner(&self) -> &Owner<R::Dialect> {
        self.records.owner()
    }

    async fn observe(&self) -> Result<Seen> {
        if let Some(exit) = self.exit.get() {
            return Ok(Seen::Over(*exit));
        }
        let deadline = Instant::now() + R::SETTLES_WITHIN;
        loop {
            let record = self.records.record().await?;
            match record {
                Some(Noted::Over(exit)) => return Ok(self.over(exit).await),
                Some(Noted::Lost) => return Ok(Seen::Lost),
                Some(Noted::Alive | Noted::Ending) | None => {}
            }
            let is_early = Instant::now() < deadline;
            match (record, self.records.container_runs().await?) {
                (Some(Noted::Alive), true) => return Ok(Seen::Alive),
                // It ended, or died with its container, and the daemon may report that later.
                (Some(_), _) if is_early => tokio::time::sleep(PAUSE.0).await,
                (_, true) => return Ok(Seen::Lost),
                (_, false) => return Ok(self.over(None).await),
            }
        }
    }

    fn output_ended(&self) {
        self.output_ended.send_replace(true);
    }

    fn is_recorded_first(&self) -> bool {
        R::IS_RECORDED_FIRST
    }

    fn is_daemons(&self, stderr: &[u8]) -> bool {
        self.records.is_daemons(stderr)
    }
}

#[async_trait]
impl<R: Records> ExecControl for Process<R> {
    async fn resize(&self, size: TtySize) -> Result<()> {
        let owner = self.records.owner().of(R::RESIZE);
        if !self.records.has_terminal() {
            return Err(owner.error(ErrorKind::Conflict, "the process has no terminal"));
        }
        let resized = async {
            if self.exit.get().is_none() {
                let Err(error) = self.records.resize(size).await else { return Ok(()) };
                if self.observe().await? == Seen::Alive {
                    return Err(error);
                }
            }
            Err(owner.error(ErrorKind::Conflict, "the process has ended"))
        };
        owner.client.within(owner.client.site(owner.operation), owner.client.deadline(), resized).await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let mut output_ended = self.output_ended.subscribe();
        let mut hints = None;
        let mut absent_since = None;
        // A daemon that was started again may not follow the process any more, and then reports no end of it.
        let mut may_be_unfollowed = false;
        let mut pause = PAUSE.0;
        loop {
            match self.observe().await {
                Ok(Seen::Over(exit)) => return Ok(exit),
                Ok(Seen::Lost) => return Ok(None),
                Ok(Seen::Alive) => absent_since = None,
                Err(error) if is_absence(&error) => {
                    if absent_since.get_or_insert_with(Instant::now).elapsed() >= ABSENCE {
                        return Err(error);
                    }
                    (hints, may_be_unfollowed) = (None, true);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if hints.is_none() {
                hints = self.records.hints().await.ok();
                if hints.is_some() {
                    continue; // It may have ended before the daemon subscribed.
                }
            }
            let owner = self.records.owner();
            let patience = if hints.is_some() && !may_be_unfollowed { owner.max_silence } else { pause };
            tokio::select! {
                hint = next(&mut hints) => if hint.is_none() {
                    (hints, may_be_unfollowed) = (None, true);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                },
                _ = output_ended.changed() => {}
                () = owner.client.closed() => {} // The next inspection says so.
                () = tokio::time::sleep(patience) => pause = (pause * 2).min(PAUSE.1),
            }
        }
    }
}

/// The next hint; never ready where nothing reports any.
async fn next(hints: &mut Option<Hints>) -> Option<()> {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}
