//! [`Process`]: a process next to the main one, by the daemon's record of it.
//!
//! The record is in the daemon's memory: a daemon that is restarted has none, and one that goes on removes it some minutes after the
//! end. A wait is woken by the container's events and then reads the record, for the events themselves are no evidence: of a
//! process that dies with its container they report an exit that the daemon made up (127).

use std::{fmt, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{ExecControl, TtySize},
};
use runtide_engine::{Request, lenient, log_left_out};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use super::{
    output::{Seen, Subject, is_absence},
    request::resize,
};
use crate::{
    client::Client,
    manager::container::{Call, Container, exit_of, is_name},
};

/// Longest absence of the daemon before a wait fails.
const ABSENCE: Duration = Duration::from_secs(30);

/// Shortest and longest pause between two inspections where there are no events.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Time that the daemon has to mark a process as running, and to report the end of one whose container ended.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// Attempts to set the size of a terminal that is being made.
const SIZE_ATTEMPTS: u32 = 10;

pub(super) struct Process {
    client: Client,
    operation: &'static str,
    id: String,
    container: String,
    /// The container's run in which the process was started.
    incarnation: Option<String>,
    tty: bool,
    created: Instant,
    /// How it ended, once that was seen: the daemon forgets it.
    exit: OnceLock<Option<ExitStatus>>,
    output_ended: watch::Sender<bool>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.id).field("container", &self.container).finish_non_exhaustive()
    }
}

/// Answer of `POST /containers/{id}/exec`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

/// Answer of `GET /exec/{id}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Record {
    running: Option<bool>,
    /// Absent before the end; other engines have a 0 there.
    exit_code: Option<i64>,
}

impl Process {
    pub(super) fn created(call: Call<'_>, container: &Container, answer: &[u8], tty: bool) -> Result<Self> {
        let unreadable = || call.error(ErrorKind::Protocol, "the daemon's answer names no process");
        let Created { id } = serde_json::from_slice(answer).map_err(|error| unreadable().with_source(error))?;
        // It becomes a part of paths.
        if !is_name(&id) {
            return Err(unreadable());
        }
        Ok(Self {
            client: call.client.clone(),
            operation: call.operation,
            id,
            container: container.id_or(call.id).to_owned(),
            incarnation: container.state.incarnation().map(str::to_owned),
            tty,
            created: Instant::now(),
            exit: OnceLock::new(),
            output_ended: watch::Sender::new(false),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Sets the size of a terminal that is being made: at first it may not be there. A process that is over needs none.
    pub(super) async fn size_at_start(&self, call: Call<'_>, size: TtySize) -> Result<()> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Err(error) = call.send(self.resize_request(size)).await else { return Ok(()) };
            match self.observe().await? {
                Seen::Alive if attempt < SIZE_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(10) * attempt).await;
                }
                Seen::Alive => return Err(error),
                Seen::Over(_) | Seen::Lost => return Ok(()),
            }
        }
    }

    fn resize_request(&self, size: TtySize) -> Request {
        resize(&format!("/exec/{}", self.id), size)
    }

    /// The daemon's record; `None`: it has none.
    async fn record(&self) -> Result<Option<Record>> {
        let call = self.call();
        let bytes = match call.send(Request::get(format!("/exec/{}/json", self.id))).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let unreadable = || call.error(ErrorKind::Protocol, "the record of the process cannot be read");
        let (record, left_out): (Record, _) =
            lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json))
                .map_err(|error| unreadable().with_source(error))?;
        log_left_out(self.client.id(), &self.container, &left_out);
        if record.running.is_none() { Err(unreadable()) } else { Ok(Some(record)) }
    }

    /// The state in the record: over, or alive as far as it says.
    fn state_in(&self, record: &Record) -> Seen {
        match (record.running, record.exit_code) {
            (Some(false), Some(code)) => Seen::Over(exit_of(code).filter(|_| code >= 0)),
            // Between the start's answer and the mark in the record. Later: an engine that does not record the exit.
            (Some(false), None) if self.created.elapsed() > SETTLES_WITHIN => Seen::Over(None),
            _ => Seen::Alive,
        }
    }

    /// The run in which it was started goes on.
    async fn container_runs(&self) -> Result<bool> {
        let now = self.call().inspect_if_present().await?;
        Ok(now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == self.incarnation.as_deref()))
    }

    fn over(&self, exit: Option<ExitStatus>) -> Seen {
        Seen::Over(*self.exit.get_or_init(|| exit))
    }

    /// Messages about the ends of the container and of processes in it. The daemon subscribes only after the head of its answer, so
    /// that its history is read as well: a hint too many costs one inspection.
    async fn hints(&self) -> Result<Incoming> {
        let filters = serde_json::json!({ "container": [self.container], "event": ["exec_die", "die", "destroy"] });
        let request = Request::get("/events?since=1").with_query("filters", filters);
        Ok(Box::pin(self.client.open_apart(self.operation, request)).await?.into_body())
    }
}

/// Waits for a message; `false`: there are no more.
async fn next_hint(hints: &mut Option<Incoming>) -> bool {
    let Some(body) = hints else { return std::future::pending().await };
    loop {
        match body.frame().await {
            Some(Ok(frame)) if frame.is_data() => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
}

#[async_trait]
impl Subject for Process {
    fn call(&self) -> Call<'_> {
        // The id was checked before this value was made.
        Call { client: &self.client, operation: self.operation, id: &self.container }
    }

    async fn observe(&self) -> Result<Seen> {
        if let Some(exit) = self.exit.get() {
            return Ok(Seen::Over(*exit));
        }
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let record = self.record().await?;
            if let Some(Seen::Over(exit)) = record.as_ref().map(|record| self.state_in(record)) {
                return Ok(self.over(exit));
            }
            match (record, self.container_runs().await?) {
                (Some(_), true) => return Ok(Seen::Alive),
                (None, true) => return Ok(Seen::Lost),
                // It died with its container, and the daemon may report that later.
                (Some(_), false) if Instant::now() < deadline => tokio::time::sleep(PAUSE.0).await,
                (_, false) => return Ok(self.over(None)),
            }
        }
    }

    fn output_ended(&self) {
        self.output_ended.send_replace(true);
    }
}

#[async_trait]
impl ExecControl for Process {
    async fn resize(&self, size: TtySize) -> Result<()> {
        let call = Call { operation: "docker.exec_resize", ..self.call() };
        if !self.tty {
            return Err(call.error(ErrorKind::Conflict, "the process has no terminal"));
        }
        call.bounded(async {
            let Err(error) = call.send(self.resize_request(size)).await else { return Ok(()) };
            match self.observe().await? {
                Seen::Alive => Err(error),
                Seen::Over(_) | Seen::Lost => Err(call.error(ErrorKind::Conflict, "the process has ended")),
            }
        })
        .await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let mut output_ended = self.output_ended.subscribe();
        let mut hints = None;
        let mut absent_since = None;
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
                    hints = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if hints.is_none() {
                hints = self.hints().await.ok();
                if hints.is_some() {
                    continue; // It may have ended before the daemon subscribed.
                }
            }
            let patience = if hints.is_some() { self.client.config().max_silence } else { pause };
            tokio::select! {
                is_hint = next_hint(&mut hints) => if !is_hint {
                    hints = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                },
                _ = output_ended.changed() => {}
                () = self.client.closed() => {} // The next inspection says so.
                () = tokio::time::sleep(patience) => pause = (pause * 2).min(PAUSE.1),
            }
        }
    }
}
