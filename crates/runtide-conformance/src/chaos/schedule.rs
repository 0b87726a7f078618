//! The schedule of a run, a pure function of its seed: what each worker does, and which faults there are, and when.
//!
//! Everything is drawn before it is carried out, and nothing depends on its outcome. Two runs with one seed differ in how far they
//! get, and in how the runtime interleaves what the workers do.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use runtide_core::Capabilities;

use crate::Fault;

/// The client that carries out a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The backend under test.
    Runtide,
    /// The harness, on its own connection to the runtime.
    Beside,
}

/// One thing that a worker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    /// Number of the episode among its worker's.
    pub(super) number: u64,
    /// Time to wait before it.
    pub(super) pause: Duration,
    /// Each call of the backend is dropped after this time, if it has not ended by then.
    pub(super) hurry: Option<Duration>,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An instance is created, started, acted upon, and mostly removed.
    Life { maker: Side, work: Work, acts: Vec<(Side, Act)>, end: Option<(Side, End)> },
    /// An instance that is there during the whole run, and that other workers act upon as well.
    Resident { which: usize, acts: Vec<(Side, Act)> },
    /// Two volumes, the content of one of which may go into the other; without `end` they stay.
    Volumes { transfer: bool, end: bool },
    /// One more watch, open for this time.
    Watch(Duration),
    /// The list, and an inspection of each of its first instances.
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Idle,
    Exit { after: Duration, code: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Start,
    Stop,
    Restart,
    /// Frozen for this time.
    Pause(Duration),
    /// A signal that ends nothing.
    Signal,
    Rename,
    Exec,
    Logs,
    Usage,
    /// A network is created, joined, left and, unless it stays, removed.
    Network {
        stays: bool,
    },
    /// The exit status of an instance that ends by itself.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Running or not.
    Remove,
    StopAndRemove,
}

/// The verbs that the backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent ability")]
pub(super) struct Abilities {
    pub(super) create: bool,
    pub(super) restart: bool,
    pub(super) pause: bool,
    pub(super) rename: bool,
    pub(super) exec: bool,
    pub(super) logs: bool,
    pub(super) usage: bool,
    pub(super) networks: bool,
    pub(super) volumes: bool,
    pub(super) transfer: bool,
}

impl Abilities {
    pub(super) fn of(can: &Capabilities) -> Self {
        Self {
            create: can.provision_create.is_yes(),
            restart: can.lifecycle_restart.is_yes(),
            pause: can.lifecycle_pause.is_yes(),
            rename: can.lifecycle_rename.is_yes(),
            exec: can.exec_run.is_yes(),
            logs: can.logs_read.is_yes(),
            usage: can.stats_read.is_yes(),
            networks: can.networks_manage.is_yes() && can.networks_connect.is_yes(),
            volumes: can.volumes_manage.is_yes(),
            transfer: can.volumes_transfer.is_yes(),
        }
    }
}

/// The episodes of one worker, without end.
#[derive(Clone, Debug)]
pub(super) struct Episodes {
    rng: Rng,
    can: Abilities,
    residents: usize,
    next: u64,
}

/// A generator for one purpose of one seed. `fastrand` mixes the number, so neighbours are unrelated.
pub(super) fn generator(seed: u64, purpose: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(purpose))
}

pub(super) fn millis(rng: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn side(rng: &mut Rng) -> Side {
    if rng.u8(..3) == 0 { Side::Beside } else { Side::Runtide }
}

impl Episodes {
    pub(super) fn of(seed: u64, worker: u64, can: Abilities, residents: usize) -> Self {
        Self { rng: generator(seed, 1 + worker), can, residents, next: 0 }
    }

    pub(super) fn draw(&mut self) -> Episode {
        let number = self.next;
        self.next += 1;
        let rng = &mut self.rng;
        let pause = millis(rng, 1..=120);
        let hurry = (rng.u8(..16) == 0).then(|| millis(rng, 1..=60));
        let what = match rng.u8(..100) {
            0..10 if self.residents > 0 => {
                let (which, many) = (rng.usize(..self.residents), rng.u8(1..=2));
                What::Resident { which, acts: (0..many).map(|_| (side(rng), self.can.of_a_resident(rng))).collect() }
            }
            10..20 if self.can.volumes => {
                What::Volumes { transfer: self.can.transfer && rng.bool(), end: rng.u8(..8) != 0 }
            }
            20..28 => What::Watch(millis(rng, 5..=1_500)),
            28..36 => What::Read,
            _ => self.life(),
        };
        Episode { number, pause, hurry, what }
    }

    fn life(&mut self) -> What {
        let (rng, can) = (&mut self.rng, self.can);
        let maker = if can.create { side(rng) } else { Side::Beside };
        let work = match rng.u8(..3) {
            0 => Work::Exit { after: millis(rng, 0..=400), code: rng.i32(0..=100) },
            _ => Work::Idle,
        };
        let mut acts = vec![(side(rng), Act::Start)];
        match work {
            Work::Exit { .. } => acts.push((Side::Runtide, Act::Wait)),
            Work::Idle => {
                for _ in 0..rng.u8(..4) {
                    acts.push((side(rng), can.of_a_life(rng)));
                }
            }
        }
        let end = if rng.u8(..2) == 0 { End::Remove } else { End::StopAndRemove };
        let end = (rng.u8(..10) != 0).then(|| (side(rng), end));
        What::Life { maker, work, acts, end }
    }
}

impl Abilities {
    fn of_a_resident(self, rng: &mut Rng) -> Act {
        let mut acts = vec![Act::Stop, Act::Start, Act::Start, Act::Signal];
        acts.extend(self.restart.then_some(Act::Restart));
        acts.extend(self.pause.then(|| Act::Pause(millis(rng, 1..=200))));
        pick(rng, &acts)
    }

    fn of_a_life(self, rng: &mut Rng) -> Act {
        let mut acts = vec![Act::Stop, Act::Start, Act::Signal];
        acts.extend(self.restart.then_some(Act::Restart));
        acts.extend(self.pause.then(|| Act::Pause(millis(rng, 1..=200))));
        acts.extend(self.rename.then_some(Act::Rename));
        acts.extend(self.exec.then_some([Act::Exec; 3]).into_iter().flatten());
        acts.extend(self.logs.then_some(Act::Logs));
        acts.extend(self.usage.then_some(Act::Usage));
        let network = |rng: &mut Rng| [Act::Network { stays: rng.u8(..8) == 0 }; 2];
        acts.extend(self.networks.then(|| network(rng)).into_iter().flatten());
        pick(rng, &acts)
    }
}

fn pick(rng: &mut Rng, acts: &[Act]) -> Act {
    acts.get(rng.usize(..acts.len())).copied().unwrap_or(Act::Signal)
}

/// One fault, after a time without one, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disturbance {
    pub(super) after: Duration,
    pub(super) fault: Fault,
    pub(super) lasts: Lasts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasts {
    For(Duration),
    /// Until a call without a deadline would be found.
    BeyondDeadlines,
}

/// The faults of a run, without end: dealt from a shuffled deck, so that each kind comes before any comes again.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    rng: Rng,
    deck: Vec<Fault>,
}

