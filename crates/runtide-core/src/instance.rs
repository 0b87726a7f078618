//! One instance at one moment: [`Instance`] and its parts.

mod fields;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroU16},
    ops::RangeInclusive,
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind},
    labels::Labels,
    names::names,
};

pub(crate) use self::fields::Class;
pub use self::fields::FieldDifference;

names! {
    /// One configured backend, as `docker:local`: the same after a restart of the process, free of secrets.
    BackendId;
    /// The runtime's own identity of an instance (container id, pod uid, unit name, `node/vmid`); never a display name.
    InstanceId;
    /// One run of an instance: differs for every start, compares for equality only.
    Incarnation;
    /// An image as its runtime writes it: `name:tag`, `name@digest` or an id.
    ImageRef;
}

/// One instance at one moment, as far as it is known.
///
/// Unknown is `None`, also for collections, which is not the same as empty; nothing is inferred.
///
/// ```
/// use runtide_core::{Instance, InstanceKind, InstanceState};
///
/// let web = Instance::new("docker:local", "4f0c", "web", InstanceKind::Container, InstanceState::Running);
/// assert_eq!(web.ports, None); // not known yet; `Some(vec![])` would mean that there are none
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// The runtime's own identity of the instance.
    pub id: InstanceId,
    /// The present or last run; `None` if the runtime's answer did not have it.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
    /// The name for people. It may change.
    pub name: String,
    /// The backend that reported it.
    pub backend: BackendId,
    /// Kind of the instance.
    pub kind: InstanceKind,
    /// State of its lifecycle.
    pub state: InstanceState,
    /// Result of the runtime's own health check. `None`: it has no check, or its result is not known yet. A runtime whose messages
    /// do not carry it shows a new run without it first, and again once the run was inspected.
    #[serde(default)]
    pub health: Option<Health>,
    /// Exit of the last run.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// Reason of a failure, in the runtime's own words, if it gives more than the exit: `watchdog`, `oom-kill` or
    /// `start-limit-hit` of systemd; Docker's message about the last start, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// Image that it was created from.
    #[serde(default)]
    pub image: Option<ImageRef>,
    /// The user's labels.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// Ports inside the instance and the host addresses that publish them, in order of number and protocol.
    #[serde(default)]
    pub ports: Option<Vec<Port>>,
    /// Addresses of the instance itself, in order of network and address.
    #[serde(default)]
    pub addresses: Option<Vec<Address>>,
    /// Group that it belongs to.
    #[serde(default)]
    pub group: Option<Arc<Group>>,
    /// The machine that it runs on, in a cluster.
    #[serde(default)]
    pub node: Option<String>,
    /// Time of its creation, by the runtime's clock.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
    /// Start of the present or last run, by the runtime's clock.
    #[serde(default, with = "crate::time::option")]
    pub started_at: Option<SystemTime>,
    /// End of the last run, by the runtime's clock.
    #[serde(default, with = "crate::time::option")]
    pub finished_at: Option<SystemTime>,
    /// Number of restarts by the runtime itself.
    #[serde(default)]
    pub restarts: Option<u32>,
    /// The driver's count of changes seen: +1 for each within an epoch. Information, not identity.
    #[serde(default)]
    pub generation: u64,
}

impl Instance {
    /// An instance with these fields, and all others unknown.
    pub fn new(
        backend: impl Into<BackendId>,
        id: impl Into<InstanceId>,
        name: impl Into<String>,
        kind: InstanceKind,
        state: InstanceState,
    ) -> Self {
        Self {
            id: id.into(),
            incarnation: None,
            name: name.into(),
            backend: backend.into(),
            kind,
            state,
            health: None,
            exit: None,
            reason: None,
            image: None,
            labels: None,
            ports: None,
            addresses: None,
            group: None,
            node: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            restarts: None,
            generation: 0,
        }
    }
}

/// Kind of an instance; fixed for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceKind {
    /// An application container.
    Container,
    /// A container that boots a system.
    SystemContainer,
    /// A virtual machine.
    VirtualMachine,
    /// A Kubernetes pod.
    Pod,
    /// A service of a service manager.
    Service,
}

/// State of an instance's lifecycle. Each backend's mapping onto these is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceState {
    /// Created, never started.
    Created,
    /// Starting.
    Starting,
    /// A run is in progress.
    Running,
    /// A run is in progress, and its processes are frozen.
    Paused,
    /// Between two runs, waiting for the runtime to start it again.
    Restarting,
    /// Stopping; its processes still exist.
    Stopping,
    /// The last run ended.
    Stopped,
    /// The last run ended in a way that the runtime itself calls a failure.
    Failed,
    /// The runtime named a state that has no mapping. A failed inspection is never a state.
    Unknown,
}

