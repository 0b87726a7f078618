//! [`Stats`]: resource usage, as the daemon reads it from the control groups.
//!
//! * A reading is one request, the same for both versions of control groups. The daemon's own stream is not used: it has one reading
//!   per second, whatever the period, and goes on with empty ones when the container has ended (trap D36).
//! * An empty reading is not zero usage: the container does not run.
//! * Memory counts as in `docker stats`: without the file cache that is not in use.
//! * A stream is of one run. It is inspected after each reading, and the end of the run is awaited between two of them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{StatsManager, Usage, UsageStream},
};
use runtide_engine::{Request, lenient, log_left_out, readings};
use serde::Deserialize;

use super::{container::Call, wait};
use crate::{client::Client, normalize::time};

const OPERATION: &str = "docker.usage";

/// The [`StatsManager`] of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    client: Client,
}

impl Stats {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl StatsManager for Stats {
    async fn usage(&self, id: &InstanceId) -> Result<Usage> {
        let call = Call::on(&self.client, OPERATION, id)?;
        call.bounded(async {
            let container = call.inspect().await?;
            let call = call.of(&container);
            match read(call).await? {
                Some(usage) => Ok(usage),
                None => Err(absent(call).await),
            }
        })
        .await
    }

    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream> {
        let call = Call::on(&self.client, OPERATION, id)?;
        if every.is_zero() {
            return Err(call.error(ErrorKind::InvalidInput, "a period of zero never ends"));
        }
        let (first, id, run) = call.bounded(begun(call)).await?;
        let (client, owner, of, since) = (self.client.clone(), self.client.clone(), id.clone(), run.clone());
        let end = async move { wait::over(Call { client: &owner, operation: OPERATION, id: &of }, &since, None).await };
        Ok(readings(every, first, end, move || {
            let (client, id, run) = (client.clone(), id.clone(), run.clone());
            async move {
                let call = Call { client: &client, operation: OPERATION, id: &id };
                call.bounded(later(call, &run)).await
            }
        }))
    }
}

/// One reading; `None`: an empty one.
async fn read(call: Call<'_>) -> Result<Option<Usage>> {
    // `one-shot`: the daemon takes no second sample for rates, which would take it a second.
    let bytes = call.send(Request::get(format!("/containers/{}/stats?stream=false&one-shot=true", call.id))).await?;
    let unreadable = || call.error(ErrorKind::Protocol, "the usage cannot be read");
    let (sample, left_out): (Sample, _) = lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json))
        .map_err(|error| unreadable().with_source(error))?;
    log_left_out(call.client.id(), call.id, &left_out);
    let read = sample.read.as_deref().ok_or_else(unreadable)?;
    Ok(time(read).map(|at| sample.usage(at)))
}

/// The error for an empty reading.
async fn absent(call: Call<'_>) -> Error {
    match call.inspect().await {
        Ok(container) if container.state.is_alive() => {
            call.error(ErrorKind::Unexpected, "the daemon could not read the usage: its log has the reason")
        }
        Ok(container) => call
            .error(ErrorKind::Conflict, "it does not run, so there is nothing to measure")
            .with_context("state", container.state.status),
        Err(error) => error,
    }
}

/// The first reading of a stream, the container's id, and the run that it is of.
async fn begun(call: Call<'_>) -> Result<(Usage, String, String)> {
    let container = call.inspect().await?;
    let call = call.of(&container);
    match (read(call).await?, container.state.incarnation()) {
        (Some(first), Some(run)) => Ok((first, container.id_or(call.id).to_owned(), run.to_owned())),
        _ => Err(absent(call).await),
    }
}

/// A later reading of this run; `None`: it is over.
async fn later(call: Call<'_>, run: &str) -> Result<Option<Usage>> {
    let usage = read(call).await?;
    // After the reading: if the run goes on now, it went on then.
    let now = call.inspect().await?.state;
    let goes_on = now.is_alive() && now.incarnation() == Some(run);
    match usage {
        Some(usage) if goes_on => Ok(Some(usage)),
        None if goes_on => Err(absent(call).await),
        _ => Ok(None),
    }
}