impl Faults {
    pub(super) fn of(seed: u64) -> Self {
        Self { rng: generator(seed, 0), deck: Vec::new() }
    }

    pub(super) fn draw(&mut self) -> Disturbance {
        let fault = loop {
            if let Some(fault) = self.deck.pop() {
                break fault;
            }
            self.deck = vec![
                Fault::Sever,
                Fault::Sever,
                Fault::Refuse,
                Fault::HalfOpen,
                Fault::Stall,
                Fault::CleanEof,
                Fault::SlowList(Duration::from_millis(700)),
                Fault::RestartDaemon,
                Fault::KillDaemon,
            ];
            self.rng.shuffle(&mut self.deck);
        };
        let lasts = match self.rng.u8(..4) {
            0 | 1 if fault == Fault::Stall => Lasts::BeyondDeadlines,
            0 => Lasts::For(millis(&mut self.rng, 1_000..=4_000)),
            _ => Lasts::For(millis(&mut self.rng, 20..=700)),
        };
        Disturbance { after: millis(&mut self.rng, 100..=900), fault, lasts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities {
        create: true,
        restart: true,
        pause: true,
        rename: true,
        exec: true,
        logs: true,
        usage: true,
        networks: true,
        volumes: true,
        transfer: true,
    };

    fn drawn(seed: u64, worker: u64, can: Abilities) -> Vec<Episode> {
        let mut episodes = Episodes::of(seed, worker, can, 3);
        (0..500).map(|_| episodes.draw()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_schedule_each_time_and_another_seed_another_one() {
        assert_eq!(drawn(7, 0, ALL), drawn(7, 0, ALL));
        assert_ne!(drawn(7, 0, ALL), drawn(8, 0, ALL));
        assert_ne!(drawn(7, 0, ALL), drawn(7, 1, ALL), "workers do not do the same");
        let faults = |seed| {
            let mut faults = Faults::of(seed);
            (0..50).map(|_| faults.draw()).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn each_kind_of_fault_comes_before_any_comes_again() {
        let mut faults = Faults::of(3);
        for _ in 0..20 {
            let dealt: Vec<_> = (0..9).map(|_| faults.draw().fault).collect();
            assert!(dealt.contains(&Fault::KillDaemon) && dealt.contains(&Fault::Stall), "{dealt:?}");
        }
    }

    #[test]
    fn a_verb_that_the_backend_lacks_is_not_drawn() {
        let has = |can: Abilities, wanted: fn(&Act) -> bool| {
            drawn(1, 0, can).iter().any(|episode| match &episode.what {
                What::Life { acts, .. } | What::Resident { acts, .. } => acts.iter().any(|(_, act)| wanted(act)),
                _ => false,
            })
        };
        let network = |act: &Act| matches!(act, Act::Network { .. });
        assert!(has(ALL, network) && has(ALL, |act| *act == Act::Exec));
        let few = Abilities::default();
        for verb in [network, |act: &Act| matches!(act, Act::Exec | Act::Rename | Act::Pause(_) | Act::Restart)] {
            assert!(!has(few, verb));
        }
        let by_runtide = |episode: &Episode| matches!(episode.what, What::Life { maker: Side::Runtide, .. });
        assert!(!drawn(1, 0, few).iter().any(by_runtide), "a backend that creates nothing");
    }
}
