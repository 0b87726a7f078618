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

/// How often to look while something is awaited that no signal reports.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// A call in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) client: &'a Client,
    pub(super) operation: &'static str,
    pub(super) unit: &'a str,
}

impl<'a> Call<'a> {
    /// Nothing is sent for what is no unit's name.
    pub(super) fn on(client: &'a Client, operation: &'static str, id: &'a InstanceId) -> Result<Self> {
        client.check_open(operation)?;
        Ok(Self { client, operation, unit: client.checked(operation, id.as_str())? })
    }

    /// Bounds a verb by the time for jobs, and by what the caller allows on top of it.
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

    /// A conflict with the state that the unit is in.
    pub(super) fn conflict(self, message: impl Into<String>, seen: &Seen) -> Error {
        self.error(ErrorKind::Conflict, message).with_context("state", format!("{}/{}", seen.active(), seen.sub()))
    }

    /// The unit as it is, `None` if it is not loaded. Loads nothing.
    pub(super) async fn look_if_loaded(self) -> Result<Option<Seen>> {
        match self.client.get_unit(self.operation, self.unit).await {
            Ok(path) => Ok(Some(self.read(&path).await?).filter(Seen::is_there)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The unit as it is. systemd forgets units that rest, so one that has a file may have to be loaded to be seen.
    pub(super) async fn look(self) -> Result<Seen> {
        if let Some(seen) = self.look_if_loaded().await? {
            return Ok(seen);
        }
        let answer = self.client.manager(self.operation, "LoadUnit", &(self.unit,)).await?;
        let path: OwnedObjectPath = self.client.read(self.operation, &answer)?;
        let seen = self.read(&path).await?;
        if seen.is_there() { Ok(seen) } else { Err(self.error(ErrorKind::NotFound, "there is no such unit")) }
    }

    /// Everything at one moment, by one call.
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

    /// Looks again and again until `done` gives something. The caller bounds it.
    pub(super) async fn until<T>(self, mut done: impl FnMut(Option<&Seen>) -> Option<T>) -> Result<T> {
        let mut pause = LOOK_AFTER.0;
        loop {
            if let Some(found) = done(self.look_if_loaded().await?.as_ref()) {
                return Ok(found);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AFTER.1);
        }
    }

    /// As [`until`](Self::until), at most for `limit`.
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

    /// Sends a signal to the main process, or to all where there is none.
    ///
    /// # Errors
    /// `Conflict`: no process is there.
    pub(super) async fn signal(self, whom: Whom, signal: u8) -> Result<()> {
        let whose: &[&str] = match whom {
            Whom::Main if names::type_of(self.unit) == Some("service") => &["main", "all"],
            _ => &["all"],
        };
        let mut refused = None;
        for whose in whose {
            match self.client.manager(self.operation, "KillUnit", &(self.unit, *whose, i32::from(signal))).await {
                Ok(_) => return Ok(()),
                Err(error) if is_nobody(&error) => refused = Some(error),
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
            // What rests may be unloaded at any time.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets that it failed, and how often it was started. What is not loaded has nothing to be forgotten.
    pub(super) async fn reset_failed(self, unit: &str) -> Result<()> {
        let told = self.client.call(self.operation, (ROOT, MANAGER, "ResetFailedUnit"), &(unit,)).await;
        match told {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Which processes of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Main,
    All,
}

/// True if systemd said that no process is there, and not that no unit is.
fn is_nobody(error: &Error) -> bool {
    error.context().iter().any(|(key, value)| *key == "reason" && &**value == "NoSuchProcess")
}

/// What the verbs need beyond what an instance is made of.
#[derive(Clone, Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub(super) struct More {
    pub(super) load_error: Option<(String, String)>,
    #[zbus(rename = "TimeoutStopUSec")]
    pub(super) timeout_stop: Option<u64>,
    pub(super) condition_result: Option<bool>,
}

/// A unit at one moment.
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

    /// Its processes are gone, and systemd keeps it up (`RemainAfterExit=`).
    pub(super) fn has_exited(&self) -> bool {
        self.active() == "active" && self.sub() == "exited"
    }

    /// One run is over, and the next will be begun.
    pub(super) fn is_between(&self) -> bool {
        self.active() == "activating" && self.sub().starts_with("auto-restart")
    }

    /// True if the present run goes on.
    pub(super) fn lives(&self) -> bool {
        !self.rests() && !self.has_exited() && !self.is_between()
    }

    /// True if it is up already, so that to start it changes nothing.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.active(), "active" | "reloading" | "refreshing") && !self.has_exited() || self.is_busy_job()
    }

    /// A `oneshot` at its work: what systemd calls its start is all of its run.
    fn is_busy_job(&self) -> bool {
        self.service.kind.as_deref() == Some("oneshot")
            && self.active() == "activating"
            && self.sub() == "start"
            && self.service.main_pid.unwrap_or(0) != 0
    }

    pub(super) fn is_frozen(&self) -> bool {
        matches!(self.about.freezer_state.as_deref(), Some("frozen" | "freezing" | "frozen-by-parent"))
    }

    /// True if it shows a failure, or automatic restarts, that a reset takes back.
    pub(super) fn has_failures(&self) -> bool {
        let result = self.service.result.as_deref().unwrap_or_default();
        self.active() == "failed" || !matches!(result, "" | "success") || self.service.restarts.unwrap_or(0) != 0
    }

    pub(super) fn is_transient(&self) -> bool {
        self.about.transient == Some(true)
    }

    /// Which run it is or was in last; `None` before the first.
    pub(super) fn life(&self) -> Option<Incarnation> {
        if self.began() == 0 {
            return None;
        }
        self.about.invocation_id.as_deref().and_then(normalize::incarnation)
    }

    pub(super) fn began(&self) -> u64 {
        self.about.inactive_exit_timestamp_monotonic.unwrap_or(0)
    }

    /// How the main process of the last run ended; `None` if it did not, if nobody saw it, or if there was none.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        if normalize::is_of_life(&self.about, &self.service) { normalize::exit(&self.service) } else { None }
    }
}
