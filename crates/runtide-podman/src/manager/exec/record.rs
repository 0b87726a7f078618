//! [`Record`]: the service's record of a process next to the main one.
//!
//! The record outlives the service, but a process is followed by the service that started it. Up to Podman 4.5 no other one notices
//! its end: the record says that it runs until it is removed, minutes later. So a process that is said to run is looked for among the
//! container's, and one that is not there and gets no exit ended unseen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    backend::{CreateGuard, lock},
    manager::{LogSource, TtySize},
};
use runtide_engine::{
    Feed, HijackedReader, Request,
    exec::{Hints, Noted, Owner, Records, resize},
    lenient, log_left_out,
    output::{Decoder, Origin},
};
use serde::Deserialize;
use tokio::{io::AsyncReadExt, time::Instant};

use crate::{
    client::{Client, EventLogger, Podman, is_answer, is_status},
    ends,
    manager::container::{Call, Container},
};

/// Time between two looks at the container's processes.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest wait for the reason why a program could not be run, and its most bytes.
const REASON: (Duration, u64) = (Duration::from_secs(5), 64 * 1024);

/// The first version that removes a record when it is asked to.
const REMOVES_SINCE: (u32, u32) = (4, 8);

#[derive(Debug)]
pub(super) struct Record {
    owner: Owner<Podman>,
    client: Client,
    id: String,
    /// The container's run in which the process was started, and its begin.
    incarnation: Option<String>,
    began: Option<SystemTime>,
    tty: bool,
    /// A resize was refused. If that was because the process had just ended, Podman up to 4.5 has marked it so with an exit of 0 that
    /// it did not see.
    is_doubtful: AtomicBool,
    on_machine: Mutex<OnMachine>,
}

/// The process on the machine.
#[derive(Clone, Copy, Debug, Default)]
struct OnMachine {
    /// Its id there, once the record had it.
    pid: Option<i64>,
    /// Time of the last list of the container's processes, and true if it was not among them.
    gone: Option<(Instant, bool)>,
}

/// Answer of `GET /exec/{id}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    running: Option<bool>,
    /// It ended.
    can_remove: Option<bool>,
    /// 0 before the end.
    exit_code: Option<i64>,
    /// 0 before the start and after the end.
    pid: Option<i64>,
}

/// Answer of `GET /containers/{id}/top`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Processes {
    titles: Vec<String>,
    processes: Vec<Vec<String>>,
}

impl Record {
    pub(super) fn new(owner: Owner<Podman>, client: Client, id: String, container: &Container, tty: bool) -> Self {
        Self {
            owner,
            client,
            id,
            incarnation: container.state.incarnation().map(str::to_owned),
            began: container.began(),
            tty,
            is_doubtful: AtomicBool::new(false),
            on_machine: Mutex::default(),
        }
    }

    /// The guard that removes the record if its process does not begin. Before 4.8 it stays until the container ends.
    pub(super) fn guard(&self) -> CreateGuard {
        let client = self.client.undoing();
        let owner = Owner { client: (*client).clone(), ..self.owner.of(self.owner.operation) };
        let (removal, id) = (Arc::new((client, owner)), self.id.clone());
        CreateGuard::new(self.client.site(self.owner.operation), &self.id, self.client.deadline(), move || {
            let (removal, id) = (Arc::clone(&removal), id.clone());
            async move { remove(&removal.0, &removal.1, &id).await }
        })
    }

    /// The path of something of this process's, as `start`.
    pub(super) fn path(&self, verb: &str) -> String {
        format!("/exec/{}/{verb}", self.id)
    }

    fn call(&self) -> Call<'_> {
        // The id was checked before this value was made.
        Call { client: &self.client, operation: self.owner.operation, id: &self.owner.container }
    }

    /// True if the program ended with one of the codes for one that could not be run.
    pub(super) async fn could_not_run(&self) -> Result<bool> {
        let now = self.inspect().await?;
        Ok(now.is_some_and(|now| now.can_remove == Some(true) && matches!(now.exit_code, Some(125..=127))))
    }

    async fn inspect(&self) -> Result<Option<Inspected>> {
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
        if record.running.is_none() || record.can_remove.is_none() { Err(unreadable()) } else { Ok(Some(record)) }
    }

    /// The state in the record. Whether a process that runs is there is for the caller to see.
    fn state_in(&self, record: &Inspected) -> Noted {
        match (record.running, record.can_remove, record.exit_code) {
            (Some(true), ..) => Noted::Alive,
            (_, Some(true), Some(0)) if self.is_doubtful.load(Ordering::Relaxed) => Noted::Ending,
            (_, Some(true), Some(code)) => match i32::try_from(code) {
                Ok(code) if code >= 0 => Noted::Over(Some(ExitStatus::code(code))),
                // The service lost it: the connection was cut, or the exit was not written in time.
                Ok(-1) => Noted::Lost,
                _ => Noted::Over(None),
            },
            (_, Some(true), None) => Noted::Over(None),
            // It was never started: the service ended in between.
            _ => Noted::Ending,
        }
    }

    /// True if the process is not among the container's; false if that cannot be seen.
    async fn is_gone(&self) -> bool {
        let OnMachine { pid, gone } = *lock(&self.on_machine);
        let Some(pid) = pid.filter(|pid| *pid > 0) else { return false };
        if let Some((_, is_gone)) = gone.filter(|(at, _)| at.elapsed() < AGAIN) {
            return is_gone;
        }
        let request = Request::get(self.call().path("top")).with_query("stream", false).with_query("ps_args", "hpid");
        let listed = self.owner.send(request).await;
        let listed = listed.ok().and_then(|bytes| serde_json::from_slice::<Processes>(&bytes).ok());
        let is_gone = listed.is_some_and(|listed| {
            let pids: Option<Vec<i64>> =
                listed.processes.iter().map(|row| row.first().and_then(|pid| pid.trim().parse().ok())).collect();
            listed.titles.first().is_some_and(|title| title == "HPID") && pids.is_some_and(|pids| !pids.contains(&pid))
        });
        lock(&self.on_machine).gone = Some((Instant::now(), is_gone));
        is_gone
    }
}

