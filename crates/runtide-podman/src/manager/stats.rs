//! [`Stats`]: resource usage, as the service reads it from the control groups.
//!
//! * A reading is one request, the same for both versions of control groups. The service's own stream is not used: its period is whole
//!   seconds, a container that ended has readings of zeros in it, and one that is gone ends it with an error without words.
//! * A reading of zeros is not zero usage: the container does not run. A number that is 0 where it is not counted, too, is unknown.
//! * A stream is of one run. It is inspected after each reading, and the end of the run is awaited between two of them, on one
//!   connection of its own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{StatsManager, Usage, UsageStream},
};
use runtide_engine::{Request, lenient, log_left_out, readings};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    container::{Call, Container},
    wait,
};
use crate::client::{Client, is_status};

const OPERATION: &str = "podman.usage";

/// The first version that does not take the bytes sent for those received, and the other way round.
const TELLS_DIRECTIONS_SINCE: (u32, u32) = (4, 4);

/// The [`StatsManager`] of one service.
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
            match read(call, &container).await? {
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
        let (first, container) = call.bounded(begun(call)).await?;
        let container = Arc::new(container);
        let (client, owner, run) = (self.client.clone(), self.client.clone(), Arc::clone(&container));
        let id = container.id_or(call.id).to_owned();
        let of = id.clone();
        let end = async move { wait::end_of_run(Call { client: &owner, operation: OPERATION, id: &of }, &run).await };
        Ok(readings(every, first, end, move || {
            let (client, id, container) = (client.clone(), id.clone(), Arc::clone(&container));
            async move {
                let call = Call { client: &client, operation: OPERATION, id: &id };
                call.bounded(later(call, &container)).await
            }
        }))
    }
}

/// One reading; `None`: an empty one.
async fn read(call: Call<'_>, container: &Container) -> Result<Option<Usage>> {
    let unsupported = |why: &'static str| {
        let error = call.error(ErrorKind::Unsupported, why);
        error.with_context("feature", "stats").with_context("reason", why)
    };
    if container.host_config.cgroups == "disabled" {
        return Err(unsupported("it was created without a control group"));
    }
    let request = Request::get("/containers/stats")
        .with_query("containers", container.id_or(call.id))
        .with_query("stream", false);
    let bytes = match call.send(request).await {
        Ok(bytes) => bytes,
        Err(refusal) if is_status(&refusal, "409") => {
            return Err(unsupported("a rootless service reads control groups of version 2 alone").with_source(refusal));
        }
        Err(refusal) if is_status(&refusal, "500") => return Ok(None),
        Err(error) => return Err(error),
    };
    let unreadable = || call.error(ErrorKind::Protocol, "the usage cannot be read");
    let (report, left_out): (Report, _) = lenient(&String::from_utf8_lossy(&bytes), |json| serde_json::from_str(json))
        .map_err(|error| unreadable().with_source(error))?;
    log_left_out(call.client.id(), call.id, &left_out);
    match report {
        Report { error: Some(_), .. } => Ok(None),
        Report { stats: Some(stats), .. } => {
            let sample = stats.first().ok_or_else(unreadable)?;
            Ok(sample.usage(Networks::of(call.client, container)))
        }
        Report { stats: None, .. } => Err(unreadable()),
    }
}

/// The error for an empty reading.
async fn absent(call: Call<'_>) -> Error {
    match call.inspect().await {
        Ok(container) if container.state.is_alive() => {
            call.error(ErrorKind::Unexpected, "the service could not read the usage: its log has the reason")
        }
        Ok(container) => call
            .error(ErrorKind::Conflict, "it does not run, so there is nothing to measure")
            .with_context("state", container.state.status),
        Err(error) => error,
    }
}

/// The first reading of a stream, and the container in the run that it is of.
async fn begun(call: Call<'_>) -> Result<(Usage, Container)> {
    let container = call.inspect().await?;
    match (read(call, &container).await?, container.state.incarnation()) {
        (Some(first), Some(_)) => Ok((first, container)),
        _ => Err(absent(call).await),
    }
}

/// A later reading of this run; `None`: it is over.
async fn later(call: Call<'_>, run: &Container) -> Result<Option<Usage>> {
    let usage = read(call, run).await?;
    // After the reading: if the run goes on now, it went on then.
    let now = call.inspect().await?.state;
    let goes_on = now.is_alive() && now.incarnation() == run.state.incarnation();
    match usage {
        Some(usage) if goes_on => Ok(Some(usage)),
        None if goes_on => Err(absent(call).await),
        _ => Ok(None),
    }
}

/// Meaning of the numbers of bytes over networks.
#[derive(Clone, Copy, Debug)]
struct Networks {
    /// They are counted for this container.
    are_counted: bool,
    /// The two directions are exchanged.
    are_exchanged: bool,
}

impl Networks {
    fn of(client: &Client, container: &Container) -> Self {
        let version = client.last_server().map(|server| server.version.clone()).unwrap_or_default();
        Self::with(&version, &container.host_config.network_mode)
    }

    fn with(version: &str, mode: &str) -> Self {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let is_own = !matches!(mode, "" | "none" | "host") && !mode.starts_with("ns:");
        Self { are_counted: is_own, are_exchanged: version < TELLS_DIRECTIONS_SINCE }
    }
}

/// Answer of `GET /containers/stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Report {
    /// Of any form: the service's own cannot be written as JSON, so that it is empty.
    error: Option<IgnoredAny>,
    stats: Option<Vec<Sample>>,
}

