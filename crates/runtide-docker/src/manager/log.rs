//! Output, byte for byte, as the daemon's log driver kept it.
//!
//! * One entry of the log is one [`LogLine`]: a line, or 16 KiB of a longer one. What asks for it is what takes it off the
//!   socket, so that a reader who stops holds the daemon back, and nothing is kept here but the entry at hand.
//! * Whether there are frames is the container's terminal setting, as the daemon tells it; it is not guessed from the bytes.
//! * Docker's `since` is inclusive, and so is its `until`; ours is exclusive, so it is asked for one nanosecond less.
//! * Docker counts a tail before it drops other streams and later times. Where that would make a difference the log is
//!   read twice: to count, and to skip.
//! * Docker 20.10 leaves off following when the container ends, also if it has not yet read the last lines (moby#37391). So
//!   at the end of a life the log's end is read again, and what was missed comes after all: see [`mark`](super::mark).
//! * Following goes to the end of the life that runs; what does not run has nothing to follow. Docker looks at `until` only
//!   when there is output, so the time is kept here too, by the daemon's clock.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{LogManager, LogOptions, LogSource, LogStream},
};

use super::{
    container::{Call, Container},
    frames::Decoder,
    reading::Reading,
    stamps,
};
use crate::client::Client;

pub(super) const OPERATION: &str = "docker.logs";

/// Containers' output.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    client: Client,
}

