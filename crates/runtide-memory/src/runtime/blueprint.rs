//! Specification of a simulated instance: [`Blueprint`].

use std::{collections::BTreeMap, time::Duration};

use runtide_core::{
    Address, Error, ErrorKind, ExitStatus, Group, Health, ImageRef, InstanceKind, Labels, Port, Result, UnixSignal,
    backend::setters,
    manager::{Mount, RestartPolicy},
};

/// Specification of a simulated instance, with the behaviour of its main process.
///
/// Names are `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 bytes. Labels are carried as they are; a key is not empty.
///
/// ```
/// use runtide_core::{Health, Labels};
/// use runtide_memory::{Blueprint, MemoryRuntime};
///
/// let runtime = MemoryRuntime::new();
/// let labels: Labels = [("team", "edge")].into_iter().collect();
/// let web = runtime.create(Blueprint::named("web").with_labels(labels).with_health(Health::Starting))?;
/// runtime.start(&web)?;
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blueprint {
    /// The name; empty: the runtime picks one.
    pub name: String,
    /// Kind of the instance.
    pub kind: InstanceKind,
    /// Image that it is created from.
    pub image: Option<ImageRef>,
    /// The user's labels.
    pub labels: Labels,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its group.
    pub group: Option<Group>,
    /// The machine that it runs on.
    pub node: Option<String>,
    /// The runtime's verdict while it runs; `None`: there is no check.
    pub health: Option<Health>,
    /// Policy by which the runtime starts it again.
    pub restart: RestartPolicy,
    /// The signal that a stop sends; TERM by default.
    pub stop_signal: UnixSignal,
    /// Time that a stop waits before it kills; 10 s by default.
    pub stop_timeout: Duration,
    /// The signals that end it, apart from KILL, which always does; TERM, INT and QUIT by default.
    pub ends_on: Vec<UnixSignal>,
    /// Length of a run that is not ended otherwise; `None`: it runs indefinitely.
    pub run_length: Option<Duration>,
    /// Exit of a run that ends by itself or when asked to. `None`: with code 0 by itself, and by the signal when asked to.
    pub exit: Option<ExitStatus>,
    /// The environment of its processes.
    pub env: BTreeMap<String, String>,
    /// The command of its main process, which runs indefinitely unless it is one of those that the runtime knows.
    pub command: Vec<String>,
    /// The user of its processes; `root` by default.
    pub user: String,
    /// The working directory of its processes; `/` by default.
    pub working_dir: String,
    /// Mounts, which must be volumes. Their existence is checked only over the wire.
    pub mounts: Vec<Mount>,
    /// `true` if its main process has a terminal.
    pub tty: bool,
    /// The memory that it may use, in bytes.
    pub memory_limit: Option<u64>,
}

impl Default for Blueprint {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: InstanceKind::Container,
            image: None,
            labels: Labels::default(),
            ports: Vec::new(),
            addresses: Vec::new(),
            group: None,
            node: None,
            health: None,
            restart: RestartPolicy::No,
            stop_signal: UnixSignal::TERM,
            stop_timeout: Duration::from_secs(10),
            ends_on: ["TERM", "INT", "QUIT"].iter().filter_map(|name| name.parse().ok()).collect(),
            run_length: None,
            exit: None,
            env: BTreeMap::new(),
            command: Vec::new(),
            user: "root".to_owned(),
            working_dir: "/".to_owned(),
            mounts: Vec::new(),
            tty: false,
            memory_limit: None,
        }
    }
}

