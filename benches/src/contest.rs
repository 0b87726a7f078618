//! Contenders that take turns, so that other load of the machine burdens all of them equally.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};

use crate::Round;

/// Default number of turns of each contender for the table.
const TURNS: usize = 21;

/// `true` if the benches are only tried (`--test`): each work once, and no measurement.
pub fn is_trial() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// Criterion with the options of the benches. A filter without a match (`-- table`) leaves only the table.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

struct Contender<'a> {
    name: &'static str,
    turn: Box<dyn FnMut() -> Round + 'a>,
    rounds: Vec<Round>,
}

/// Contenders of one contest. Criterion runs them one after the other and reports changes since its last run; the
/// figures for the table come from turns taken by all of them in rotation.
pub struct Contest<'a> {
    title: String,
    turns: usize,
    contenders: Vec<Contender<'a>>,
}

impl<'a> Contest<'a> {
    /// A contest without contenders.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), turns: TURNS, contenders: Vec::new() }
    }

    /// Sets the number of turns, where the default of 21 would take too long.
    #[must_use]
    pub fn turns(self, turns: usize) -> Self {
        Self { turns, ..self }
    }

    /// Adds a contender; `turn` runs one round.
    #[must_use]
    pub fn with(mut self, name: &'static str, turn: impl FnMut() -> Round + 'a) -> Self {
        self.contenders.push(Contender { name, turn: Box::new(turn), rounds: Vec::new() });
        self
    }

    /// Runs the contest.
    pub fn run(mut self, criterion: &mut Criterion) -> Figures {
        let turns = if is_trial() { 1 } else { self.turns };
        for contender in &mut self.contenders {
            (contender.turn)(); // warm
        }
        for _ in 0..turns {
            for contender in &mut self.contenders {
                let round = (contender.turn)();
                contender.rounds.push(round);
            }
        }
        let mut group = criterion.benchmark_group(&self.title);
        for contender in &mut self.contenders {
            let units = contender.rounds[0].units;
            group.throughput(Throughput::Elements(units));
            let turn = &mut contender.turn;
            group.bench_function(BenchmarkId::from_parameter(contender.name), |bencher| {
                bencher.iter_custom(|turns| (0..turns).map(|_| turn().wall).sum());
            });
        }
        group.finish();
        Figures(self.contenders.into_iter().map(|contender| (contender.name, contender.rounds)).collect())
    }
}

impl std::fmt::Debug for Contest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contest").field("title", &self.title).finish_non_exhaustive()
    }
}

/// Figures of a contest; all but the best are medians of the turns.
#[derive(Debug)]
pub struct Figures(Vec<(&'static str, Vec<Round>)>);

impl Figures {
    /// The contenders, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Units per second.
    pub fn rate(&self, name: &str) -> f64 {
        median(self.rounds(name).iter().map(Round::rate))
    }

    /// Seconds of wall time for one round.
    pub fn seconds(&self, name: &str) -> f64 {
        median(self.rounds(name).iter().map(|round| round.wall.as_secs_f64()))
    }

    /// Units per second in the best turn: its speed on an idle machine.
    pub fn best_rate(&self, name: &str) -> f64 {
        self.rounds(name).iter().map(Round::rate).fold(0.0, f64::max)
    }

    /// Seconds of CPU for each unit.
    pub fn cpu_each(&self, name: &str) -> f64 {
        median(self.rounds(name).iter().map(Round::cpu_each))
    }

    /// Speed relative to the peer, turn by turn.
    pub fn faster(&self, name: &str, peer: &str) -> f64 {
        median(self.rounds(name).iter().zip(self.rounds(peer)).map(|(one, other)| one.rate() / other.rate()))
    }

    /// CPU relative to the peer's, turn by turn.
    pub fn cpu_ratio(&self, name: &str, peer: &str) -> f64 {
        median(self.rounds(name).iter().zip(self.rounds(peer)).map(|(one, other)| one.cpu_each() / other.cpu_each()))
    }

    fn rounds(&self, name: &str) -> &[Round] {
        let found = self.0.iter().find(|(known, _)| *known == name);
        &found.expect("a contender of this name").1
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
