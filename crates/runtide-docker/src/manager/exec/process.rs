//! [`Record`]: the daemon's record of a process next to the main one.
//!
//! The record is in the daemon's memory: a daemon that is restarted has none, and one that goes on removes it some minutes after the
//! end.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtide_core::{ErrorKind, Result, manager::TtySize};
use runtide_engine::{
    Request,
    exec::{Hints, Noted, Owner, Process, Records, Seen, Subject, resize},
    lenient, log_left_out,
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    client::{Client, Docker},
    manager::container::{Call, Container, exit_of},
};

/// Attempts to set the size of a terminal that is being made.
const SIZE_ATTEMPTS: u32 = 10;

#[derive(Debug)]
pub(super) struct Record {
    owner: Owner<Docker>,
    client: Client,
    id: String,
    /// The container's run in which the process was started.
    incarnation: Option<String>,
    tty: bool,
    created: Instant,
}

/// Answer of `GET /exec/{id}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    running: Option<bool>,
    /// Absent before the end; other engines have a 0 there.
    exit_code: Option<i64>,
}

impl Record {
    pub(super) fn new(owner: Owner<Docker>, client: Client, id: String, container: &Container, tty: bool) -> Self {
        let incarnation = container.state.incarnation().map(str::to_owned);
        Self { owner, client, id, incarnation, tty, created: Instant::now() }
    }

    /// The path of something of this process's, as `start`.
    pub(super) fn path(&self, verb: &str) -> String {
        format!("/exec/{}/{verb}", self.id)
    }

    /// The state in the record: over, or alive as far as it says.
    fn state_in(&self, record: &Inspected) -> Noted {
        match (record.running, record.exit_code) {
            (Some(false), Some(code)) => Noted::Over(exit_of(code).filter(|_| code >= 0)),
            // Between the start's answer and the mark in the record. Later: an engine that does not record the exit.
            (Some(false), None) if self.created.elapsed() > Self::SETTLES_WITHIN => Noted::Over(None),
            _ => Noted::Alive,
        }
    }
}

/// Sets the size of a terminal that is being made: at first it may not be there. A process that is over needs none.
pub(super) async fn size_at_start(process: &Process<Record>, size: TtySize) -> Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Err(error) = process.records().resize(size).await else { return Ok(()) };
        match process.observe().await? {
            Seen::Alive if attempt < SIZE_ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(10) * attempt).await;
            }
            Seen::Alive => return Err(error),
            Seen::Over(_) | Seen::Lost => return Ok(()),
        }
    }
}

#[async_trait]
impl Records for Record {
    type Dialect = Docker;

    const RESIZE: &'static str = "docker.exec_resize";
    /// Also the time to mark a process as running.
    const SETTLES_WITHIN: Duration = Duration::from_secs(5);
    /// The end of the output and that of the process reach the daemon apart, the latter through containerd.
    const IS_RECORDED_FIRST: bool = false;

    fn owner(&self) -> &Owner<Docker> {
        &self.owner
    }

    fn has_terminal(&self) -> bool {
        self.tty
    }

    async fn record(&self) -> Result<Option<Noted>> {
        let bytes = match self.owner.send(Request::get(self.path("json"))).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let unreadable = || self.owner.error(ErrorKind::Protocol, "the record of the process cannot be read");
        let (record, left_out): (Inspected, _) =
            lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json))
                .map_err(|error| unreadable().with_source(error))?;
        log_left_out(self.client.id(), &self.owner.container, &left_out);
        if record.running.is_none() { Err(unreadable()) } else { Ok(Some(self.state_in(&record))) }
    }

    async fn container_runs(&self) -> Result<bool> {
        // The id was checked before this value was made.
        let call = Call { client: &self.client, operation: self.owner.operation, id: &self.owner.container };
        let now = call.inspect_if_present().await?;
        Ok(now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == self.incarnation.as_deref()))
    }

    /// The daemon subscribes only after the head of its answer, so that its history is read as well: a hint too many costs one
    /// inspection.
    async fn hints(&self) -> Result<Hints> {
        let filters =
            serde_json::json!({ "container": [self.owner.container], "event": ["exec_die", "die", "destroy"] });
        let request = Request::get("/events?since=1").with_query("filters", filters);
        let body = Box::pin(self.client.open_apart(self.owner.operation, request)).await?.into_body();
        Ok(Box::pin(stream::unfold(body, |mut body| async { next(&mut body).await.then_some(((), body)) })))
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        let owner = self.owner.of(Self::RESIZE);
        owner.send(resize(&format!("/exec/{}", self.id), size)).await.map(drop)
    }
}

/// Waits for a message; `false`: there are no more.
async fn next(body: &mut Incoming) -> bool {
    loop {
        match body.frame().await {
            Some(Ok(frame)) if frame.is_data() => return true,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
}