setters!(Blueprint {
    /// Kind of the instance.
    with_kind: kind: InstanceKind;
    /// Image that it is created from.
    with_image: image: Option<ImageRef>;
    /// The user's labels.
    with_labels: labels: Labels;
    /// Its ports.
    with_ports: ports: Vec<Port>;
    /// Its addresses.
    with_addresses: addresses: Vec<Address>;
    /// Its group.
    with_group: group: Option<Group>;
    /// The machine that it runs on.
    with_node: node: Option<String>;
    /// The runtime's verdict while it runs.
    with_health: health: Option<Health>;
    /// Policy by which the runtime starts it again.
    with_restart: restart: RestartPolicy;
    /// The signal that a stop sends.
    with_stop_signal: stop_signal: UnixSignal;
    /// Time that a stop waits before it kills.
    with_stop_timeout: stop_timeout: Duration;
    /// The signals that end it, apart from KILL.
    with_ends_on: ends_on: Vec<UnixSignal>;
    /// Length of a run that is not ended otherwise.
    with_run_length: run_length: Option<Duration>;
    /// Exit of a run that ends by itself or when asked to.
    with_exit: exit: Option<ExitStatus>;
    /// The user of its processes.
    with_user: user: String;
    /// The working directory of its processes.
    with_working_dir: working_dir: String;
    /// Mounts.
    with_mounts: mounts: Vec<Mount>;
    /// With a terminal.
    with_tty: tty;
    /// The memory that it may use, in bytes.
    with_memory_limit: memory_limit: Option<u64>;
});

impl Blueprint {
    /// An instance of this name, with defaults for everything else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The command of its main process.
    #[must_use]
    pub fn with_command(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// The environment of its processes.
    #[must_use]
    pub fn with_env(mut self, variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.env = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if !self.name.is_empty() {
            check_name(&self.name)?;
        }
        check_labels(&self.labels)?;
        let wrong = if self.command.iter().any(|word| word.contains('\0')) {
            Some("a word of the command holds a NUL")
        } else if self.env.iter().any(|(key, value)| !is_env(key, value)) {
            Some("an environment variable is empty, or holds a NUL, or a '=' in its name")
        } else if self.user.contains('\0') || self.working_dir.contains('\0') || !self.working_dir.starts_with('/') {
            Some("the user holds a NUL, or the working directory is not an absolute path")
        } else {
            None
        };
        wrong.map_or(Ok(()), |wrong| Err(invalid(wrong)))
    }
}

impl From<&str> for Blueprint {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

impl From<String> for Blueprint {
    fn from(name: String) -> Self {
        Self::named(name)
    }
}

/// Limits of the kernel.
pub(crate) fn is_env(key: &str, value: &str) -> bool {
    !key.is_empty() && !key.contains(['\0', '=']) && !value.contains('\0')
}

/// Names end up in paths, host names and command lines of the runtime's users: an allow-list, not a deny-list.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let ok = name.len() <= 128
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(inner);
    if ok {
        Ok(())
    } else {
        Err(invalid("a name is [A-Za-z0-9][A-Za-z0-9_.-]* of at most 128 bytes").with_context("name", shown(name)))
    }
}

pub(crate) fn check_labels(labels: &Labels) -> Result<()> {
    if labels.contains_key("") { Err(invalid("a label's key is empty")) } else { Ok(()) }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "memory.create", message)
}

/// A hostile name for messages: cut, and on one line.
fn shown(name: &str) -> String {
    name.escape_debug().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_allow_list_are_refused() {
        for name in ["", "-a", ".a", "a b", "a/b", "../a", "a\nb", "a\0", "é", "a;rm", &"a".repeat(129)] {
            let error = check_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
            assert!(error.to_string().len() < 300 && !error.to_string().contains('\n'), "{name:?}");
        }
        for name in ["a", "0", "web-1.example_x", &"a".repeat(128)] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn values_that_a_kernel_cannot_carry_are_refused() {
        let with = |key: &str, value: &str| {
            Blueprint::named("a").with_env(BTreeMap::from([(key.to_owned(), value.to_owned())])).check()
        };
        assert!(with("A", "1\n2 \u{7f} ../..").is_ok());
        for (key, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "\0")] {
            assert_eq!(with(key, value).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_of_the_longest_duration_does_not_end() {
        let runtime = crate::MemoryRuntime::new();
        let id = runtime.create(Blueprint::named("a").with_run_length(Duration::MAX)).unwrap();
        runtime.start(&id).unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(runtime.truth().iter().all(|one| one.state.is_alive()));
    }
}
