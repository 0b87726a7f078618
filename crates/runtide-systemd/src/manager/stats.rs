//! Resource usage, as the manager reads it from control groups.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    ErrorKind, Incarnation, InstanceId, Result,
    manager::{StatsManager, Usage, UsageStream},
};
use tokio::time::{Interval, MissedTickBehavior};
use zbus::{DeserializeDict, Type};

use super::run::{self, Run};
use crate::{
    client::{Client, SCOPE, SERVICE},
    names,
};

const OPERATION: &str = "systemd.usage";

/// Resource usage of units. A figure that the manager does not account (`MemoryAccounting=no`, `IPAccounting=no` and
/// the like) is absent.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    client: Client,
}

impl Stats {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads once, and returns the run that it is of; `None`: the unit does not run.
    async fn read(&self, unit: &str) -> Result<Option<(Usage, Option<Incarnation>)>> {
        let client = &self.client;
        let Some(about) = run::about(client, OPERATION, unit).await? else {
            let message = "there is no such unit loaded";
            return Err(client.site(OPERATION).error(ErrorKind::NotFound, message).with_context("instance", unit));
        };
        let Some(run) = Run::of(&about) else { return Ok(None) };
        let interface = if names::type_of(unit) == Some("scope") { SCOPE } else { SERVICE };
        let path = client.get_unit(OPERATION, unit).await?;
        let answer = client.get_all(OPERATION, path.as_str(), interface).await?;
        let counts: Counts = client.read(OPERATION, &answer)?;
        Ok(Some((counts.usage(SystemTime::now()), run.incarnation)))
    }

    fn rests(&self, unit: &str) -> runtide_core::Error {
        self.client
            .site(OPERATION)
            .error(ErrorKind::Conflict, "it does not run, so there is nothing to measure")
            .with_context("instance", unit)
    }
}

