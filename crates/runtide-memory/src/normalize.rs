//! The runtime's values in, Runtide's values out: pure functions, no I/O.

use std::sync::Arc;

use runtide_core::{
    Address, Detail, ErrorKind, Failure, Gap, Instance, InstanceId, InstanceState, Listing, Port,
    watch::{Edge, Signal, SignalBody},
};

use crate::{
    config::{Config, Dialect},
    fault::Garble,
    runtime::{FactKind, Item, Message, Phase, RawListing, Record, Told},
};

/// | the runtime's word | Runtide's state |
/// |---|---|
/// | created | `Created` |
/// | starting | `Starting` |
/// | running | `Running` |
/// | paused | `Paused` |
/// | restarting | `Restarting` |
/// | stopping | `Stopping` |
/// | exited | `Stopped` |
/// | failed | `Failed` |
/// | anything else | `Unknown` |
pub(crate) fn state(phase: Phase) -> InstanceState {
    match phase {
        Phase::Created => InstanceState::Created,
        Phase::Starting => InstanceState::Starting,
        Phase::Running => InstanceState::Running,
        Phase::Paused => InstanceState::Paused,
        Phase::Restarting => InstanceState::Restarting,
        Phase::Stopping => InstanceState::Stopping,
        Phase::Exited => InstanceState::Stopped,
        Phase::Failed => InstanceState::Failed,
        Phase::Other => InstanceState::Unknown,
    }
}

/// An instance, as an inspection shows it.
pub(crate) fn instance(config: &Config, record: &Record, detail: Detail) -> Instance {
    let Record { id, design, phase, .. } = record;
    let mut instance = Instance::new(config.id.clone(), id.clone(), design.name.clone(), design.kind, state(*phase));
    instance.image.clone_from(&design.image);
    instance.labels = Some(design.labels.clone());
    instance.group = design.group.clone().map(Arc::new);
    instance.node.clone_from(&design.node);
    instance.created_at = Some(record.created_at);
    if instance.state.is_alive() {
        // While it does not run, health, ports and addresses are those of the run before.
        instance.health = design.health;
        instance.ports = Some(ports(&design.ports));
        instance.addresses = Some(addresses(&design.addresses));
    }
    if !config.lean_summary || detail == Detail::Full {
        instance.incarnation = record.incarnation();
        instance.exit = record.exit;
        instance.started_at = record.started_at;
        instance.finished_at = record.finished_at;
        instance.restarts = Some(record.restarts);
    }
    instance
}

/// In order, each once, so that two inspections compare equal.
fn ports(native: &[Port]) -> Vec<Port> {
    let mut ports = native.to_vec();
    ports.sort_by_key(|port| (port.number, port.protocol));
    ports.dedup();
    ports
}

fn addresses(native: &[Address]) -> Vec<Address> {
    let mut addresses = native.to_vec();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A listing: an item that cannot be read is named, and hides no other.
pub(crate) fn snapshot(config: &Config, listing: &RawListing, detail: Detail) -> Listing {
    let mut failures = Vec::new();
    let mut instances = Vec::with_capacity(listing.items.len());
    for item in &listing.items {
        match item {
            Item::Record(record) => instances.push(Arc::new(instance(config, record, detail))),
            Item::Garbled(id) => failures.push(garbled(id)),
        }
    }
    if listing.cut {
        failures.push(Failure::new(ErrorKind::Protocol, "memory.list", "the listing was cut"));
    }
    Listing::new(instances, failures)
}

pub(crate) fn garbled(id: &InstanceId) -> Failure {
    let mut failure = Failure::new(ErrorKind::Protocol, "memory.decode", "an item cannot be decoded");
    failure.context.insert("instance".to_owned(), id.to_string());
    failure
}

/// A message of the event stream.
pub(crate) fn signals(config: &Config, message: &Message, out: &mut Vec<Signal>) {
    match message {
        Message::Told(told) => {
            let signal = Signal::new(body(config, told)).with_token(told.fact.token.clone()).with_at(told.fact.at);
            let half = matches!(&signal.body, SignalBody::Edge(_));
            out.push(signal);
            if half && matches!(told.fact.kind, FactKind::Started | FactKind::Stopped) {
                // The edge does not carry the times, ports and addresses that begin or end with a run.
                out.push(Signal::new(SignalBody::Hint(told.fact.id.clone())));
            }
        }
        Message::CaughtUp => out.push(Signal::new(SignalBody::CaughtUp)),
        Message::Alive(token) => out.push(Signal::new(SignalBody::Alive).with_token(token.clone())),
    }
}

/// The messages that name the change, and those that name only the instance. A message in doubt is a hint.
fn body(config: &Config, told: &Told) -> SignalBody {
    let Told { fact, record, garbled, .. } = told;
    let id = fact.id.clone();
    match garbled {
        Some(Garble::Whole) => return SignalBody::Lost(Gap::Undecodable),
        Some(Garble::Body) => return SignalBody::Hint(id),
        None => {}
    }
    match (config.dialect, fact.kind) {
        (Dialect::Hints, _) | (Dialect::Edges, FactKind::Signalled(_) | FactKind::Changed(_)) => SignalBody::Hint(id),
        (_, FactKind::Removed) => SignalBody::Gone(id),
        (Dialect::States, _) => SignalBody::State(Arc::new(instance(config, record, Detail::Full))),
        (Dialect::Edges, _) => SignalBody::Edge(Edge {
            id,
            incarnation: if config.edges_name_incarnation { fact.incarnation.clone() } else { None },
            state: fact.state(),
            exit: fact.exit,
            described: Some(Arc::new(described(config, told))),
        }),
    }
}

/// The instance as far as an event alone describes it.
fn described(config: &Config, told: &Told) -> Instance {
    let Told { fact, record, .. } = told;
    let mut instance =
        Instance::new(config.id.clone(), fact.id.clone(), fact.name.clone(), record.design.kind, fact.state());
    instance.incarnation = if config.edges_name_incarnation { fact.incarnation.clone() } else { None };
    instance.exit = fact.exit;
    instance.image.clone_from(&record.design.image);
    instance.labels = Some(record.design.labels.clone());
    instance.group = record.design.group.clone().map(Arc::new);
    instance
}

#[cfg(test)]
mod tests;
