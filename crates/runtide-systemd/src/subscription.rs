//! Connections that receive systemd's signals.

use std::num::NonZeroUsize;

use runtide_core::Result;
use zbus::{Connection, MatchRule, Message, message::Type};

use crate::{
    client::{BUS, BUS_PATH, Client, Left, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
};

/// Opens a connection, adds the matches, subscribes to systemd, and returns its unique name on the bus; within the
/// deadline.
///
/// `asked` runs first, so that no signal is sent before a stream receives it; without the call after it systemd sends
/// no signal at all (trap S1).
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
            match enable_signals(&connection).await {
                Ok(owner) => return Ok((owner, streams)),
                Err(error) => left.comes_back(site.dbus(error)).await?,
            }
        }
    };
    let deadline = client.config().deadline;
    let (systemd, streams): (String, T) = site.within(deadline, asking).await?;
    Ok((connection, systemd, streams))
}

/// Calls `Subscribe`, and returns systemd's unique name on the bus.
async fn enable_signals(connection: &Connection) -> zbus::Result<String> {
    match connection.call_method(Some(SYSTEMD), ROOT, Some(MANAGER), "Subscribe", &()).await {
        // The call was repeated, and the first one had been carried out.
        Err(zbus::Error::MethodError(name, ..)) if name.ends_with(".AlreadySubscribed") => {}
        subscribed => drop(subscribed?),
    }
    let owner = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &(SYSTEMD,)).await?;
    owner.body().deserialize()
}

/// A match rule for signals of systemd.
pub(crate) fn signals(interface: &'static str, member: &'static str) -> zbus::match_rule::Builder<'static> {
    MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD).interface(interface).member(member)
}

/// Adds match rules at the bus.
pub(crate) async fn add_matches(connection: &Connection, rules: &[&str]) -> zbus::Result<()> {
    for rule in rules {
        connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", rule).await?;
    }
    Ok(())
}

/// True if the signal was sent by systemd, whose unique name this is: any client may send signals.
pub(crate) fn is_from(signal: &Message, systemd: &str) -> bool {
    signal.header().sender().is_some_and(|sender| sender.as_str() == systemd)
}
