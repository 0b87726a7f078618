//! Connections on which systemd tells.

use std::num::NonZeroUsize;

use runtide_core::Result;
use zbus::{Connection, Message};

use crate::client::{BUS, BUS_PATH, Client, MANAGER, ROOT, SYSTEMD};

/// A link with these signals asked for, systemd told to send them, and its own name on the bus; within the deadline.
///
/// `asked` comes first, so that nothing is told before somebody listens; without the call after it nothing is told at all (trap S1).
pub(crate) async fn subscribe<T>(
    client: &Client,
    operation: &'static str,
    queue: NonZeroUsize,
    asked: impl AsyncFnOnce(&Connection) -> zbus::Result<T>,
) -> Result<(Connection, String, T)> {
    let connection = client.dial(operation, queue).await?;
    let asking = async {
        let streams = asked(&connection).await?;
        connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "Subscribe", &()).await?;
        let owner = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &(SYSTEMD,)).await?;
        Ok::<_, zbus::Error>((owner.body().deserialize::<String>()?, streams))
    };
    let deadline = client.config().deadline;
    match tokio::time::timeout(deadline, asking).await {
        Ok(Ok((systemd, streams))) => Ok((connection, systemd, streams)),
        Ok(Err(error)) => Err(client.place(operation).dbus(error)),
        Err(_) => Err(client.place(operation).timeout(deadline)),
    }
}

/// Asks the bus for the signals that these rules describe.
pub(crate) async fn add_matches(connection: &Connection, rules: &[&str]) -> zbus::Result<()> {
    for rule in rules {
        connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", rule).await?;
    }
    Ok(())
}

/// Whether systemd said it, whose own name on the bus this is: anybody may send a signal to anybody.
pub(crate) fn is_from(signal: &Message, systemd: &str) -> bool {
    signal.header().sender().is_some_and(|sender| sender.as_str() == systemd)
}