/// Removes a record, where the service has a request for it. One of a process that runs stays.
async fn remove(client: &Client, owner: &Owner<Podman>, id: &str) -> Result<()> {
    if !client.last_server().is_some_and(|server| server.is_at_least(REMOVES_SINCE)) {
        return Ok(());
    }
    let body = serde_json::json!({ "Force": false });
    match owner.send(Request::post(format!("/exec/{id}/remove")).with_json(&body)).await {
        Err(error) if !is_answer(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The reason in the bytes of a session whose program could not be run; `None`: there is none in them.
pub(super) async fn reason(reader: &mut HijackedReader) -> Option<String> {
    let mut bytes = Vec::new();
    let mut bounded = reader.take(REASON.1);
    // The bytes that came until then count.
    let _ = tokio::time::timeout(REASON.0, bounded.read_to_end(&mut bytes)).await;
    let mut decoder = Decoder::framed();
    decoder.push(bytes.into());
    while let Ok(Some(piece)) = decoder.next() {
        if piece.origin == Origin::Output(LogSource::Stderr) {
            let text = String::from_utf8_lossy(&piece.bytes);
            return text.strip_prefix("Error: ").map(|text| text.trim().to_owned());
        }
    }
    None
}

/// True for an error of the connection between the service and the process, which the service writes behind the standard error when a
/// process ends without having read its input.
pub(super) fn is_services(stderr: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(stderr) else { return false };
    let begins = |verb: &str| text.starts_with("Error: ") && text.get(7..).is_some_and(|rest| rest.starts_with(verb));
    (begins("read unixpacket ") || begins("write unixpacket ")) && text.contains("/attach: ")
}

#[async_trait]
impl Records for Record {
    type Dialect = Podman;

    const RESIZE: &'static str = "podman.exec_resize";
    /// The service itself waits 5 s for the exit.
    const SETTLES_WITHIN: Duration = Duration::from_secs(8);
    /// Every version holds the connection until it has written the exit down.
    const IS_RECORDED_FIRST: bool = true;

    fn owner(&self) -> &Owner<Podman> {
        &self.owner
    }

    fn has_terminal(&self) -> bool {
        self.tty
    }

    async fn record(&self) -> Result<Option<Noted>> {
        let record = match self.inspect().await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            // Later versions look for the exit as they answer, and there may be none any more.
            Err(error) if is_status(&error, "500") && self.is_gone().await => return Ok(Some(Noted::Ending)),
            Err(error) => return Err(error),
        };
        let noted = self.state_in(&record);
        if noted != Noted::Alive {
            return Ok(Some(noted));
        }
        lock(&self.on_machine).pid = record.pid;
        Ok(Some(if self.is_gone().await { Noted::Ending } else { Noted::Alive }))
    }

    async fn container_runs(&self) -> Result<bool> {
        let now = self.call().inspect_if_present().await?;
        Ok(now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == self.incarnation.as_deref()))
    }

    async fn hints(&self) -> Result<Hints> {
        let (client, operation) = (&self.client, self.owner.operation);
        if client.logger().await? == EventLogger::None {
            return Err(self.owner.error(ErrorKind::Unsupported, "the service reports no events"));
        }
        let filters = serde_json::json!({
            "type": ["container"], "event": ["exec_died", "died", "remove"], "container": [self.owner.container],
        });
        let request = Request::get("/events").with_query("filters", filters);
        let request = match self.began.and_then(|began| jiff::Timestamp::try_from(began).ok()) {
            Some(began) => request.with_query("since", began),
            None => request,
        };
        let feed = Feed::open_patiently(client, operation, request, ends::HEAD.min(client.deadline())).await?;
        Ok(Box::pin(stream::unfold(feed, |mut feed| async {
            let is_more = std::future::poll_fn(|cx| feed.poll_more(cx)).await;
            let unread = feed.unread().len();
            feed.consume(unread);
            matches!(is_more, Ok(true)).then_some(((), feed))
        })))
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        let owner = self.owner.of(Self::RESIZE);
        if matches!(self.record().await?, Some(Noted::Over(_) | Noted::Lost) | None) {
            return Err(owner.error(ErrorKind::Conflict, "the process has ended"));
        }
        let resized = owner.send(resize(&format!("/exec/{}", self.id), size)).await;
        if resized.is_err() {
            self.is_doubtful.store(true, Ordering::Relaxed);
        }
        resized.map(drop)
    }

    /// Else it stays for minutes, in every inspection of the container.
    async fn over(&self) {
        if let Err(error) = remove(&self.client, &self.owner, &self.id).await {
            tracing::debug!(%error, exec = self.id, "the record of a process that ended is left to the service");
        }
    }

    fn is_daemons(&self, stderr: &[u8]) -> bool {
        is_services(stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_own_words_are_known_and_a_programs_are_not() {
        assert!(is_services(b"Error: read unixpacket @->/proc/self/fd/16/attach: read: connection reset by peer\n"));
        assert!(is_services(b"Error: write unixpacket @->/proc/self/fd/16/attach: write: broken pipe\n"));
        for words in [&b"Error: read unixpacket"[..], b"error: read unixpacket /attach: x", b"Error: \xff", b""] {
            assert!(!is_services(words));
        }
    }
}
