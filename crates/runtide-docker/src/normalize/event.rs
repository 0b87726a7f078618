//! Messages of `/events`, borrowed from the buffer that they arrived in.

mod plain;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, Instance, InstanceId, InstanceKind, InstanceState, event::ResumeToken};
use runtide_engine::{Text, create::users_labels, number};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::container;

/// Engine 29 (API 1.52) dropped the old top-level fields (trap D8); before API 1.22 there were only those.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event<'a> {
    #[serde(borrow, rename = "Type")]
    kind: Text<'a>,
    #[serde(borrow, rename = "Action")]
    action: Text<'a>,
    #[serde(borrow, rename = "Actor")]
    actor: Option<Actor<'a>>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(rename = "timeNano", deserialize_with = "nanoseconds")]
    time_nano: Option<u64>,
}

/// A time that is no such number is unknown: the message counts all the same.
fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Nanoseconds;
    impl Visitor<'_> for Nanoseconds {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nanoseconds")
        }

        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }

        fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
            tracing::warn!(field = "timeNano", value = number, "left out: no number of this field's range");
            Ok(None)
        }

        fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
            tracing::warn!(field = "timeNano", value = number, "left out: no number of this field's range");
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Nanoseconds)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor<'a> {
    #[serde(borrow, rename = "ID")]
    id: Text<'a>,
    #[serde(borrow, rename = "Attributes")]
    attributes: Option<Attributes<'a>>,
}

/// The action that a message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Start,
    Die,
    Destroy,
    Pause,
    Unpause,
    Oom,
    Rename,
    /// An exec, also one of a health check: frequent, and without a change of the container.
    Exec,
    /// Any other action: a reason to inspect the container.
    Other,
}

impl<'a> Event<'a> {
    /// The message at the beginning of the text, and the length up to its end, if it has the form of nearly all messages; any other is
    /// for serde to read.
    pub(crate) fn plain(text: &'a str) -> Option<(Self, usize)> {
        plain::message(text)
    }
}

impl Event<'_> {
    /// The message is about a network.
    pub(crate) fn is_network(&self) -> bool {
        &*self.kind == "network"
    }

    pub(crate) fn is_container(&self) -> bool {
        // Only the oldest form has no type, and it covers only containers.
        &*self.kind == "container" || (self.kind.is_empty() && !self.status.is_empty())
    }

    fn verb(&self) -> &str {
        let action = if self.action.is_empty() { &*self.status } else { &*self.action };
        action.split_once(':').map_or(action, |(verb, _)| verb)
    }

    pub(crate) fn action(&self) -> Action {
        match self.verb() {
            "create" => Action::Create,
            "start" => Action::Start,
            "die" | "died" => Action::Die,
            "destroy" | "remove" => Action::Destroy,
            "pause" => Action::Pause,
            "unpause" => Action::Unpause,
            "oom" => Action::Oom,
            "rename" => Action::Rename,
            verb if verb.starts_with("exec_") => Action::Exec,
            _ => Action::Other,
        }
    }

    fn actor_id(&self) -> &str {
        match &self.actor {
            Some(actor) if !actor.id.is_empty() => &actor.id,
            _ => &self.id,
        }
    }

    pub(crate) fn attributes(&self) -> Option<&Attributes<'_>> {
        self.actor.as_ref()?.attributes.as_ref()
    }

    /// The container that the message is about, for a network's message the one that was connected or disconnected.
    pub(crate) fn container(&self) -> Option<&str> {
        let id = if self.is_network() {
            self.attributes().and_then(|attributes| attributes.get("container"))?
        } else if self.is_container() {
            self.actor_id()
        } else {
            return None;
        };
        (!id.is_empty()).then_some(id)
    }

    pub(crate) fn nanoseconds(&self) -> Option<u64> {
        self.time_nano.filter(|nano| *nano > 0)
    }

    pub(crate) fn at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(self.nanoseconds()?))
    }

    /// `sec.nnnnnnnnn verb id`: the same fact has the same token in every replay. Only the first word of the verb counts, since
    /// a command line may follow it. `text` is overwritten: its memory serves for many.
    pub(crate) fn token(&self, text: &mut String) -> Option<ResumeToken> {
        const SECOND: u64 = 1_000_000_000;
        let nano = self.nanoseconds()?;
        let id = container::short(self.container().unwrap_or_else(|| self.actor_id()));
        let prefix = if self.is_network() { "network-" } else { "" };
        text.clear();
        digits(text, nano / SECOND, 1);
        text.push('.');
        digits(text, nano % SECOND, 9);
        for part in [" ", prefix, self.verb(), " ", id] {
            text.push_str(part);
        }
        Some(ResumeToken::from(text.as_str()))
    }
}

/// Appends the number with at least `least` digits. `format!` would be a tenth of the cost of a message.
fn digits(out: &mut String, mut number: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut length = 0;
    for digit in text.iter_mut().rev() {
        if number == 0 && length >= least {
            break;
        }
        *digit += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        length += 1;
    }
    let digits = text.get(text.len() - length..);
    out.push_str(digits.and_then(|digits| str::from_utf8(digits).ok()).unwrap_or_default());
}

/// A container's labels and Docker's own keys (trap D16), as a list, since they are few and read once.
#[derive(Debug, Default)]
pub(crate) struct Attributes<'a>(Vec<(Text<'a>, Text<'a>)>);

/// True for a key that Docker itself adds to a container's messages.
fn is_native(key: &str) -> bool {
    matches!(
        key,
        "image" | "name" | "exitCode" | "containerExitCode" | "execDuration" | "signal" | "oldName" | "execID"
    )
}

impl Attributes<'_> {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }

    pub(crate) fn exit_code(&self) -> Option<i32> {
        number(self.get("exitCode").or_else(|| self.get("containerExitCode"))?, "exitCode")
    }

    /// The labels, without Docker's own keys: a label of such a name cannot be distinguished from them.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(key, _)| !is_native(key)).map(|(key, value)| (&**key, &**value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Attributes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Attributes<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attributes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut pairs = Vec::with_capacity(16);
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Attributes(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The instance as far as a message alone describes it: the attributes are its labels, with Docker's own keys mixed in
/// (trap D16).
pub(crate) fn described(
    backend: &BackendId,
    id: InstanceId,
    attributes: &Attributes<'_>,
    state: InstanceState,
) -> Instance {
    let name = container::name(attributes.get("name"), id.as_str());
    let mut instance = Instance::new(backend.clone(), id, name, InstanceKind::Container, state);
    instance.image = attributes.get("image").and_then(container::image);
    let labels = users_labels(attributes.labels());
    instance.group = container::group(&labels);
    instance.labels = Some(labels);
    instance
}
