//! Signals of the manager that it reloaded unit files, so that changes by other programs are detected at once.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::StreamExt;
use runtide_core::{Result, Retry};
use tokio::sync::Notify;
use zbus::{Connection, MessageStream};

use crate::{
    client::{BUS, Client, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
    subscription::{add_matches, subscribe},
};

const LISTEN: &str = "systemd.store.listen";

/// Number of signals that are queued for a slow receiver: all have the same meaning.
const QUEUE: usize = 64;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Listens until it is dropped. Without a connection the periodic scan of the folder remains.
pub(super) async fn listen(client: Client, changed: Arc<Notify>) {
    let mut pause = SHORTEST;
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = receive(&client, &changed).await;
        tracing::debug!(%error, "no signals of changed unit files; it is tried again");
        if let Retry::Poll(interval) = error.retry() {
            tokio::time::sleep(interval).await;
            continue;
        }
        if began.elapsed() > LONGEST {
            pause = SHORTEST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn receive(client: &Client, changed: &Notify) -> Result<std::convert::Infallible> {
    let site = client.site(LISTEN);
    let queue = NonZeroUsize::MIN.saturating_add(QUEUE - 1);
    let (_link, owner, mut signals) = subscribe(client, LISTEN, queue, async |connection: &Connection| {
        let signals = MessageStream::from(connection);
        let rules = [
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',path='{ROOT}',member='UnitFilesChanged'"),
            format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',path='{ROOT}',member='Reloading'"),
            format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"),
        ];
        add_matches(connection, &rules.each_ref().map(String::as_str)).await?;
        Ok(signals)
    })
    .await?;
    // No signal reports earlier changes.
    changed.notify_one();
    // It may be silent for days: the periodic scan detects missed changes as well.
    while let Some(message) = signals.next().await {
        let message = message.map_err(|error| site.dbus(error))?;
        let header = message.header();
        let sender = header.sender().map(zbus::names::UniqueName::as_str);
        match meaning(&owner, sender, header.member().map(zbus::names::MemberName::as_str)) {
            Notice::Changed => changed.notify_one(),
            Notice::Gone => break,
            Notice::Nothing => {}
        }
    }
    Err(site.error(runtide_core::ErrorKind::Unavailable, "the manager, or its bus, went away"))
}

/// The meaning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Unit files may have changed.
    Changed,
    /// A new manager process does not know its subscribers.
    Gone,
    Nothing,
}

/// Any client of the bus can send signals to this connection, with or without a match: only the owner of the manager's
/// name is the manager, and only the bus is the bus.
fn meaning(owner: &str, sender: Option<&str>, member: Option<&str>) -> Notice {
    match member {
        Some("UnitFilesChanged" | "Reloading") if sender == Some(owner) => Notice::Changed,
        Some("NameOwnerChanged") if sender == Some(BUS) => Notice::Gone,
        _ => Notice::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_of_the_manager_and_the_bus_count() {
        for (sender, member, means) in [
            (":1.2", "UnitFilesChanged", Notice::Changed),
            (":1.2", "Reloading", Notice::Changed),
            (":1.99", "UnitFilesChanged", Notice::Nothing),
            (":1.99", "Reloading", Notice::Nothing),
            (BUS, "NameOwnerChanged", Notice::Gone),
            (":1.2", "NameOwnerChanged", Notice::Nothing),
            (":1.99", "NameOwnerChanged", Notice::Nothing),
        ] {
            assert_eq!(meaning(":1.2", Some(sender), Some(member)), means, "{sender} {member}");
        }
        assert_eq!(meaning(":1.2", None, Some("Reloading")), Notice::Nothing);
    }
}
