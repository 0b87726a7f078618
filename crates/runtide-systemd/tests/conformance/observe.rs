//! An outside observer: converts the manager's signals to facts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use runtide_conformance::{Fact, Happened};
use runtide_core::InstanceId;
use tokio::{sync::watch, task::JoinHandle};
use zbus::{Connection, MessageStream, OwnedVariant};

use super::machine::{self, Machine, Properties};

/// Reads the manager's signals on a separate connection.
pub(crate) struct Observer {
    facts: Arc<Mutex<Vec<Fact>>>,
    link: watch::Receiver<Connection>,
    /// Serial number of the last call whose answer was read. They rise, from one connection to the next too.
    answered: watch::Receiver<u32>,
    reading: JoinHandle<()>,
}

/// The observed state of one unit. Its runs are remembered after it was unloaded: a manager that reloads unloads every unit, and reports the
/// last run of each again.
#[derive(Default)]
struct Seen {
    is_loaded: bool,
    service: Properties,
    begun: Option<String>,
    ended: Option<String>,
}

impl Observer {
    pub(crate) async fn start(machine: Arc<Machine>, prefix: String) -> Result<Self, String> {
        let facts = Arc::<Mutex<Vec<Fact>>>::default();
        let observed = Arc::clone(&facts);
        let (first, messages) = subscribe(&machine).await?;
        let (relink, link) = watch::channel(first);
        let (answers, answered) = watch::channel(0);
        let mut messages = Some(messages);
        let reading = tokio::spawn(async move {
            let mut seen = HashMap::new();
            loop {
                if let Some(mut messages) = messages.take() {
                    while let Some(Ok(message)) = messages.next().await {
                        observed.lock().unwrap().extend(facts_of(&message, &prefix, &mut seen));
                        if let Some(call) = message.header().reply_serial() {
                            answers.send_replace(call.get());
                        }
                    }
                }
                // The manager may be down: it signals its return.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if let Ok((connection, fresh)) = subscribe(&machine).await {
                    let _ = relink.send_replace(connection);
                    messages = Some(fresh);
                }
            }
        });
        Ok(Self { facts, link, answered, reading })
    }

    /// Returns the facts so far, once all is read that the manager signalled before this call.
    pub(crate) async fn facts(&self) -> Result<Vec<Fact>, String> {
        self.caught_up().await?;
        Ok(self.facts.lock().unwrap().clone())
    }

    /// Waits until it has read what the manager signalled before this call, which it did before it answers.
    pub(crate) async fn caught_up(&self) -> Result<(), String> {
        let read = async {
            loop {
                let (connection, mut answered) = (self.link.borrow().clone(), self.answered.clone());
                let asked = connection.call_method(
                    Some("org.freedesktop.systemd1"),
                    "/org/freedesktop/systemd1",
                    Some("org.freedesktop.DBus.Properties"),
                    "Get",
                    &("org.freedesktop.systemd1.Manager", "Version"),
                );
                let call = asked.await.ok().and_then(|answer| answer.header().reply_serial());
                if let Some(call) = call {
                    let read = answered.wait_for(|read| *read >= call.get());
                    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
                    if *self.answered.borrow() >= call.get() {
                        return;
                    }
                }
                // The manager is away, or the connection broke.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, read).await.map_err(|_| "the observer is not connected".to_owned())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn subscribe(machine: &Machine) -> Result<(Connection, MessageStream), String> {
    let connection = machine.dial().await?;
    let messages = MessageStream::from(connection.clone());
    let failed = |error: zbus::Error| error.to_string();
    let bus = "org.freedesktop.DBus";
    let rule = "type='signal',sender='org.freedesktop.systemd1'";
    connection
        .call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "AddMatch", &(rule,))
        .await
        .map_err(failed)?;
    let systemd = "org.freedesktop.systemd1";
    let manager = "org.freedesktop.systemd1.Manager";
    connection
        .call_method(Some(systemd), "/org/freedesktop/systemd1", Some(manager), "Subscribe", &())
        .await
        .map_err(failed)?;
    Ok((connection, messages))
}

fn facts_of(message: &zbus::Message, prefix: &str, seen: &mut HashMap<String, Seen>) -> Vec<Fact> {
    let header = message.header();
    let body = message.body();
    match header.member().map(zbus::names::MemberName::as_str) {
        Some("UnitRemoved") => {
            let Ok((unit, _)) = body.deserialize::<(String, zbus::OwnedObjectPath)>() else { return Vec::new() };
            let Some(known) = seen.get_mut(&unit).filter(|known| known.is_loaded) else { return Vec::new() };
            known.is_loaded = false;
            let fact = |what| Fact { id: InstanceId::from(unit.clone()), what };
            // A unit that is unloaded right after its end has no other signal of it.
            let has_ended = known.begun != known.ended;
            let end = has_ended.then(|| fact(Happened::Stopped { exit: None }));
            end.into_iter().chain([fact(Happened::Removed)]).collect()
        }
        Some("PropertiesChanged") => {
            let Ok((interface, values, _)) = body.deserialize::<(String, Properties, Vec<String>)>() else {
                return Vec::new();
            };
            let path = header.path().map(|path| path.as_str().to_owned()).unwrap_or_default();
            let Some(unit) = path.rsplit_once('/').map(|(_, label)| unescaped(label)) else { return Vec::new() };
            if !unit.starts_with(prefix) {
                return Vec::new();
            }
            let known = seen.entry(unit.clone()).or_default();
            known.is_loaded = true;
            if interface.ends_with(".Service") {
                known.service = values;
                return Vec::new();
            }
            unit_facts(&unit, &values, known)
        }
        _ => Vec::new(),
    }
}

fn unit_facts(unit: &str, values: &HashMap<String, OwnedVariant>, known: &mut Seen) -> Vec<Fact> {
    let Some(incarnation) = machine::invocation(values) else { return Vec::new() };
    let mut facts = Vec::new();
    let fact = |what| Fact { id: InstanceId::from(unit), what };
    let began = machine::number(values, "InactiveExitTimestampMonotonic");
    let starts = machine::number(values, "ConditionTimestampMonotonic");
    let is_over = machine::rests(values) || machine::text(values, "SubState") == "auto-restart";
    if machine::rests(values) && starts > began {
        return facts; // a start that has changed nothing yet
    }
    let is_up = machine::text(values, "ActiveState") == "active";
    let begins = |known: &Seen| known.begun.as_ref() != Some(&incarnation);
    if (is_up || is_over) && begins(known) {
        known.begun = Some(incarnation.clone());
        facts.push(fact(Happened::Started { incarnation: Some(incarnation.as_str().into()) }));
    }
    if is_over && known.ended.as_ref() != Some(&incarnation) {
        known.ended = Some(incarnation);
        facts.push(fact(Happened::Stopped { exit: machine::exit(&known.service) }));
    }
    facts
}

fn unescaped(label: &str) -> String {
    let mut name = String::new();
    let mut rest = label;
    while let Some(at) = rest.find('_') {
        name.push_str(&rest[..at]);
        match u8::from_str_radix(&rest[at + 1..at + 3], 16) {
            Ok(byte) => name.push(char::from(byte)),
            Err(_) => return String::new(),
        }
        rest = &rest[at + 3..];
    }
    name + rest
}
