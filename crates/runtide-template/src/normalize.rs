//! The runtime's values in, Runtide's values out: pure functions, no I/O.
//!
//! FORK: most of a backend's knowledge of its runtime is here. Keep each mapping total, and test it value by value.

use std::sync::Arc;

use runtide_core::{
    ErrorKind, Failure, Gap, Instance, InstanceState, Listing,
    watch::{Signal, SignalBody},
};

use crate::{
    client::{LIST, fork},
    config::Config,
};

/// FORK: the table of the README. A word that you do not know is `Unknown`.
pub(crate) fn state(word: &str) -> InstanceState {
    let _ = word;
    InstanceState::Unknown
}

/// An instance, as a listing or an inspection shows it. A field that was not observed is `None`; an empty list says that there are
/// none.
pub(crate) fn instance(config: &Config, item: &[u8]) -> Result<Arc<Instance>, Failure> {
    let item = str::from_utf8(item).map_err(|error| Failure::new(ErrorKind::Protocol, LIST, error.to_string()))?;
    // FORK: id (the runtime's own, never a name), name, kind, `state`, incarnation (another one for each start), exit, labels.
    let _ = (config, item, state);
    Err(Failure::from(&fork(LIST, "decode one instance")))
}

/// All items: one that cannot be decoded makes the listing partial, and hides no other.
pub(crate) fn listing(config: &Config, items: &[Vec<u8>]) -> Listing {
    let (mut present, mut failures) = (Vec::new(), Vec::new());
    for item in items {
        match instance(config, item) {
            Ok(instance) => present.push(instance),
            Err(failure) => failures.push(failure),
        }
    }
    Listing::new(present, failures)
}

/// A message of the event stream, as one signal or more.
pub(crate) fn signals(config: &Config, message: &[u8], out: &mut Vec<Signal>) {
    let Ok(message) = str::from_utf8(message) else {
        return out.push(Signal::new(SignalBody::Lost(Gap::Undecodable)));
    };
    // FORK: a message that names the change is an `Edge`, a `State` or `Gone`, with its token and its time; one that only names the
    // instance, or that you do not know, is a `Hint`; a sign of life is `Alive`, with the token of the last event. The first message
    // is best an `Alive` with the present position: from then on a stream that stays quiet can resume.
    let _ = (config, message);
    out.push(Signal::new(SignalBody::Lost(Gap::Undecodable)));
}
