//! The figures of a run.

use std::{collections::BTreeMap, fmt, time::Duration};

use runtide_core::RuntimeEventKind as Kind;

use super::process::Memory;
use crate::{Held, Subscriber};

/// The figures of a run: what was done, thrown, seen and held.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Figures {
    /// The seed.
    pub seed: u64,
    /// Number of rounds.
    pub rounds: u64,
    /// Starts, stops and removals that were compared, one by one, with those that the harness saw.
    pub proven: u64,
    /// Faults by their kind.
    pub faults: BTreeMap<String, u64>,
    /// Events of the stream, by their kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Resyncs of the stream, by their reason.
    pub gaps: BTreeMap<String, u64>,
    pub(super) calls: Vec<String>,
    most: Held,
    last: Held,
    memory: Option<Memory>,
    /// Resident KiB after the warm-up and at the end.
    pub(super) growth: Option<(u64, u64)>,
}

impl Figures {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds the events of a round.
    pub(super) fn observe(&mut self, stream: &Subscriber) {
        for event in &stream.events {
            *self.events.entry(event.kind.name()).or_default() += 1;
            if let Kind::ResyncBegin { gap } = &event.kind {
                *self.gaps.entry(format!("{gap:?}")).or_default() += 1;
            }
        }
    }

    /// Adds a round, with what is held at its end.
    pub(super) fn round(&mut self, held: Held) {
        self.rounds += 1;
        let most = |one: Option<usize>, other: Option<usize>| one.max(other);
        self.most = Held::new(
            most(self.most.connections, held.connections),
            most(self.most.descriptors, held.descriptors),
            most(self.most.tasks, held.tasks),
        );
        (self.last, self.memory) = (held, Memory::now());
    }

    /// The line of a check point.
    pub(super) fn progress(&self, elapsed: Duration, is_calm: bool) -> String {
        let count = |count: Option<usize>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        format!(
            "{:4} s: round {} {}: holds; {} events ({} compared one by one), {} descriptors, {} KiB",
            elapsed.as_secs(),
            self.rounds,
            if is_calm { "(calm)" } else { "(faults)" },
            self.events.values().sum::<u64>(),
            self.proven,
            count(self.last.descriptors),
            self.memory.map_or(0, |memory| memory.now),
        )
    }
}

fn counts<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let all: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chaos: seed {}, {} rounds", self.seed, self.rounds)?;
        for line in &self.calls {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "  faults: {}", counts(&self.faults))?;
        writeln!(f, "  events: {}", counts(&self.events))?;
        writeln!(f, "  resyncs: {}", counts(&self.gaps))?;
        if self.proven > 0 {
            writeln!(f, "  {} starts, stops and removals compared one by one in rounds without a gap", self.proven)?;
        }
        writeln!(f, "  at check points: at most {:?}, at last {:?}", self.most, self.last)?;
        if let (Some((first, last)), Some(memory)) = (self.growth, self.memory) {
            writeln!(f, "  memory: {first} KiB after the warm-up, {last} KiB at the end, {} KiB at most", memory.peak)?;
        }
        Ok(())
    }
}
