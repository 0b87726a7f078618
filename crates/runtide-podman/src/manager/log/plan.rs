//! From [`LogOptions`] and the container's description to Podman's query: pure.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use runtide_core::{
    ErrorKind, Result,
    manager::{LogOptions, LogSource},
};
use runtide_engine::Request;

use crate::manager::container::{Call, Container};

pub(super) const OPERATION: &str = "podman.logs";

/// The query that Podman gets, and the part of the options that is applied on this side.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own; all combinations occur")]
pub(super) struct Plan {
    stdout: bool,
    stderr: bool,
    pub(super) tty: bool,
    pub(super) since: Option<SystemTime>,
    pub(super) until: Option<SystemTime>,
    /// Number of existing lines to read.
    pub(super) tail: Option<u64>,
    /// The caller asked for the time.
    pub(super) shows_time: bool,
    /// Begin of the run that is followed; `None`: the log is read to its end and no further.
    pub(super) follows: Option<SystemTime>,
    /// The container's id, also if the caller gave its name.
    pub(super) container: String,
}

impl Plan {
    /// `None`: the container has no output of the kind that the options ask for.
    pub(super) fn new(call: Call<'_>, container: &Container, options: &LogOptions) -> Result<Option<Self>> {
        let driver = container.host_config.log_config.driver.as_str();
        let unsupported = |reason: String| {
            call.error(ErrorKind::Unsupported, format!("its output cannot be read: {reason}"))
                .with_context("feature", "logs")
                .with_context("reason", reason)
                .with_context("log_driver", driver)
        };
        if matches!(driver, "none" | "passthrough" | "passthrough-tty") {
            return Err(unsupported(format!("its log driver is '{driver}', which stores nothing")));
        }
        let tty = container.config.tty;
        let wants = |source| options.sources.is_empty() || options.sources.contains(&source);
        if tty && !wants(LogSource::Console) {
            let why = "it has a terminal, so its outputs cannot be distinguished: ask for the console";
            return Err(unsupported(why.to_owned()));
        }
        let (stdout, stderr) = if tty { (true, true) } else { (wants(LogSource::Stdout), wants(LogSource::Stderr)) };
        if (!stdout && !stderr) || options.until.is_some_and(|until| until <= SystemTime::UNIX_EPOCH) {
            return Ok(None);
        }
        Ok(Some(Self {
            stdout,
            stderr,
            tty,
            since: options.since,
            until: options.until,
            tail: options.tail,
            shows_time: options.timestamps,
            follows: container.began().filter(|_| options.follow && container.state.is_alive()),
            container: container.id.clone(),
        }))
    }

    /// The request for the log from `since` (inclusive) to `until` (exclusive).
    pub(super) fn request(&self, follow: bool, since: Option<SystemTime>, until: Option<SystemTime>) -> Request {
        let mut request = Request::get(format!("/containers/{}/logs", self.container))
            .with_query("stdout", self.stdout)
            .with_query("stderr", self.stderr)
            .with_query("timestamps", true)
            .with_query("follow", follow);
        let before = since.and_then(|since| since.checked_sub(Duration::from_nanos(1)));
        if let Some(since) = before.filter(|since| *since > SystemTime::UNIX_EPOCH).and_then(stamp) {
            request = request.with_query("since", since);
        }
        if let Some(until) = until.and_then(stamp) {
            request = request.with_query("until", until);
        }
        request
    }

    /// The source of a frame of this stream.
    pub(super) fn source(&self, framed: LogSource) -> LogSource {
        if self.tty { LogSource::Console } else { framed }
    }
}

/// A time in the form that Podman reads without loss; `None`: it is beyond any that a log can have.
fn stamp(at: SystemTime) -> Option<String> {
    Timestamp::try_from(at).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Client, config::Config};

    fn plan(json: &str, options: &LogOptions) -> Result<Option<Plan>> {
        let client = Client::new(Config::default()).unwrap();
        let id = "a1".into();
        let call = Call::on(&client, OPERATION, &id).unwrap();
        Plan::new(call, &serde_json::from_str(json).unwrap(), options)
    }

    const RUNNING: &str = r#"{"Id":"a1","State":{"Status":"running","StartedAt":"2026-11-30T15:21:56.5Z"},"HostConfig":{"LogConfig":{"Type":"k8s-file"}}}"#;

    #[test]
    fn bounds_keep_every_nanosecond_and_are_inclusive_and_exclusive() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_796_052_116, 552_073_644);
        let plan = plan(RUNNING, &LogOptions::default().with_follow()).unwrap().unwrap();
        assert!(plan.follows.is_some());
        let request = plan.request(false, Some(at), Some(at));
        assert_eq!(
            request.path_and_query(),
            "/containers/a1/logs?stdout=true&stderr=true&timestamps=true&follow=false\
             &since=2026-11-30T15%3A21%3A56.552073643Z&until=2026-11-30T15%3A21%3A56.552073644Z"
        );
        let all = plan.request(true, Some(SystemTime::UNIX_EPOCH), None);
        assert!(!all.path_and_query().contains("since"), "{}", all.path_and_query());
    }

    #[test]
    fn an_output_that_cannot_be_read_names_its_driver() {
        for driver in ["none", "passthrough"] {
            let error = plan(&RUNNING.replace("k8s-file", driver), &LogOptions::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(driver), "{error}");
        }
    }

    #[test]
    fn a_terminal_has_one_output() {
        let tty = RUNNING.replace(r#""HostConfig""#, r#""Config":{"Tty":true},"HostConfig""#);
        let console = plan(&tty, &LogOptions::default()).unwrap().unwrap();
        assert_eq!(console.source(LogSource::Stdout), LogSource::Console);
        let stderr = LogOptions::default().with_sources(vec![LogSource::Stderr]);
        assert_eq!(plan(&tty, &stderr).unwrap_err().kind(), ErrorKind::Unsupported);
        let none = LogOptions::default().with_sources(vec![LogSource::Console]);
        assert!(plan(RUNNING, &none).unwrap().is_none());
    }
}
