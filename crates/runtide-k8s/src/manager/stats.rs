//! [`Stats`]: resource usage, as the pod's node counts it, or as the metrics API has it.
//!
//! * A node's own summary has totals, which the metrics API has not: there CPU is a rate over a window, so that only memory is read. It is
//!   asked where the user may not read the summary, or there is none.
//! * The figures of a pod are the sums of its containers': those that the node has for the pod as a whole are 0 on many nodes (trap K32).
//! * A node measures every few seconds: a reading from before the run began is of the run before, and is left out.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result,
    manager::{StatsManager, Usage, UsageStream},
};
use serde::Deserialize;
use tokio::time::{Interval, MissedTickBehavior};

use super::{
    subject::{Seen, Subject},
    wait,
};
use crate::{client::Client, config::Granularity, normalize::time};

const USAGE: &str = "k8s.usage";
/// Longest period: the clock cannot add any longer ones.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
const NOT_SERVED: &str =
    "the user may not read the node's own figures (get nodes/proxy), and the cluster does not serve metrics.k8s.io";

/// Reads the usage of pods and containers.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    client: Client,
}

impl Stats {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    async fn running(&self, id: &InstanceId) -> Result<(Subject, Seen)> {
        let subject = Subject::find(&self.client, USAGE, id).await?;
        let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
        if seen.is_running {
            return Ok((subject, seen));
        }
        let message = format!("it does not run, so there is nothing to measure: it is {}", seen.state);
        Err(subject.error(ErrorKind::Conflict, message))
    }

    /// One reading; `None`: this run was not measured yet.
    async fn read(&self, subject: &Subject, seen: &Seen) -> Result<Option<Usage>> {
        let found = match self.of_node(subject, seen).await {
            Err(error) if is_no_way(&error) => self.of_api(subject, seen).await?,
            found => found?,
        };
        Ok(found.filter(|usage| seen.started_at.is_none_or(|began| usage.at >= began)))
    }

    async fn of_node(&self, subject: &Subject, seen: &Seen) -> Result<Option<Usage>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let node = &seen.place.node;
        if node.is_empty() || !node.bytes().all(plain) || node.starts_with('.') {
            return Err(subject.error(ErrorKind::Protocol, "its node has no name"));
        }
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let (_, body) = self.client.get(USAGE, &path).await?;
        let summary: Summary = serde_json::from_slice(&body).map_err(|error| subject.site().undecodable(error))?;
        let pod = summary.pods.into_iter().flatten().find(|pod| pod.pod_ref.uid == seen.place.uid);
        Ok(pod.and_then(|pod| pod.usage(seen, self.client.config().granularity)))
    }

    async fn of_api(&self, subject: &Subject, seen: &Seen) -> Result<Option<Usage>> {
        let (namespace, name) = (&subject.address.namespace, &subject.address.name);
        let body = match self.client.get(USAGE, &format!("{METRICS}/namespaces/{namespace}/pods/{name}")).await {
            Ok((_, body)) => body,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The pod has none yet, or nothing serves them.
                return match self.client.get(USAGE, METRICS).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => Err(not_served(subject)),
                    Err(error) => Err(error),
                    Ok(_) => Ok(None),
                };
            }
            Err(error) => return Err(error),
        };
        let metrics: Metrics = serde_json::from_slice(&body).map_err(|error| subject.site().undecodable(error))?;
        Ok(metrics.usage(seen, self.client.config().granularity))
    }
}

fn not_served(subject: &Subject) -> Error {
    let error = subject.error(ErrorKind::Unsupported, NOT_SERVED);
    error.with_context("feature", "stats_read").with_context("reason", NOT_SERVED)
}

/// True for a refusal of the node's figures that asking again does not change.
fn is_no_way(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::Unsupported)
}

#[async_trait]
impl StatsManager for Stats {
    async fn usage(&self, id: &InstanceId) -> Result<Usage> {
        let (subject, seen) = self.running(id).await?;
        let usage = self.read(&subject, &seen).await?;
        usage.ok_or_else(|| subject.error(ErrorKind::Unavailable, "its present run was not measured yet"))
    }

    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream> {
        self.client.check_open(USAGE)?;
        if every.is_zero() {
            return Err(self.client.site(USAGE).error(ErrorKind::InvalidInput, "a period of zero never ends"));
        }
        let (subject, seen) = self.running(id).await?;
        let first = self.read(&subject, &seen).await?;
        let (of_end, run) = (subject.clone(), seen.run);
        let end = Box::pin(async move { wait::end_of(&of_end, run).await });
        let mut ticks = tokio::time::interval(every.min(LONGEST));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let readings = Readings { stats: self.clone(), subject, run, first, end, ticks };
        Ok(UsageStream::new(stream::unfold(Some(readings), |readings| async {
            let mut readings = readings?;
            match readings.next().await {
                Ok(Some(usage)) => Some((Ok(usage), Some(readings))),
                Err(error) if error.kind() != ErrorKind::NotFound => Some((Err(error), None)),
                _ => None,
            }
        })))
    }
}

/// The readings of one run.
struct Readings {
    stats: Stats,
    subject: Subject,
    run: u32,
    first: Option<Usage>,
    /// The end of the run. It is polled to its end only once: the stream is over then.
    end: Pin<Box<dyn Future<Output = Result<Option<ExitStatus>>> + Send>>,
    ticks: Interval,
}

