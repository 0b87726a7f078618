//! Resource usage, as the manager reads it from control groups.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{ErrorKind, Incarnation, InstanceId, Result, StatsManager, Usage, UsageStream};
use tokio::time::{Interval, MissedTickBehavior};
use zbus::{DeserializeDict, Type};

use super::life::{self, Life};
use crate::{
    client::{Client, SCOPE, SERVICE},
    names,
};

const OPERATION: &str = "systemd.usage";

/// Units' usage.
///
/// What the manager does not count (`MemoryAccounting=no`, `IPAccounting=no` and the like) is absent.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    client: Client,
}

impl Stats {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// One reading, and the life that it is of; `None`: it does not run.
    async fn read(&self, unit: &str) -> Result<Option<(Usage, Option<Incarnation>)>> {
        let client = &self.client;
        let Some(about) = life::about(client, OPERATION, unit).await? else {
            let message = "there is no such unit loaded";
            return Err(client.place(OPERATION).error(ErrorKind::NotFound, message).with_context("instance", unit));
        };
        let Some(life) = Life::of(&about) else { return Ok(None) };
        let interface = if names::type_of(unit) == Some("scope") { SCOPE } else { SERVICE };
        let path = client.get_unit(OPERATION, unit).await?;
        let answer = client.get_all(OPERATION, path.as_str(), interface).await?;
        let counts: Counts = client.read(OPERATION, &answer)?;
        Ok(Some((counts.usage(SystemTime::now()), life.incarnation)))
    }

    fn rests(&self, unit: &str) -> runtide_core::Error {
        self.client
            .place(OPERATION)
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
    /// `None`: that life is over.
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

/// Of `org.freedesktop.systemd1.Service` and `….Scope`; 2^64-1 stands for unknown, and for no limit.
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
    fn what_is_not_counted_is_absent_and_not_zero() {
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
}
