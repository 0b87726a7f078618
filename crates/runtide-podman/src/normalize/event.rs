//! Messages of `/events`, borrowed from the buffer that they arrived in.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, Instance, InstanceId, InstanceKind, InstanceState, event::ResumeToken};
use runtide_engine::{Text, create::users_labels, number};
use serde::Deserialize;

use super::container;

/// A message. Podman's own form of it is Docker's, with other words in it (trap P1).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event<'a> {
    #[serde(borrow, rename = "Type")]
    kind: Text<'a>,
    #[serde(borrow, rename = "Action")]
    action: Text<'a>,
    #[serde(borrow, rename = "Actor")]
    actor: Option<Actor<'a>>,
    #[serde(rename = "timeNano")]
    time_nano: Option<serde_json::Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor<'a> {
    #[serde(borrow, rename = "ID")]
    id: Text<'a>,
    #[serde(borrow, rename = "Attributes")]
    attributes: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

/// The object of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    /// A container that joined or left a network; the id is the container's.
    Network,
    /// Podman as a whole.
    System,
    Other,
}

/// The action that a message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Start,
    Died,
    Remove,
    Pause,
    Unpause,
    /// A check was made. Podman 4 says so before it writes down the verdict.
    Checked,
    /// No change of the container that any field shows, or one that another message reports.
    Nothing,
    /// The machine was booted: no container runs any more.
    Refresh,
    /// The file of events was replaced under a stream that goes on in the new one.
    Rotated,
    /// Any other action: a reason to inspect the container.
    Other,
}

/// Attributes that Podman itself adds to a container's labels, in place of labels of these names.
const NATIVE: [&str; 5] = ["image", "name", "containerExitCode", "podId", "execID"];

/// Attribute that Podman 4.5 and later put on the messages around what a new file has of the old one.
const ROTATION: &str = "io.podman.event.rotate";

impl Event<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match &*self.kind {
            "container" => Kind::Container,
            "network" if matches!(&*self.action, "connect" | "disconnect") => Kind::Network,
            "system" => Kind::System,
            _ => Kind::Other,
        }
    }

    pub(crate) fn action(&self) -> Action {
        // A verb may carry more: later versions say `health_status: healthy` to Docker's clients.
        let verb = self.action.split_once(':').map_or(&*self.action, |(verb, _)| verb);
        match verb {
            "create" => Action::Create,
            "start" => Action::Start,
            "died" => Action::Died,
            "remove" => Action::Remove,
            "pause" => Action::Pause,
            "unpause" => Action::Unpause,
            "refresh" => Action::Refresh,
            "log-rotation" if self.get(ROTATION) == Some("end") => Action::Rotated,
            "health_status" => Action::Checked,
            "attach" | "cleanup" | "commit" | "copy" | "exec" | "exec_died" | "export" | "init" | "kill" | "mount"
            | "prune" | "restart" | "stop" | "sync" | "unmount" => Action::Nothing,
            _ => Action::Other,
        }
    }

    /// The container that the message is about.
    pub(crate) fn container(&self) -> Option<&str> {
        let is_about_one = matches!(self.kind(), Kind::Container | Kind::Network);
        self.actor.as_ref().map(|actor| &*actor.id).filter(|id| is_about_one && !id.is_empty())
    }

    fn get(&self, key: &str) -> Option<&str> {
        let attributes = self.actor.as_ref()?.attributes.as_ref()?;
        attributes.iter().find(|(name, _)| &***name == key).map(|(_, value)| &**value)
    }

    /// The name that the container has.
    pub(crate) fn name(&self) -> Option<&str> {
        self.get("name").filter(|name| !name.is_empty())
    }

    /// The pod that the container is in. Not every message has it: `died` of Podman 4 does not.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.get("podId").filter(|pod| !pod.is_empty())
    }

    /// The exit code, which only `died` has: any other message says 0. One of -1 says that Podman found none.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let code = || number(self.get("containerExitCode")?, "containerExitCode");
        (self.action() == Action::Died).then(code)?.filter(|code| *code >= 0)
    }

    pub(crate) fn nanoseconds(&self) -> Option<u64> {
        self.time_nano.as_ref()?.as_u64().filter(|nano| *nano > 0)
    }

    pub(crate) fn at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(self.nanoseconds()?))
    }

    /// `sec.nnnnnnnnn action id`: the same fact has the same token in every replay.
    pub(crate) fn token(&self) -> Option<ResumeToken> {
        const SECOND: u64 = 1_000_000_000;
        let nano = self.nanoseconds()?;
        let id = container::short(self.actor.as_ref().map_or("", |actor| &*actor.id));
        let mut token = String::with_capacity(64);
        let _ = write!(token, "{}.{:09} {} {id}", nano / SECOND, nano % SECOND, &*self.action);
        Some(ResumeToken::from(token.as_str()))
    }
}

/// The instance as far as a message alone describes it.
pub(crate) fn described(backend: &BackendId, event: &Event<'_>, state: InstanceState) -> Option<Instance> {
    let attributes = event.actor.as_ref()?.attributes.as_ref()?;
    let id = event.container()?;
    let name = container::name(event.name().unwrap_or_default(), id);
    let mut instance = Instance::new(backend.clone(), InstanceId::from(id), name, InstanceKind::Container, state);
    instance.image = event.get("image").and_then(container::image);
    let labels = attributes.iter().filter(|(key, _)| !NATIVE.contains(&&***key));
    let labels = users_labels(labels.map(|(key, value)| (&**key, &**value)));
    if event.pod().is_none() {
        instance.group = container::compose(&labels);
    }
    instance.labels = Some(labels);
    Some(instance)
}
