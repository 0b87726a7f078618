//! Output, as stored in the journal.
//!
//! * The output of a unit's processes, and their messages by syslog or the journal's own protocol, are read by
//!   `journalctl` as a child (docs/decisions/0020). Messages of the manager about the unit are not its output.
//! * One entry is one [`LogLine`](runtide_core::manager::LogLine), with the ending of the line in the output. journald
//!   splits a line at 48 KiB (`LineMax=`); its pieces are returned as they are, without a newline in between.
//! * Both outputs of a unit go to one socket of journald, or to two that are not distinguished: all is `Console`.
//! * Every run of the unit that the journal has is read, also of an earlier boot, and of an earlier unit of that name;
//!   also of a unit that is not loaded any more, with a file or without one. `backup` is `backup.service`, as for
//!   `systemctl`.
//!   A follower reads to the end of the run that is current when the log is opened; an inactive unit has nothing to
//!   follow.
//! * Each entry has a cursor, which `journal` returns and `logs` does not. Another read continues after it.
//! * journald loses these before any read: empty lines; a `<3>` in front of a line (`SyslogLevelPrefix=`); lines above
//!   the rate limit (`LogRateLimitIntervalSec=`); messages that a process logged by syslog just before it ended, whose
//!   unit journald can no longer determine.

mod export;
mod flush;
mod journal;
mod reading;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::{TryStreamExt as _, stream};
use runtide_core::{
    ErrorKind, Incarnation, InstanceId, Result,
    manager::{LogManager, LogOptions, LogSource, LogStream},
};
use zbus::{DeserializeDict, Type};

use self::{
    journal::{Journal, is_id, unreadable},
    reading::Reading,
};
use super::run::{self, Run};
use crate::{
    client::{Client, SERVICE},
    journal::{JournaldCursor, JournaldOptions, JournaldStream},
    names,
};

const OPERATION: &str = "systemd.logs";

/// The output of units.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    client: Client,
}

