//! Output of a pod's main container, or of each container where these are the instances.
//!
//! Kubernetes keeps both outputs in one. Each line is asked for with its time, also where the caller wants none: a follow goes on by it,
//! and a text of the node's own (the output is gone) has none (trap K16).

mod pieces;
mod place;
mod reading;

use std::time::SystemTime;

use async_trait::async_trait;
use jiff::Timestamp;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{LogManager, LogOptions, LogSource, LogStream},
};

use self::reading::Reading;
use super::subject::Subject;
use crate::client::Client;

const LOGS: &str = "k8s.logs";
const KEPT_TOGETHER: &str = "Kubernetes keeps both outputs of a container in one, without their sources";

/// Reads the output of pods.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    client: Client,
}

/// The options in the server's terms.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    timestamps: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Logs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn wanted(&self, options: &LogOptions) -> Result<Wanted> {
        let site = self.client.site(LOGS);
        let has = |source| options.sources.contains(&source);
        let is_all =
            options.sources.is_empty() || has(LogSource::Console) || (has(LogSource::Stdout) && has(LogSource::Stderr));
        if !is_all {
            let error = site.error(ErrorKind::Unsupported, KEPT_TOGETHER);
            return Err(error.with_context("feature", "logs_read").with_context("reason", KEPT_TOGETHER));
        }
        let time = |key: &'static str, at: Option<SystemTime>| {
            let impossible = |error: jiff::Error| {
                site.error(ErrorKind::InvalidInput, "no calendar has this time")
                    .with_context("key", key)
                    .with_source(error)
            };
            at.map(|at| Timestamp::try_from(at).map_err(impossible)).transpose()
        };
        let (since, until) = (time("since", options.since)?, time("until", options.until)?);
        Ok(Wanted { timestamps: options.timestamps, tail: options.tail, since, until })
    }

    /// The output of the run before the present one.
    pub(crate) async fn previous(&self, id: &InstanceId, options: &LogOptions) -> Result<LogStream> {
        if options.follow {
            let site = self.client.site(LOGS);
            return Err(site.error(ErrorKind::InvalidInput, "a run that is over is not followed"));
        }
        let wanted = self.wanted(options)?;
        let subject = Subject::find(&self.client, LOGS, id).await?;
        let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
        Reading::of_previous(subject, wanted, &seen).await.map(Reading::into_stream)
    }
}

/// True for a container that the server does not have output of yet.
fn is_not_started(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidInput
}

#[async_trait]
impl LogManager for Logs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let wanted = self.wanted(&options)?;
        let subject = Subject::find(&self.client, LOGS, id).await?;
        let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
        let reading = if options.follow {
            Reading::following(subject, wanted, &seen).await
        } else {
            Reading::once(subject, wanted, &seen).await
        };
        reading.map(Reading::into_stream)
    }
}