impl Readings {
    /// The next reading; `None`: the run is over.
    async fn next(&mut self) -> Result<Option<Usage>> {
        loop {
            tokio::select! {
                biased;
                ended = &mut self.end => return ended.map(|_| None),
                _ = self.ticks.tick() => {}
            }
            if let Some(first) = self.first.take() {
                return Ok(Some(first));
            }
            let Some(seen) = self.subject.look().await? else { return Ok(None) };
            if !seen.is_running || seen.run != self.run {
                return Ok(None);
            }
            // A run that was not measured yet is read again with the next period.
            if let Some(usage) = self.stats.read(&self.subject, &seen).await? {
                return Ok(Some(usage));
            }
        }
    }
}

/// A node's summary, as its kubelet serves it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    pods: Option<Vec<PodSummary>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSummary {
    pod_ref: PodRef,
    containers: Option<Vec<ContainerSummary>>,
    network: Option<Network>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodRef {
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSummary {
    name: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cpu {
    time: Option<String>,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    time: Option<String>,
    working_set_bytes: Option<u64>,
    /// Of the limit, where there is one.
    available_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Network {
    name: Option<String>,
    rx_bytes: Option<u64>,
    tx_bytes: Option<u64>,
    interfaces: Option<Vec<Network>>,
}

impl Network {
    /// The sum over its interfaces; the kubelet repeats the first one beside them.
    fn sum(&self, bytes: fn(&Self) -> Option<u64>) -> Option<u64> {
        match self.interfaces.as_deref() {
            Some(all) if !all.is_empty() => sum(all.iter(), bytes),
            _ => self.name.as_ref().and_then(|_| bytes(self)),
        }
    }
}

/// The sum of a figure that each of them has.
fn sum<'a, T: 'a>(mut all: impl Iterator<Item = &'a T>, one: impl Fn(&T) -> Option<u64>) -> Option<u64> {
    all.try_fold(0_u64, |sum, next| Some(sum.saturating_add(one(next)?)))
}

impl ContainerSummary {
    fn at(&self) -> Option<SystemTime> {
        let of_cpu = self.cpu.as_ref().and_then(|cpu| time(cpu.time.as_deref()));
        let of_memory = self.memory.as_ref().and_then(|memory| time(memory.time.as_deref()));
        of_cpu.or(of_memory)
    }

    fn cpu(&self) -> Option<u64> {
        self.cpu.as_ref()?.usage_core_nano_seconds
    }

    fn memory(&self) -> Option<u64> {
        self.memory.as_ref()?.working_set_bytes
    }

    fn limit(&self) -> Option<u64> {
        self.memory()?.checked_add(self.memory.as_ref()?.available_bytes?)
    }
}

impl PodSummary {
    /// `None`: the container was not measured.
    fn usage(self, seen: &Seen, granularity: Granularity) -> Option<Usage> {
        let mut all = self.containers.unwrap_or_default();
        let at = all.iter().find(|one| one.name == seen.container)?.at()?;
        if granularity == Granularity::Container {
            all.retain(|one| one.name == seen.container);
        }
        let mut usage = Usage::new(at);
        usage.cpu = sum(all.iter(), ContainerSummary::cpu).map(Duration::from_nanos);
        usage.memory_bytes = sum(all.iter(), ContainerSummary::memory);
        usage.memory_limit = sum(all.iter(), ContainerSummary::limit);
        // The containers of a pod have one network together, and a pod on the node's network has none of its own.
        if granularity == Granularity::Pod && !seen.place.is_on_host_network {
            let network = self.network.as_ref();
            usage.received_bytes = network.and_then(|network| network.sum(|one| one.rx_bytes));
            usage.sent_bytes = network.and_then(|network| network.sum(|one| one.tx_bytes));
        }
        Some(usage)
    }
}

/// The metrics API's `PodMetrics`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metrics {
    timestamp: Option<String>,
    containers: Option<Vec<ContainerMetrics>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerMetrics {
    name: String,
    usage: Amounts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Amounts {
    memory: Option<String>,
}

impl Metrics {
    fn usage(self, seen: &Seen, granularity: Granularity) -> Option<Usage> {
        let mut all = self.containers.unwrap_or_default();
        if !all.iter().any(|one| one.name == seen.container) {
            return None;
        }
        if granularity == Granularity::Container {
            all.retain(|one| one.name == seen.container);
        }
        let mut usage = Usage::new(time(self.timestamp.as_deref())?);
        usage.memory_bytes = sum(all.iter(), |one| one.usage.memory.as_deref().and_then(bytes));
        Some(usage)
    }
}

/// Bytes of a quantity of whole units; a part of a byte counts as one.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let power = |base: u64, power: u32| base.checked_pow(power)?.checked_mul(number);
    match unit {
        "" => Some(number),
        "m" => Some(number.div_ceil(1000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_bytes_or_unknown_and_never_a_guess() {
        for (text, expected) in [
            ("0", Some(0)),
            ("2764800", Some(2_764_800)),
            ("2700Ki", Some(2_764_800)),
            ("3Mi", Some(3 << 20)),
            ("7k", Some(7000)),
            ("1500m", Some(2)),
            ("16Ei", None),
            ("99999999999999999999", None),
            ("1.5Gi", None),
            ("-1", None),
            ("1Kib", None),
            ("", None),
            ("Ki", None),
            ("é", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