impl InstanceState {
    /// `true` if the instance has a process: running, paused or stopping.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopping)
    }

    /// `true` if a run is over: stopped, failed, or waiting for the next one.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Restarting)
    }

    /// The state as it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Result of the runtime's own health check; absent if none is configured or it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Not yet decided.
    Starting,
    /// The check passes.
    Healthy,
    /// The check fails.
    Unhealthy,
}

/// Exit of a run, as reported. An end that was not observed is an absent `ExitStatus`, never a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExitStatus {
    /// Code or signal.
    pub end: ExitCause,
    /// `true` if the kernel killed it for want of memory; `None`: not reported.
    #[serde(default)]
    pub oom_killed: Option<bool>,
}

impl ExitStatus {
    /// Ended with this code.
    pub fn code(code: i32) -> Self {
        Self { end: ExitCause::Code(code), oom_killed: None }
    }

    /// Ended by this signal.
    pub fn signal(signal: UnixSignal) -> Self {
        Self { end: ExitCause::Signal(signal), oom_killed: None }
    }

    /// With the kernel's verdict on memory.
    #[must_use]
    pub fn with_oom_killed(mut self, oom_killed: impl Into<Option<bool>>) -> Self {
        self.oom_killed = oom_killed.into();
        self
    }
}

/// The code or signal exactly as the runtime reported it; one is never computed from the other: 137 stays `Code(137)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitCause {
    /// The code of `exit`, or the code into which the runtime translated a signal.
    Code(i32),
    /// The signal, if the runtime reports it as one.
    Signal(UnixSignal),
}

/// A signal as a number of Linux. `FromStr` takes `TERM`, `SIGTERM`, `15`, `RTMIN+3`, in any case.
///
/// ```
/// use runtide_core::UnixSignal;
///
/// assert_eq!("SIGTERM".parse::<UnixSignal>()?, UnixSignal::TERM);
/// assert_eq!("rtmin+3".parse::<UnixSignal>()?.number(), 37);
/// assert!("TURM".parse::<UnixSignal>().is_err());
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSignal(pub NonZeroU8);

/// Linux, the numbers that x86, ARM, RISC-V and POWER share; signal(7).
const SIGNALS: [(&str, u8); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl UnixSignal {
    /// Hang-up.
    pub const HUP: Self = Self::known(1);
    /// Interrupt.
    pub const INT: Self = Self::known(2);
    /// Kill, which cannot be caught.
    pub const KILL: Self = Self::known(9);
    /// The first user-defined signal.
    pub const USR1: Self = Self::known(10);
    /// Termination, the polite one.
    pub const TERM: Self = Self::known(15);

    const fn known(number: u8) -> Self {
        match NonZeroU8::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU8::MIN),
        }
    }

    /// Number of the signal on Linux.
    pub fn number(self) -> u8 {
        self.0.get()
    }
}

impl FromStr for UnixSignal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let offset = |text: &str| if text.is_empty() { Some(0) } else { None };
        let number = if let Ok(number) = upper.parse::<u8>() {
            Some(number).filter(|number| *number <= RTMAX)
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest)
                .or_else(|| rest.strip_prefix('+')?.parse().ok())
                .and_then(|plus: u8| RTMIN.checked_add(plus))
                .filter(|number| *number <= RTMAX)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest)
                .or_else(|| rest.strip_prefix('-')?.parse().ok())
                .and_then(|minus: u8| RTMAX.checked_sub(minus))
                .filter(|number| *number >= RTMIN)
        } else {
            SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
        };
        number.and_then(NonZeroU8::new).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "signal.parse", format!("'{text}' is not a signal: expected a name (TERM, SIGTERM), a number from 1 to 64, RTMIN+n or RTMAX-n"))
        })
    }
}

impl fmt::Display for UnixSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.number()) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => match self.number().checked_sub(RTMIN) {
                Some(plus) => write!(f, "SIGRTMIN+{plus}"),
                None => write!(f, "{}", self.number()),
            },
        }
    }
}

/// A port inside the instance, and the host addresses that publish it: each address once, none if not published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Port {
    /// Number of the port inside the instance.
    pub number: NonZeroU16,
    /// Transport of the port.
    pub protocol: Protocol,
    /// Host addresses that publish the port, sorted.
    #[serde(default)]
    pub published: Vec<SocketAddr>,
}

impl Port {
    /// A port that is not published.
    pub fn new(number: NonZeroU16, protocol: Protocol) -> Self {
        Self { number, protocol, published: Vec::new() }
    }