impl Logs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl LogManager for Logs {
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream> {
        let call = Call::on(&self.client, OPERATION, id)?;
        let container = call.look().await?;
        let Some(plan) = Plan::new(call, &container, &options)? else {
            return Ok(LogStream::new(stream::empty()));
        };
        let reading = Reading::open(self.client.clone(), id.clone(), plan).await?;
        Ok(LogStream::new(stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.line().await {
                Ok(Some(line)) => Some((Ok(line), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

/// What is asked of the daemon, and what is done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    query: String,
    pub(super) tail: Tail,
    tty: bool,
    /// Whether each entry comes with its time: if it was asked for, and if entries must be told apart.
    pub(super) stamped: bool,
    /// Whether the time was asked for.
    pub(super) shows_time: bool,
    pub(super) until: Option<SystemTime>,
    /// The life that is followed, if one is.
    pub(super) follows: Option<String>,
    pub(super) driver: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Everything that is there.
    All,
    /// The daemon counts.
    Daemon(u64),
    /// It is counted here: see the module.
    Ours(u64),
}

impl Plan {
    /// `None`: there can be no output of that sort.
    pub(super) fn new(call: Call<'_>, container: &Container, options: &LogOptions) -> Result<Option<Self>> {
        if container.host_config.log_config.driver == "none" {
            return Err(unreadable(call, "its log driver is 'none', which keeps nothing"));
        }
        let tty = container.config.tty;
        let wants = |source| options.sources.is_empty() || options.sources.contains(&source);
        if tty && !wants(LogSource::Console) {
            return Err(unreadable(
                call,
                "it has a terminal, so its outputs cannot be told apart: ask for the console",
            ));
        }
        let (stdout, stderr) = if tty { (true, true) } else { (wants(LogSource::Stdout), wants(LogSource::Stderr)) };
        let until = match options.until {
            None => None,
            Some(until) => match until.checked_sub(Duration::from_nanos(1)).and_then(stamps::query) {
                Some(last) => Some((until, last)),
                None => return Ok(None),
            },
        };
        if !stdout && !stderr {
            return Ok(None);
        }
        let follows =
            container.state.life().filter(|_| options.follow && container.state.is_alive()).map(str::to_owned);
        let stamped = options.timestamps || follows.is_some();
        let mut query = format!("stdout={stdout}&stderr={stderr}&timestamps={stamped}");
        if let Some(since) = options.since.and_then(stamps::query) {
            query.push_str("&since=");
            query.push_str(&since);
        }
        if let Some((_, last)) = &until {
            query.push_str("&until=");
            query.push_str(last);
        }
        Ok(Some(Self {
            query,
            tail: match options.tail {
                None => Tail::All,
                Some(tail) if tail > 0 && (until.is_some() || stdout != stderr) => Tail::Ours(tail),
                Some(tail) => Tail::Daemon(tail),
            },
            tty,
            stamped,
            shows_time: options.timestamps,
            until: until.map(|(until, _)| until),
            follows,
            driver: container.host_config.log_config.driver.clone(),
        }))
    }

    pub(super) fn path(&self, id: &str, follow: bool, tail: Option<u64>) -> String {
        // Docker reads a tail that it cannot count to as all.
        let tail =
            tail.filter(|tail| i64::try_from(*tail).is_ok()).map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        format!("/containers/{id}/logs?{}&follow={follow}&tail={tail}", self.query)
    }

    /// Whether an entry may be in several pieces, each with its time, of which only the first is seen to start.
    pub(super) fn hides_entries(&self) -> bool {
        self.tty
    }

    pub(super) fn decoder(&self) -> Decoder {
        if self.tty { Decoder::console(if self.stamped { stamps::STAMP } else { 0 }) } else { Decoder::framed() }
    }
}

pub(super) fn unreadable(call: Call<'_>, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    call.error(ErrorKind::Unsupported, format!("its output cannot be read: {reason}"))
        .with_context("feature", "logs")
        .with_context("reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const RUNS: &str = r#"{"State":{"Running":true,"StartedAt":"2024-01-01T00:00:00Z"}}"#;

    fn plan(container: &str, options: &LogOptions) -> Result<Option<Plan>> {
        let client = Client::new(Config::default()).unwrap();
        let call = Call { client: &client, operation: OPERATION, id: "c" };
        Plan::new(call, &serde_json::from_str(container).unwrap(), options)
    }

    fn at(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn until_is_exclusive_and_since_inclusive() {
        let options = LogOptions::default().with_since(at(2_000_000_000)).with_until(at(3_000_000_000));
        let query = plan("{}", &options).unwrap().unwrap().query;
        assert_eq!(query, "stdout=true&stderr=true&timestamps=false&since=2.000000000&until=2.999999999");
        let nothing = LogOptions::default().with_until(SystemTime::UNIX_EPOCH);
        assert_eq!(plan("{}", &nothing).unwrap(), None);
    }

    #[test]
    fn a_tail_is_left_to_the_daemon_only_where_it_counts_alike() {
        let tail = |options| plan("{}", &options).unwrap().unwrap().tail;
        let two = LogOptions::default().with_tail(2);
        assert_eq!(tail(LogOptions::default()), Tail::All);
        assert_eq!(tail(two.clone().with_since(at(1_000_000_000))), Tail::Daemon(2));
        assert_eq!(tail(two.clone().with_until(at(1_000_000_000))), Tail::Ours(2));
        assert_eq!(tail(two.with_sources(vec![LogSource::Stderr])), Tail::Ours(2));
        let none = LogOptions::default().with_tail(0).with_sources(vec![LogSource::Stderr]);
        assert_eq!(tail(none), Tail::Daemon(0));
    }

    #[test]
    fn only_what_runs_is_followed_and_then_with_times() {
        let follow = LogOptions::default().with_follow();
        let ended =
            plan(r#"{"State":{"Running":false,"StartedAt":"2024-01-01T00:00:00Z"}}"#, &follow).unwrap().unwrap();
        assert_eq!((ended.follows, ended.stamped), (None, false));
        let runs = plan(RUNS, &follow).unwrap().unwrap();
        assert_eq!(
            (runs.follows.as_deref(), runs.stamped, runs.shows_time),
            (Some("2024-01-01T00:00:00Z"), true, false)
        );
        assert!(runs.path("c", true, Some(u64::MAX)).ends_with("&follow=true&tail=all"));
        assert!(runs.path("c", true, Some(0)).ends_with("&follow=true&tail=0"));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let none = plan(r#"{"HostConfig":{"LogConfig":{"Type":"none"}}}"#, &LogOptions::default()).unwrap_err();
        let terminal = r#"{"Config":{"Tty":true}}"#;
        let apart = plan(terminal, &LogOptions::default().with_sources(vec![LogSource::Stdout])).unwrap_err();
        for error in [none, apart] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.context().iter().any(|(key, _)| *key == "reason"), "{error}");
        }
        let console = LogOptions::default().with_sources(vec![LogSource::Console]);
        assert!(plan(terminal, &console).unwrap().is_some());
        assert_eq!(plan("{}", &console).unwrap(), None);
    }
}
