//! One call on one unit: its checked name, its deadline, and an inspection of the unit.

use std::{future::Future, time::Duration};

use runtide_core::{Error, ErrorKind, ExitStatus, Incarnation, InstanceId, Result};
use tokio::time::Instant;
use zbus::{DeserializeDict, OwnedObjectPath, Type};

use crate::{
    client::{Client, MANAGER, ROOT},
    names, normalize,
    properties::{ServiceProperties, UnitProperties},
};

/// Shortest and longest interval of polling for a state that no signal reports.
const POLL_AFTER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// A call in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) client: &'a Client,
    pub(super) operation: &'static str,
    pub(super) unit: &'a str,
}

impl<'a> Call<'a> {
    /// Creates a call; a text that is no unit's name is refused before anything is sent.
    pub(super) fn on(client: &'a Client, operation: &'static str, id: &'a InstanceId) -> Result<Self> {
        client.check_open(operation)?;
        Ok(Self { client, operation, unit: client.checked(operation, id.as_str())? })
    }

    /// Bounds a verb by the deadline of jobs, plus the caller's extra time.
    pub(super) async fn within<T>(self, extra: Duration, verb: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.client.config().job_deadline.saturating_add(extra);
        match tokio::time::timeout(limit, verb).await {
            Ok(done) => done.map_err(|error| self.located(error)),
            Err(_) => Err(self.error(ErrorKind::Timeout, format!("not done within {limit:?}"))),
        }
    }

    pub(super) fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    pub(super) fn located(self, error: Error) -> Error {
        error.with_context("instance", self.unit)
    }

    /// A conflict with the current state of the unit.
    pub(super) fn conflict(self, message: impl Into<String>, seen: &Seen) -> Error {
        self.error(ErrorKind::Conflict, message).with_context("state", format!("{}/{}", seen.active(), seen.sub()))
    }

