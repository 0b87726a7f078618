//! Pure translation: Docker's JSON in, Runtide's values out. No function waits, and none fails for one field: a field that
//! cannot be read is unknown, and named in the log.
//!
//! A field that both the list and an inspection have gets one value from either, so that none flips between a summary and a
//! full instance: the creation time is cut to the list's seconds, and an image that the list shows as an id is unknown.

mod container;
mod event;
mod inspect;
mod lenient;
mod list;
mod network;
mod status;

use std::borrow::Cow;

use runtide_core::InstanceState;
use serde::{Deserialize, Deserializer};

pub(crate) use self::{
    container::summary,
    event::{Action, Attributes, Event, described},
    inspect::{Inspected, Rewritten, inspected, is_doubtful, time},
    lenient::{lenient, log},
    list::{items, listed},
};

/// Text that stays in the buffer unless it has escapes in it; `null` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The state for every word of Docker's, and of a Podman's behind the same socket.
///
/// `removing` is reported only of a container that no longer runs; `dead` is Docker's word for one that it failed to remove.
pub(crate) fn state(text: &str) -> InstanceState {
    match text {
        "created" | "initialized" | "configured" => InstanceState::Created,
        "running" => InstanceState::Running,
        "paused" => InstanceState::Paused,
        "restarting" => InstanceState::Restarting,
        "stopping" => InstanceState::Stopping,
        "removing" | "exited" | "stopped" => InstanceState::Stopped,
        "dead" => InstanceState::Failed,
        _ => InstanceState::Unknown,
    }
}

#[cfg(test)]
mod tests;
