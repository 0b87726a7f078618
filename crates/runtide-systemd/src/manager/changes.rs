//! The changes of one unit, as systemd signals them: a state that is over by the next inspection is among them.

use std::{future::Future, num::NonZeroUsize, pin::pin};

use futures_util::{FutureExt as _, StreamExt as _};
use zbus::{Connection, Message, MessageStream};

use super::unit::Seen;
use crate::{
    client::{PROPERTIES, SERVICE, UNIT},
    names,
    properties::{ServiceProperties, UnitProperties},
    subscription::{is_from, signals},
};

/// Number of queued changes: more of one unit than come between two polls; the rest waits in the socket.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// A stream of changes. It must be read: a full one stops its connection.
pub(super) struct Changes {
    stream: MessageStream,
    systemd: String,
    /// systemd reports the service first, and then the unit, both with their state at the same moment.
    service: ServiceProperties,
}

impl Changes {
    /// Subscribes to the changes of a unit.
    pub(super) async fn of(unit: &str, connection: &Connection) -> zbus::Result<MessageStream> {
        let rule = signals(PROPERTIES, "PropertiesChanged").path(names::path_of(unit)).build()?;
        MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await
    }

    /// `systemd` is the unique name whose changes count.
    pub(super) fn new(stream: MessageStream, systemd: String) -> Self {
        Self { stream, systemd, service: ServiceProperties::default() }
    }

    /// Returns the unit's state at the next change of it; `None`: the connection broke.
    ///
    /// # Cancel safety
    /// No change is lost.
    pub(super) async fn next(&mut self) -> Option<Seen> {
        while let Some(Ok(change)) = self.stream.next().await {
            if is_from(&change, &self.systemd)
                && let Some(seen) = self.hear(&change)
            {
                return Some(seen);
            }
        }
        None
    }

    /// Carries this out, and calls `heard` with each change up to its end.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>, mut heard: impl FnMut(Seen)) -> T {
        let mut work = pin!(work);
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                Some(seen) = self.next() => heard(seen),
            }
        };
        while let Some(Some(seen)) = self.next().now_or_never() {
            heard(seen);
        }
        done
    }

    fn hear(&mut self, change: &Message) -> Option<Seen> {
        let body = change.body();
        let (about, service) = match body.deserialize::<(String, UnitProperties, Vec<String>)>() {
            Ok((interface, about, _)) if interface == UNIT => (about, std::mem::take(&mut self.service)),
            Ok((interface, ..)) if interface == SERVICE => {
                if let Ok((_, service, _)) = body.deserialize::<(String, ServiceProperties, Vec<String>)>() {
                    self.service = service;
                }
                return None;
            }
            _ => return None,
        };
        // Only a change with the active state can report an end.
        about.active_state.as_ref()?;
        about.invocation_id.as_ref()?;
        Some(Seen { about, service, ..Seen::default() })
    }
}