#[async_trait]
impl StatsManager for Stats {
    async fn usage(&self, id: &InstanceId) -> Result<Usage> {
        let unit = self.client.checked(OPERATION, id.as_str())?;
        match self.read(unit).await? {
            Some((usage, _)) => Ok(usage),
            None => Err(self.rests(unit)),
        }
    }

    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream> {
        let unit = self.client.checked(OPERATION, id.as_str())?.to_owned();
        if every.is_zero() {
            return Err(self.client.invalid(OPERATION, "a period of zero never ends"));
        }
        let Some((first, incarnation)) = self.read(&unit).await? else { return Err(self.rests(&unit)) };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reading = Readings { stats: self.clone(), unit, incarnation, ticks, first: Some(first) };
        Ok(UsageStream::new(stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(usage)) => Some((Ok(usage), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

/// An opened stream of readings.
struct Readings {
    stats: Stats,
    unit: String,
    incarnation: Option<Incarnation>,
    ticks: Interval,
    first: Option<Usage>,
}

impl Readings {
    /// Returns the next reading; `None`: the run is over.
    async fn next(&mut self) -> Result<Option<Usage>> {
        self.ticks.tick().await;
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.stats.read(&self.unit).await {
            Ok(Some((usage, incarnation))) if incarnation == self.incarnation => Ok(Some(usage)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Properties of `org.freedesktop.systemd1.Service` and `….Scope`; 2^64-1 means unknown, or no limit.
#[derive(Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct Counts {
    memory_current: Option<u64>,
    memory_max: Option<u64>,
    #[zbus(rename = "CPUUsageNSec")]
    cpu_usage: Option<u64>,
    tasks_current: Option<u64>,
    #[zbus(rename = "IOReadBytes")]
    io_read_bytes: Option<u64>,
    #[zbus(rename = "IOWriteBytes")]
    io_write_bytes: Option<u64>,
    #[zbus(rename = "IPIngressBytes")]
    ip_ingress_bytes: Option<u64>,
    #[zbus(rename = "IPEgressBytes")]
    ip_egress_bytes: Option<u64>,
}

impl Counts {
    fn usage(&self, at: SystemTime) -> Usage {
        let known = |count: Option<u64>| count.filter(|count| *count != u64::MAX);
        let mut usage = Usage::new(at);
        usage.cpu = known(self.cpu_usage).map(Duration::from_nanos);
        usage.memory_bytes = known(self.memory_current);
        usage.memory_limit = known(self.memory_max);
        usage.received_bytes = known(self.ip_ingress_bytes);
        usage.sent_bytes = known(self.ip_egress_bytes);
        usage.read_bytes = known(self.io_read_bytes);
        usage.written_bytes = known(self.io_write_bytes);
        usage.pids = known(self.tasks_current);
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_not_accounted_is_absent_and_not_zero() {
        let counts = Counts {
            memory_current: Some(4096),
            memory_max: Some(u64::MAX),
            cpu_usage: Some(1_500_000_000),
            tasks_current: Some(0),
            io_read_bytes: Some(u64::MAX),
            ..Counts::default()
        };
        let usage = counts.usage(SystemTime::UNIX_EPOCH);
        assert_eq!((usage.memory_bytes, usage.memory_limit), (Some(4096), None));
        assert_eq!((usage.cpu, usage.pids), (Some(Duration::from_millis(1500)), Some(0)));
        assert_eq!((usage.read_bytes, usage.received_bytes), (None, None));
    }

    #[tokio::test]
    async fn a_run_is_measured_to_its_end() {
        use futures_util::StreamExt as _;

        let Some(fixture) = super::super::fixture::Fixture::find().await else { return };
        let stats = Stats::new(fixture.client.clone());
        let gate = super::super::fixture::Gate::of(&fixture);
        let work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let id = fixture.start(&format!("{work}; {}", gate.passed()), vec![]).await;
        let usage = stats.usage(&id).await.unwrap();
        // The testbed's control groups have no other controllers.
        assert!(usage.cpu.is_some(), "{usage:?}");
        let measured = stats.usage_stream(&id, Duration::from_millis(50)).await.unwrap();
        let measured = measured.map(Result::unwrap).enumerate().map(|(number, usage)| {
            if number == 3 {
                gate.open();
            }
            usage
        });
        let readings = tokio::time::timeout(Duration::from_secs(60), measured.collect::<Vec<_>>()).await.unwrap();
        assert!(readings.len() > 3 && readings.is_sorted_by_key(|usage| usage.at), "{}", readings.len());
        // The last reading may find the control group removed, and then nothing is known.
        assert!(readings.iter().rev().find_map(|usage| usage.cpu) > Some(Duration::ZERO), "{readings:?}");
        let gone = stats.usage(&id).await.unwrap_err();
        assert!(matches!(gone.kind(), ErrorKind::NotFound | ErrorKind::Conflict), "{gone}");
    }

    #[tokio::test]
    async fn an_inactive_unit_is_not_measured() {
        let Some(fixture) = super::super::fixture::Fixture::find().await else { return };
        let id = fixture.start("exit 0", vec![("RemainAfterExit", zbus::Variant::from(true))]).await;
        fixture.ended(&id).await;
        let error = Stats::new(fixture.client.clone()).usage(&id).await.unwrap_err();
        fixture.stop(&id).await;
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }

    #[tokio::test]
    async fn ports_are_those_of_the_processes_in_the_control_group() {
        let Some(fixture) = super::super::fixture::Fixture::find().await else { return };
        let lines = [
            "import socket,time",
            "s=socket.socket()",
            "s.bind((\"127.0.0.1\",0))",
            "s.listen()",
            "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)",
            "u.bind((\"127.0.0.1\",0))",
            "time.sleep(1000)",
        ];
        let id = fixture.start(&format!("exec python3 -c '{}'", lines.join("\n")), vec![]).await;
        let path = fixture.client.get_unit("test", id.as_str()).await.unwrap();
        let group: String = fixture.client.get("test", path.as_str(), SERVICE, "ControlGroup").await.unwrap();
        let both = async {
            loop {
                let seen = crate::sockets::ports(&fixture.client, &group, &[]).await.unwrap();
                if seen.len() == 2 {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(60), both).await.expect("both ports");
        fixture.stop(&id).await;
        assert!(seen.iter().all(|port| port.published.len() == 1), "{seen:?}");
        assert_eq!(crate::sockets::ports(&fixture.client, "/system.slice/none.service", &[]).await, None);
        let bus = crate::sockets::ports(&fixture.client, "", &["dbus.socket".to_owned()]).await;
        assert_eq!(bus, Some(vec![]), "a path is no port");
    }
}
