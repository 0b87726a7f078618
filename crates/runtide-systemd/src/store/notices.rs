//! What the manager says when it read unit files again, so that changes by others are seen at once.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::StreamExt;
use runtide_core::Result;
use tokio::sync::Notify;
use zbus::{Connection, MessageStream};

use crate::{
    client::{BUS, Client, MANAGER, ROOT, SYSTEMD},
    error::BusErrors,
    subscription::{add_matches, subscribe},
};

const LISTEN: &str = "systemd.store.listen";

/// Signals that are queued for one who is slow: each of them says the same.
const QUEUE: usize = 64;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Listens until it is dropped. Without a link there is still the slow look at the folder.
pub(super) async fn listen(client: Client, told: Arc<Notify>) {
    let mut pause = SHORTEST;
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = heard(&client, &told).await;
        tracing::debug!(%error, "no word of unit files that changed; it is tried again");
        if began.elapsed() > LONGEST {
            pause = SHORTEST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn heard(client: &Client, told: &Notify) -> Result<std::convert::Infallible> {
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
    // What happened before is in no signal.
    told.notify_one();
    // It may be silent for days: what it would tell is seen by the slow look as well.
    while let Some(message) = signals.next().await {
        let message = message.map_err(|error| site.dbus(error))?;
        let header = message.header();
        let sender = header.sender().map(zbus::names::UniqueName::as_str);
        match said(&owner, sender, header.member().map(zbus::names::MemberName::as_str)) {
            Said::Changed => told.notify_one(),
            Said::Gone => break,
            Said::Nothing => {}
        }
    }
    Err(site.error(runtide_core::ErrorKind::Unavailable, "the manager, or its bus, went away"))
}

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Unit files may have changed.
    Changed,
    /// A manager that was run again does not know its subscribers.
    Gone,
    Nothing,
}

/// Anybody on the bus can send a signal to this connection, whatever it asked for: only the owner of the manager's name speaks
/// for the manager, and only the bus for the bus.
fn said(owner: &str, sender: Option<&str>, member: Option<&str>) -> Said {
    match member {
        Some("UnitFilesChanged" | "Reloading") if sender == Some(owner) => Said::Changed,
        Some("NameOwnerChanged") if sender == Some(BUS) => Said::Gone,
        _ => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_manager_and_the_bus_are_believed() {
        for (sender, member, means) in [
            (":1.2", "UnitFilesChanged", Said::Changed),
            (":1.2", "Reloading", Said::Changed),
            (":1.99", "UnitFilesChanged", Said::Nothing),
            (":1.99", "Reloading", Said::Nothing),
            (BUS, "NameOwnerChanged", Said::Gone),
            (":1.2", "NameOwnerChanged", Said::Nothing),
            (":1.99", "NameOwnerChanged", Said::Nothing),
        ] {
            assert_eq!(said(":1.2", Some(sender), Some(member)), means, "{sender} {member}");
        }
        assert_eq!(said(":1.2", None, Some("Reloading")), Said::Nothing);
    }
}
