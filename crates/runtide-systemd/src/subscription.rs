//! Connections on which systemd reports.

use std::num::NonZeroUsize;

use runtide_core::Result;
use zbus::{Connection, Message};

use crate::{
    client::{BUS, BUS_PATH, Client, Left, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
};

/// A link with these signals asked for, systemd asked to send them, and its own name on the bus; within the deadline.
///
/// `asked` comes first, so that nothing is reported before somebody listens; without the call after it nothing is reported at all (trap S1).
pub(crate) async fn subscribe<T>(
    client: &Client,
    operation: &'static str,
    queue: NonZeroUsize,
    asked: impl AsyncFnOnce(&Connection) -> zbus::Result<T>,
) -> Result<(Connection, String, T)> {
    let connection = client.dial(operation, queue).await?;
    let site = client.site(operation);
    let asking = async {
        let streams = asked(&connection).await.map_err(|error| site.dbus(error))?;
        let mut left = Left::default();
        loop {
            match tells(&connection).await {
                Ok(owner) => return Ok((owner, streams)),
                Err(error) => left.comes_back(site.dbus(error)).await?,
            }
        }
    };
    let deadline = client.config().deadline;
    let (systemd, streams): (String, T) = site.within(deadline, asking).await?;
    Ok((connection, systemd, streams))
}

/// Has systemd tell, and says its own name on the bus.
async fn tells(connection: &Connection) -> zbus::Result<String> {
    match connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "Subscribe", &()).await {
        // Asked again, and it had heard the first time.
        Err(zbus::Error::MethodError(name, ..)) if name.ends_with(".AlreadySubscribed") => {}
        subscribed => drop(subscribed?),
    }
    let owner = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &(SYSTEMD,)).await?;
    owner.body().deserialize()
}

/// Asks the bus for the signals that these rules describe.
pub(crate) async fn add_matches(connection: &Connection, rules: &[&str]) -> zbus::Result<()> {
    for rule in rules {
        connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", rule).await?;
    }
    Ok(())
}

/// True if systemd said it, whose own name on the bus this is: anybody may send a signal to anybody.
pub(crate) fn is_from(signal: &Message, systemd: &str) -> bool {
    signal.header().sender().is_some_and(|sender| sender.as_str() == systemd)
}