    /// The ports of a range, in their order.
    ///
    /// ```
    /// use runtide_core::{Port, Protocol};
    ///
    /// let media = Port::range(16_384.try_into()?..=16_386.try_into()?, Protocol::Udp);
    /// assert_eq!(media.len(), 3);
    /// # Ok::<(), std::num::TryFromIntError>(())
    /// ```
    pub fn range(numbers: RangeInclusive<NonZeroU16>, protocol: Protocol) -> Vec<Self> {
        let numbers = numbers.start().get()..=numbers.end().get();
        numbers.filter_map(NonZeroU16::new).map(|number| Self::new(number, protocol)).collect()
    }

    /// The ports of a range, the first one published at `host` and each further one at the host's next port. `None` if the host's
    /// ports end before the range does, or if the host's first port is 0, after which none is the next.
    ///
    /// ```
    /// use runtide_core::{Port, Protocol};
    ///
    /// let ports = Port::range_published_at(80.try_into()?..=81.try_into()?, Protocol::Tcp, "127.0.0.1:8080".parse().unwrap());
    /// assert_eq!(ports.unwrap()[1].published, ["127.0.0.1:8081".parse().unwrap()]);
    /// # Ok::<(), std::num::TryFromIntError>(())
    /// ```
    pub fn range_published_at(
        numbers: RangeInclusive<NonZeroU16>,
        protocol: Protocol,
        host: SocketAddr,
    ) -> Option<Vec<Self>> {
        let mut next = (host.port() != 0).then(|| host.port());
        let published = Self::range(numbers, protocol).into_iter().map(|port| {
            let at = SocketAddr::new(host.ip(), next?);
            next = at.port().checked_add(1);
            Some(port.published_at(at))
        });
        published.collect()
    }

    /// With one more host address.
    #[must_use]
    pub fn published_at(mut self, host: SocketAddr) -> Self {
        if let Err(place) = self.published.binary_search(&host) {
            self.published.insert(place, host);
        }
        self
    }
}

/// Transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Address of the instance itself, and the runtime's network that it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Address {
    /// Name of the runtime's network.
    #[serde(default)]
    pub network: Option<String>,
    /// Address of the instance in that network.
    pub ip: IpAddr,
}

impl Address {
    /// An address on a network.
    pub fn new(ip: IpAddr, network: impl Into<Option<String>>) -> Self {
        Self { network: network.into(), ip }
    }
}

/// Group that an instance belongs to; `service` is its role there, as in compose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Group {
    /// Kind of the group.
    pub kind: GroupKind,
    /// Name of the group.
    pub name: String,
    /// Role of the instance in the group.
    #[serde(default)]
    pub service: Option<String>,
    /// Other members of the group that start the instance, in order: sockets, timers and paths of a service manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
}

impl Group {
    /// A group without a role.
    pub fn new(kind: GroupKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), service: None, triggers: Vec::new() }
    }

    /// With the instance's role.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Option<String>>) -> Self {
        self.service = service.into();
        self
    }

    /// With the other members of the group that start the instance.
    #[must_use]
    pub fn with_triggers(mut self, triggers: impl Into<Vec<String>>) -> Self {
        self.triggers = triggers.into();
        self
    }
}

/// Kind of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupKind {
    /// A compose project.
    Compose,
    /// A stack of a Docker swarm.
    Stack,
    /// A Kubernetes namespace.
    Namespace,
    /// A systemd slice.
    Slice,
    /// An Incus or LXD project.
    Project,
    /// A Podman pod.
    Pod,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_name_reads_back() {
        for number in 1..=RTMAX {
            let signal = UnixSignal(NonZeroU8::new(number).unwrap());
            assert_eq!(signal.to_string().parse::<UnixSignal>().unwrap(), signal, "{signal}");
        }
    }

    #[test]
    fn an_invalid_signal_is_refused() {
        for text in ["", "0", "65", "255", "SIG", "RTMIN+31", "RTMIN-1", "RTMAX-31", "RTMIN+", "TERM;rm"] {
            let error = text.parse::<UnixSignal>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn a_published_address_is_listed_once() {
        let host: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let port = Port::new(NonZeroU16::MIN, Protocol::Tcp).published_at(host).published_at(host);
        assert_eq!(port.published, [host]);
    }

    #[test]
    fn every_state_is_written_the_same_in_json_and_in_text() {
        use InstanceState::*;
        for state in [Created, Starting, Running, Paused, Restarting, Stopping, Stopped, Failed, Unknown] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
            assert!(!(state.is_alive() && state.is_ended()));
        }
    }
}