/// The part of a reading that has a field of its own in [`Usage`]. What a version of control groups does not have is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sample {
    /// By the daemon's clock; the zero time of Go in an empty reading.
    read: Option<String>,
    cpu_stats: Cpu,
    memory_stats: Memory,
    /// By interface; absent without networks of its own.
    networks: Option<BTreeMap<String, Network>>,
    blkio_stats: BlockIo,
    pids_stats: Pids,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    cpu_usage: CpuUsage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    /// Nanoseconds.
    total_usage: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: Option<u64>,
    limit: Option<u64>,
    /// The kernel's own counters, by their names in this version of control groups.
    stats: Option<Counters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counters {
    /// Version 1.
    total_inactive_file: Option<u64>,
    /// Version 2; in version 1 without the groups below.
    inactive_file: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    rx_bytes: Option<u64>,
    tx_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockIo {
    /// By device and operation; `null` where it is not counted.
    io_service_bytes_recursive: Option<Vec<Operation>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Operation {
    /// `Read` in version 1, `read` in version 2; version 1 also has sums of them.
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: Option<u64>,
}

impl Memory {
    /// The usage without the file cache that is not in use, as the `docker` command has it.
    fn in_use(&self) -> Option<u64> {
        let usage = self.usage?;
        let counters = self.stats.as_ref();
        let inactive = counters.and_then(|counters| counters.total_inactive_file.or(counters.inactive_file));
        Some(inactive.filter(|inactive| *inactive < usage).map_or(usage, |inactive| usage - inactive))
    }
}

impl BlockIo {
    fn bytes(&self, operation: &str) -> Option<u64> {
        let all = self.io_service_bytes_recursive.as_ref()?;
        let of = all.iter().filter(|one| one.op.eq_ignore_ascii_case(operation));
        Some(of.fold(0, |sum, one| sum.saturating_add(one.value)))
    }
}

impl Sample {
    fn usage(&self, at: SystemTime) -> Usage {
        let network = |bytes: fn(&Network) -> Option<u64>| {
            let all = self.networks.as_ref()?;
            all.values().map(bytes).try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
        };
        let mut usage = Usage::new(at);
        usage.cpu = self.cpu_stats.cpu_usage.total_usage.map(Duration::from_nanos);
        usage.memory_bytes = self.memory_stats.in_use();
        usage.memory_limit = self.memory_stats.limit;
        usage.received_bytes = network(|one| one.rx_bytes);
        usage.sent_bytes = network(|one| one.tx_bytes);
        usage.read_bytes = self.blkio_stats.bytes("read");
        usage.written_bytes = self.blkio_stats.bytes("write");
        usage.pids = self.pids_stats.current;
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Usage {
        let (sample, _) = lenient(json, |json| serde_json::from_str::<Sample>(json)).unwrap();
        let at = time(sample.read.as_deref().unwrap()).unwrap();
        sample.usage(at)
    }

    #[test]
    fn a_reading_of_control_groups_version_1_is_counted_as_docker_stats_does() {
        let read = usage(
            r#"{"read":"2024-01-01T00:00:00.5Z","pids_stats":{"current":3},"num_procs":0,
                "blkio_stats":{"io_service_bytes_recursive":[
                    {"major":8,"minor":0,"op":"Read","value":4096},{"major":8,"minor":0,"op":"Write","value":10},
                    {"major":8,"minor":0,"op":"Sync","value":4106},{"major":8,"minor":0,"op":"Total","value":4106},
                    {"major":8,"minor":16,"op":"Read","value":4}],"io_queue_recursive":[]},
                "cpu_stats":{"cpu_usage":{"total_usage":1500000000,"percpu_usage":[1,2]},"online_cpus":2},
                "memory_stats":{"usage":1000,"max_usage":2000,"limit":5000,
                    "stats":{"inactive_file":100,"total_inactive_file":300}},
                "networks":{"eth0":{"rx_bytes":7,"tx_bytes":8},"eth1":{"rx_bytes":1,"tx_bytes":2}}}"#,
        );
        assert_eq!(read.at, time("2024-01-01T00:00:00.5Z").unwrap());
        assert_eq!((read.cpu, read.pids), (Some(Duration::from_millis(1500)), Some(3)));
        assert_eq!((read.memory_bytes, read.memory_limit), (Some(700), Some(5000)));
        assert_eq!((read.received_bytes, read.sent_bytes), (Some(8), Some(10)));
        assert_eq!((read.read_bytes, read.written_bytes), (Some(4100), Some(10)));
    }

    #[test]
    fn a_reading_of_control_groups_version_2_is_counted_in_the_same_way() {
        let read = usage(
            r#"{"read":"2024-01-01T00:00:00Z","pids_stats":{"current":1,"limit":9},
                "blkio_stats":{"io_service_bytes_recursive":[{"op":"read","value":5},{"op":"write","value":6}]},
                "cpu_stats":{"cpu_usage":{"total_usage":7,"usage_in_kernelmode":1}},
                "memory_stats":{"usage":1000,"limit":5000,"stats":{"inactive_file":250}}}"#,
        );
        assert_eq!((read.memory_bytes, read.read_bytes, read.written_bytes), (Some(750), Some(5), Some(6)));
        assert_eq!((read.received_bytes, read.sent_bytes), (None, None), "no network of its own");
    }

    #[test]
    fn what_is_not_counted_is_absent_and_not_zero() {
        let read = usage(
            r#"{"read":"2024-01-01T00:00:00Z","pids_stats":{},"blkio_stats":{"io_service_bytes_recursive":null},
                "cpu_stats":{},"memory_stats":{"stats":null},"networks":{"eth0":{"rx_bytes":1,"tx_bytes":-1}}}"#,
        );
        let mut expected = Usage::new(read.at);
        expected.received_bytes = Some(1);
        assert_eq!(read, expected, "a number out of range is unknown, and hides no other");
        assert_eq!(
            usage(r#"{"read":"2024-01-01T00:00:00Z","memory_stats":{"usage":5,"stats":{"inactive_file":9}}}"#)
                .memory_bytes,
            Some(5)
        );
    }

    #[test]
    fn an_empty_reading_has_no_time() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
    }
}