    /// Inspects the unit; `None` if it is not loaded. Loads nothing.
    pub(super) async fn look_if_loaded(self) -> Result<Option<Seen>> {
        match self.client.get_unit(self.operation, self.unit).await {
            Ok(path) => Ok(Some(self.read(&path).await?).filter(Seen::is_there)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Inspects the unit. systemd unloads inactive units, so one that has a file may have to be loaded for it.
    pub(super) async fn look(self) -> Result<Seen> {
        if let Some(seen) = self.look_if_loaded().await? {
            return Ok(seen);
        }
        let answer = self.client.manager(self.operation, "LoadUnit", &(self.unit,)).await?;
        let path: OwnedObjectPath = self.client.read(self.operation, &answer)?;
        let seen = self.read(&path).await?;
        if seen.is_there() { Ok(seen) } else { Err(self.error(ErrorKind::NotFound, "there is no such unit")) }
    }

    /// Reads all properties by one call, so that they belong together.
    async fn read(self, path: &str) -> Result<Seen> {
        let answer = self.client.get_all(self.operation, path, "").await?;
        let body = answer.body();
        let unreadable = |error| self.client.site(self.operation).undecodable(error);
        Ok(Seen {
            about: body.deserialize().map_err(unreadable)?,
            service: body.deserialize().map_err(unreadable)?,
            more: body.deserialize().map_err(unreadable)?,
        })
    }

    /// Polls until `done` returns a value. The caller sets the deadline.
    pub(super) async fn until<T>(self, mut done: impl FnMut(Option<&Seen>) -> Option<T>) -> Result<T> {
        let mut pause = POLL_AFTER.0;
        loop {
            if let Some(found) = done(self.look_if_loaded().await?.as_ref()) {
                return Ok(found);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_AFTER.1);
        }
    }

    /// As [`until`](Self::until), for at most `limit`.
    pub(super) async fn until_within<T>(
        self,
        limit: Option<Duration>,
        done: impl FnMut(Option<&Seen>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(at) = limit.and_then(|limit| Instant::now().checked_add(limit)) else {
            return self.until(done).await.map(Some);
        };
        match tokio::time::timeout_at(at, self.until(done)).await {
            Ok(found) => found.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Sends a signal to the main process, or to all if there is none.
    ///
    /// # Errors
    /// `Conflict`: the unit has no process.
    pub(super) async fn signal(self, whom: Whom, signal: u8) -> Result<()> {
        let whose: &[&str] = match whom {
            Whom::Main if names::type_of(self.unit) == Some("service") => &["main", "all"],
            _ => &["all"],
        };
        let mut refused = None;
        for whose in whose {
            match self.client.manager(self.operation, "KillUnit", &(self.unit, *whose, i32::from(signal))).await {
                Ok(_) => return Ok(()),
                Err(error) if is_no_process(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let message = refused.map_or_else(String::new, |error| error.message().to_owned());
        Err(self.error(ErrorKind::Conflict, message))
    }

    /// True if it has a process, also one that outlived it.
    pub(super) async fn has_processes(self) -> Result<bool> {
        match self.client.manager(self.operation, "GetUnitProcesses", &(self.unit,)).await {
            Ok(answer) => {
                let processes: Vec<(String, u32, String)> = self.client.read(self.operation, &answer)?;
                Ok(!processes.is_empty())
            }
            // An inactive unit may be unloaded at any time.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Clears the failed state and the start counters. A unit that is not loaded has none.
    pub(super) async fn reset_failed(self, unit: &str) -> Result<()> {
        let reset = self.client.call(self.operation, (ROOT, MANAGER, "ResetFailedUnit"), &(unit,)).await;
        match reset {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The processes of a unit that get a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Main,
    All,
}

/// True if systemd reported that there is no process, and not that there is no unit.
fn is_no_process(error: &Error) -> bool {
    error.context().iter().any(|(key, value)| *key == "reason" && &**value == "NoSuchProcess")
}

/// Properties that the verbs need in addition to those of an instance.
#[derive(Clone, Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub(super) struct More {
    pub(super) load_error: Option<(String, String)>,
    #[zbus(rename = "TimeoutStopUSec")]
    pub(super) timeout_stop: Option<u64>,
    pub(super) condition_result: Option<bool>,
}

/// The properties of a unit at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) about: UnitProperties,
    pub(super) service: ServiceProperties,
    pub(super) more: More,
}

impl Seen {
    fn is_there(&self) -> bool {
        self.about.load_state.as_deref() != Some("not-found")
    }

    pub(super) fn active(&self) -> &str {
        self.about.active_state.as_deref().unwrap_or_default()
    }

    pub(super) fn sub(&self) -> &str {
        self.about.sub_state.as_deref().unwrap_or_default()
    }

    pub(super) fn rests(&self) -> bool {
        matches!(self.active(), "inactive" | "failed" | "maintenance")
    }

    /// True if its processes are gone, and systemd keeps it up (`RemainAfterExit=`).
    pub(super) fn has_exited(&self) -> bool {
        self.active() == "active" && self.sub() == "exited"
    }

    /// True if one run is over, and systemd will start the next.
    pub(super) fn is_between(&self) -> bool {
        self.active() == "activating" && self.sub().starts_with("auto-restart")
    }

    /// True if the present run goes on.
    pub(super) fn runs(&self) -> bool {
        !self.rests() && !self.has_exited() && !self.is_between()
    }

    /// True if it is up already, so that a start changes nothing.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.active(), "active" | "reloading" | "refreshing") && !self.has_exited() || self.is_busy_job()
    }

    /// True for a `oneshot` at its work: systemd's start job is its whole run.
    fn is_busy_job(&self) -> bool {
        self.service.kind.as_deref() == Some("oneshot")
            && self.active() == "activating"
            && self.sub() == "start"
            && self.service.main_pid.unwrap_or(0) != 0
    }

    pub(super) fn is_frozen(&self) -> bool {
        matches!(self.about.freezer_state.as_deref(), Some("frozen" | "freezing" | "frozen-by-parent"))
    }

    /// True if it shows a failure, or automatic restarts, that a reset clears.
    pub(super) fn has_failures(&self) -> bool {
        let result = self.service.result.as_deref().unwrap_or_default();
        self.active() == "failed" || !matches!(result, "" | "success") || self.service.restarts.unwrap_or(0) != 0
    }

    pub(super) fn is_transient(&self) -> bool {
        self.about.transient == Some(true)
    }

    /// The current or last run; `None` before the first.
    pub(super) fn run(&self) -> Option<Incarnation> {
        if self.began() == 0 {
            return None;
        }
        self.about.invocation_id.as_deref().and_then(normalize::incarnation)
    }

    pub(super) fn began(&self) -> u64 {
        self.about.inactive_exit_timestamp_monotonic.unwrap_or(0)
    }

    /// The exit of the main process in the last run; `None` if it has not ended, was not observed, or there was none.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        if normalize::has_main_ended(&self.service) { normalize::exit(&self.service) } else { None }
    }
}