impl Logs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Opens the output of one run, or of all, with cursors.
    pub(crate) async fn journal(&self, id: &InstanceId, options: JournaldOptions) -> Result<JournaldStream> {
        let JournaldOptions { logs: options, invocation, after } = options;
        let client = &self.client;
        // A unit that is not loaded has output, and no instance whose id the caller could have taken.
        let unit = names::completed(id.as_str());
        let unit = client.checked(OPERATION, &unit)?;
        if after.is_some() && options.tail.is_some() {
            let message = "a tail is counted from the end, so it cannot be combined with a cursor";
            return Err(client.invalid(OPERATION, message));
        }
        if let Some(invocation) = invocation.as_ref().filter(|invocation| !is_id(invocation.as_str())) {
            return Err(
                client.invalid(OPERATION, format!("'{invocation}' is no run's id: it has 32 hexadecimal digits"))
            );
        }
        if !options.sources.is_empty() && !options.sources.contains(&LogSource::Console) {
            let reason = "the journal does not distinguish stdout and stderr: use the console";
            return Err(unreadable(client, OPERATION, unit, reason));
        }
        // After an entry of another run, this run is filtered here, so that the entry itself is read.
        let journal = Journal::find(client, OPERATION, unit, invocation.as_ref().filter(|_| after.is_none())).await?;
        let about = run::about(client, OPERATION, unit).await?;
        if about.as_ref().is_some_and(|about| about.load_state.as_deref() != Some("not-found")) {
            self.check_goes_to_journal(unit).await?;
        } else if after.is_none() && !self.has_file(unit).await? {
            journal.flush().await?;
            if journal.within(journal.last()).await?.is_none() {
                let message = "there is no such unit, and the journal has nothing of it";
                return Err(journal.error(ErrorKind::NotFound, message));
            }
        }
        let run = about.as_ref().and_then(Run::of);
        let run = run.filter(|run| invocation.is_none() || run.incarnation == invocation);
        let Some(plan) = Plan::new(unit, run, &options, SystemTime::now()) else {
            return Ok(JournaldStream::new(stream::empty()));
        };
        let plan = Plan { after, invocation, ..plan };
        let reading = Reading::open(client.clone(), journal, plan).await?;
        Ok(JournaldStream::new(stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.line().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    /// True if there is a file of a unit that is not loaded.
    async fn has_file(&self, unit: &str) -> Result<bool> {
        match self.client.manager(OPERATION, "GetUnitFileState", &(unit,)).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn check_goes_to_journal(&self, unit: &str) -> Result<()> {
        if names::type_of(unit) != Some("service") {
            return Ok(());
        }
        let asked = async {
            let path = self.client.get_unit(OPERATION, unit).await?;
            let answer = self.client.get_all(OPERATION, path.as_str(), SERVICE).await?;
            self.client.read::<Outputs>(OPERATION, &answer)
        };
        let outputs = match asked.await {
            Ok(outputs) => outputs,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match outputs.elsewhere() {
            None => Ok(()),
            Some(reason) => Err(unreadable(&self.client, OPERATION, unit, reason)),
        }
    }
}

#[async_trait]
impl LogManager for Logs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let journal = self.journal(id, JournaldOptions::default().with_logs(options)).await?;
        Ok(LogStream::new(journal.map_ok(|entry| entry.line)))
    }
}

/// Targets of a service's output.
#[derive(Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct Outputs {
    standard_output: Option<String>,
    standard_error: Option<String>,
    log_namespace: Option<String>,
}

impl Outputs {
    /// The reason why the journal has none of it.
    fn elsewhere(&self) -> Option<String> {
        let namespace = self.log_namespace.as_deref().unwrap_or_default();
        if !namespace.is_empty() {
            return Some(format!("it goes to a separate journal (LogNamespace={namespace})"));
        }
        let is_kept = |output: &str| ["journal", "syslog"].iter().any(|kept| output.starts_with(kept));
        let out = self.standard_output.as_deref()?;
        let err = self.standard_error.as_deref().filter(|err| *err != "inherit").unwrap_or(out);
        (!is_kept(out) && !is_kept(err))
            .then(|| format!("it does not go to the journal (StandardOutput={out}, StandardError={err})"))
    }
}

/// The part of the journal to read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    unit: String,
    /// First and last microsecond since 1970.
    since: Option<u64>,
    until: Option<u64>,
    /// Number of existing entries, from the end.
    tail: Option<u32>,
    /// The run whose end is awaited.
    follows: Option<Run>,
    /// Time at which following ends.
    deadline: Option<SystemTime>,
    timestamps: bool,
    /// Only entries after this one.
    after: Option<JournaldCursor>,
    /// Only entries of this run.
    invocation: Option<Incarnation>,
}

impl Plan {
    /// Plans a read; `None`: there can be no such output.
    fn new(unit: &str, run: Option<Run>, options: &LogOptions, now: SystemTime) -> Option<Self> {
        // journald counts microseconds: the first one that is not before, and the last one that is before.
        let since = options.since.map(|since| nanoseconds(since).div_ceil(1000));
        let until = match options.until {
            Some(until) => Some(nanoseconds(until).checked_sub(1)? / 1000),
            None => None,
        };
        let follows = run.filter(|_| options.follow && options.until.is_none_or(|until| until > now));
        let tail = match options.tail {
            Some(0) if follows.is_none() => return None,
            // journalctl's counter ends there, and no journal has so many entries.
            tail => tail.and_then(|tail| u32::try_from(tail).ok()).filter(|tail| i32::try_from(*tail).is_ok()),
        };
        let in_range = |microseconds: u128| u64::try_from(microseconds).unwrap_or(u64::MAX);
        Some(Self {
            unit: unit.to_owned(),
            since: since.map(in_range),
            until: until.map(in_range),
            tail,
            deadline: options.until.filter(|_| follows.is_some()),
            follows,
            timestamps: options.timestamps,
            after: None,
            invocation: None,
        })
    }
}

/// Nanoseconds since 1970; 0 for a time before, when there was no journal.
fn nanoseconds(at: SystemTime) -> u128 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos()
}