/// The part of a reading that has a field of its own in [`Usage`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Sample {
    /// Nanoseconds of the service's clock; 0 in an empty reading.
    system_nano: Option<u64>,
    /// Nanoseconds.
    #[serde(rename = "CPUNano")]
    cpu_nano: Option<u64>,
    mem_usage: Option<u64>,
    mem_limit: Option<u64>,
    /// Up to Podman 4.
    net_input: Option<u64>,
    net_output: Option<u64>,
    /// By interface, from Podman 5 on.
    network: Option<BTreeMap<String, Network>>,
    block_input: Option<u64>,
    block_output: Option<u64>,
    #[serde(rename = "PIDs")]
    pids: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    rx_bytes: Option<u64>,
    tx_bytes: Option<u64>,
}

impl Sample {
    /// `None`: the container does not run.
    fn usage(&self, networks: Networks) -> Option<Usage> {
        let nanos = self.system_nano.filter(|nanos| *nanos > 0)?;
        // 0 stands for what the control group does not count as well.
        let counted = |number: Option<u64>| number.filter(|number| *number > 0);
        let mut usage = Usage::new(SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))?);
        usage.cpu = counted(self.cpu_nano).map(Duration::from_nanos);
        usage.memory_bytes = counted(self.mem_usage);
        usage.memory_limit = counted(self.mem_limit).filter(|limit| *limit < u64::MAX);
        usage.read_bytes = counted(self.block_input);
        usage.written_bytes = counted(self.block_output);
        usage.pids = counted(self.pids);
        if networks.are_counted {
            (usage.received_bytes, usage.sent_bytes) = self.network_bytes(networks.are_exchanged);
        }
        Some(usage)
    }

    /// Received, and sent.
    fn network_bytes(&self, are_exchanged: bool) -> (Option<u64>, Option<u64>) {
        match &self.network {
            Some(all) if !all.is_empty() => {
                let sum = |bytes: fn(&Network) -> Option<u64>| {
                    all.values().map(bytes).try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
                };
                (sum(|one| one.rx_bytes), sum(|one| one.tx_bytes))
            }
            _ if are_exchanged => (self.net_output, self.net_input),
            _ => (self.net_input, self.net_output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: &str) -> Report {
        lenient(json, |json| serde_json::from_str::<Report>(json)).unwrap().0
    }

    fn usage(json: &str, version: &str, mode: &str) -> Usage {
        report(json).stats.unwrap()[0].usage(Networks::with(version, mode)).unwrap()
    }

    const OLD: &str = r#"{"Error":null,"Stats":[{"AvgCPU":5.4,"ContainerID":"c1","PerCPU":[8,2],"CPUNano":1500000000,
        "SystemNano":1704067200500000000,"MemUsage":700,"MemLimit":5000,"NetInput":10,"NetOutput":8,"BlockInput":4096,
        "BlockOutput":0,"PIDs":3}]}"#;

    #[test]
    fn the_totals_of_a_reading_are_the_services() {
        let read = usage(OLD, "4.4.0", "bridge");
        assert_eq!(read.at, SystemTime::UNIX_EPOCH + Duration::from_millis(1_704_067_200_500));
        assert_eq!((read.cpu, read.pids), (Some(Duration::from_millis(1500)), Some(3)));
        assert_eq!((read.memory_bytes, read.memory_limit), (Some(700), Some(5000)));
        assert_eq!((read.received_bytes, read.sent_bytes), (Some(10), Some(8)));
        assert_eq!((read.read_bytes, read.written_bytes), (Some(4096), None), "0 may be what is not counted");
    }

    #[test]
    fn versions_before_4_4_exchange_the_directions() {
        let read = usage(OLD, "4.3.1", "slirp4netns");
        assert_eq!((read.received_bytes, read.sent_bytes), (Some(8), Some(10)));
    }

    #[test]
    fn later_versions_count_by_interface() {
        let new = r#"{"Error":null,"Stats":[{"SystemNano":1,"CPUNano":7,"MemUsage":1,"MemLimit":18446744073709551615,
            "Network":{"eth0":{"RxBytes":7,"TxBytes":8},"eth1":{"RxBytes":1,"TxBytes":2}},"BlockInput":0,"PIDs":1}]}"#;
        let read = usage(new, "5.4.2", "bridge");
        assert_eq!((read.received_bytes, read.sent_bytes, read.memory_limit), (Some(8), Some(10), None));
    }

    #[test]
    fn a_container_without_networks_of_its_own_has_no_bytes_and_not_zero() {
        for mode in ["none", "host", "ns:/run/netns/x", ""] {
            let read = usage(OLD, "4.4.0", mode);
            assert_eq!((read.received_bytes, read.sent_bytes), (None, None), "{mode}");
        }
        let fresh = OLD.replace(r#""NetInput":10"#, r#""NetInput":0"#);
        assert_eq!(usage(&fresh, "4.4.0", "bridge").received_bytes, Some(0), "counted, and nothing came yet");
    }

    #[test]
    fn a_reading_of_zeros_is_no_usage() {
        let empty = report(
            r#"{"Error":null,"Stats":[{"ContainerID":"c1","PerCPU":null,"CPUNano":0,"SystemNano":0,"PIDs":0}]}"#,
        );
        assert_eq!(empty.stats.unwrap()[0].usage(Networks::with("4.3.1", "bridge")), None);
        assert!(report(r#"{"Error":{},"Stats":null}"#).error.is_some());
        assert!(report(r#"{"Error":null,"Stats":[]}"#).error.is_none());
    }

    #[test]
    fn a_number_out_of_range_is_unknown_and_hides_no_other() {
        let odd = OLD.replace("1500000000", "-1").replace(r#""PIDs":3"#, r#""PIDs":"three""#);
        let read = usage(&odd, "5.4.2", "bridge");
        assert_eq!((read.cpu, read.pids, read.memory_bytes), (None, None, Some(700)));
    }
}
