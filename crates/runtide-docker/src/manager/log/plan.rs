//! From [`LogOptions`] and the container's description to the daemon's query: pure.

use std::time::{Duration, SystemTime};

use runtide_core::{
    Error, ErrorKind, Result,
    manager::{LogOptions, LogSource},
};
use runtide_engine::output::{Decoder, timestamp};

use crate::manager::container::{Call, Container};

pub(super) const OPERATION: &str = "docker.logs";

/// The query that the daemon gets, and the part of the options that is applied on this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    query: String,
    pub(super) tail: Tail,
    tty: bool,
    /// Each entry comes with its time: the caller asked for it, or entries must be distinguished.
    pub(super) stamped: bool,
    /// The caller asked for the time.
    pub(super) shows_time: bool,
    pub(super) since: Option<SystemTime>,
    pub(super) until: Option<SystemTime>,
    /// The incarnation that is followed; `None`: the log is read to its end and no further.
    pub(super) follows: Option<String>,
    pub(super) driver: String,
    /// The container's id, also if the caller gave its name.
    pub(super) container: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Every entry of the log.
    All,
    /// The daemon counts this many entries.
    ByDaemon(u64),
    /// The reader counts this many entries, since the daemon would count others too: see the module.
    ByReader(u64),
}

impl Plan {
    /// `None`: the container has no output of the kind that the options ask for.
    pub(super) fn new(call: Call<'_>, container: &Container, options: &LogOptions) -> Result<Option<Self>> {
        if container.host_config.log_config.driver == "none" {
            return Err(unreadable(call, "its log driver is 'none', which stores nothing"));
        }
        let tty = container.config.tty;
        let wants = |source| options.sources.is_empty() || options.sources.contains(&source);
        if tty && !wants(LogSource::Console) {
            return Err(unreadable(
                call,
                "it has a terminal, so its outputs cannot be distinguished: ask for the console",
            ));
        }
        let (stdout, stderr) = if tty { (true, true) } else { (wants(LogSource::Stdout), wants(LogSource::Stderr)) };
        let until = match options.until {
            None => None,
            Some(until) => match until.checked_sub(Duration::from_nanos(1)).and_then(timestamp::query) {
                Some(last) => Some((until, last)),
                None => return Ok(None),
            },
        };
        if !stdout && !stderr {
            return Ok(None);
        }
        let is_followed = options.follow && container.state.is_alive();
        let follows = container.state.incarnation().filter(|_| is_followed).map(str::to_owned);
        let tail = match options.tail {
            None => Tail::All,
            Some(tail) if tail > 0 && (until.is_some() || stdout != stderr) => Tail::ByReader(tail),
            Some(tail) => Tail::ByDaemon(tail),
        };
        // With a terminal the entries are counted by their times.
        let counted = tty && matches!(tail, Tail::ByReader(_));
        let stamped = options.timestamps || follows.is_some() || counted;
        let mut query = format!("stdout={stdout}&stderr={stderr}&timestamps={stamped}");
        if let Some((_, last)) = &until {
            query.push_str("&until=");
            query.push_str(last);
        }
        Ok(Some(Self {
            query,
            tail,
            tty,
            stamped,
            shows_time: options.timestamps,
            since: options.since,
            until: until.map(|(until, _)| until),
            follows,
            driver: container.host_config.log_config.driver.clone(),
            container: container.id.clone(),
        }))
    }

    /// The path of a request for the log from `since` (inclusive) on.
    pub(super) fn path(&self, id: &str, follow: bool, tail: Option<u64>, since: Option<SystemTime>) -> String {
        // Docker reads a tail beyond an i64 as "all".
        let tail =
            tail.filter(|tail| i64::try_from(*tail).is_ok()).map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let since = since.and_then(timestamp::query).map(|since| format!("&since={since}")).unwrap_or_default();
        format!("/containers/{id}/logs?{}{since}&follow={follow}&tail={tail}", self.query)
    }

    pub(super) fn decoder(&self) -> Decoder {
        if self.tty { Decoder::console(self.stamped) } else { Decoder::framed() }
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
    use crate::{client::Client, config::Config};

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
        let plan_of = plan("{}", &options).unwrap().unwrap();
        assert_eq!(
            plan_of.path("c", false, None, plan_of.since),
            "/containers/c/logs?stdout=true&stderr=true&timestamps=false&until=2.999999999&since=2.000000000&follow=false&tail=all"
        );
        let nothing = LogOptions::default().with_until(SystemTime::UNIX_EPOCH);
        assert_eq!(plan("{}", &nothing).unwrap(), None);
    }

    #[test]
    fn the_daemon_counts_the_tail_only_where_it_counts_the_same_entries() {
        let tail = |options| plan("{}", &options).unwrap().unwrap().tail;
        let two = LogOptions::default().with_tail(2);
        assert_eq!(tail(LogOptions::default()), Tail::All);
        assert_eq!(tail(two.clone().with_since(at(1_000_000_000))), Tail::ByDaemon(2));
        assert_eq!(tail(two.clone().with_until(at(1_000_000_000))), Tail::ByReader(2));
        assert_eq!(tail(two.with_sources(vec![LogSource::Stderr])), Tail::ByReader(2));
        let none = LogOptions::default().with_tail(0).with_sources(vec![LogSource::Stderr]);
        assert_eq!(tail(none), Tail::ByDaemon(0));
    }

    #[test]
    fn only_a_running_container_is_followed_and_then_with_times() {
        let follow = LogOptions::default().with_follow();
        let ended =
            plan(r#"{"State":{"Running":false,"StartedAt":"2024-01-01T00:00:00Z"}}"#, &follow).unwrap().unwrap();
        assert_eq!((ended.follows, ended.stamped), (None, false));
        let runs = plan(RUNS, &follow).unwrap().unwrap();
        assert_eq!(
            (runs.follows.as_deref(), runs.stamped, runs.shows_time),
            (Some("2024-01-01T00:00:00Z"), true, false)
        );
        assert!(runs.path("c", true, Some(u64::MAX), None).ends_with("&follow=true&tail=all"));
        assert!(runs.path("c", true, Some(0), None).ends_with("&follow=true&tail=0"));
    }

    #[test]
    fn an_unreadable_log_is_refused_with_its_reason() {
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
