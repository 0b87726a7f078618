//! Power cuts: every moment of a disk's history, and the states that each may leave.

use std::{collections::HashMap, fmt, ops::Range};

use super::{
    ModelDisk,
    world::{Doubt, Op, World},
};

/// Number of the last operations that a failure shows.
const SHOWN: usize = 16;

/// The state that one power cut left.
#[derive(Debug)]
pub struct Crash<'a> {
    /// The disk after the power cut.
    pub disk: ModelDisk,
    /// The last mark before the power cut.
    pub mark: Option<u64>,
    /// `true` if nothing at all was lost.
    pub kept_all: bool,
    history: &'a [Op],
    before: &'a World,
    doubts: &'a [Doubt],
    picks: &'a [usize],
}

impl Crash<'_> {
    /// The events that led to it, one line each: the last operations, then the writes in doubt and whether they were lost.
    pub fn trail(&self) -> Vec<String> {
        let skipped = self.history.len().saturating_sub(SHOWN);
        let done = self.history.iter().enumerate().skip(skipped).map(|(number, op)| format!("{}: {op}", number + 1));
        let decided = self.doubts.iter().zip(self.picks).map(|(doubt, pick)| self.before.describe(*doubt, *pick));
        done.chain(decided).collect()
    }
}

impl fmt::Display for Crash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a power cut after {} operations", self.history.len())
    }
}

impl ModelDisk {
    /// The disk after a power cut just now that took everything that was not durable.
    #[must_use]
    pub fn crash(&self) -> Self {
        let state = self.state();
        let doubts = state.now.doubts();
        Self::with(state.now.after(&doubts, &vec![0; doubts.len()]))
    }

    /// Shows `visit` the states that power cuts may leave: at each moment in `moments` of the history, counted in operations,
    /// every subset of the writes in doubt, or `most` of them if there are more, chosen by the number `choice`: nothing and
    /// everything are always among them. A state that was shown before with a mark at least as high is not shown again.
    ///
    /// Returns the number of states that were shown.
    ///
    /// # Errors
    /// The first error of `visit`, after which it ends.
    pub fn crashes<E>(
        &self,
        moments: Range<usize>,
        most: usize,
        choice: u64,
        mut visit: impl FnMut(&Crash<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut world, history) = {
            let state = self.state();
            (state.base.clone(), state.history.clone())
        };
        let mut random = Random(choice);
        let mut seen: HashMap<blake3::Hash, Option<u64>> = HashMap::new();
        let (mut mark, mut shown) = (None, 0);
        for moment in 0..=history.len().min(moments.end.saturating_sub(1)) {
            if let Some(op) = moment.checked_sub(1).and_then(|last| history.get(last)) {
                world.apply(op);
                if let Op::Mark(here) = op {
                    mark = Some(*here);
                }
            }
            // The mark that follows promises more, of the same states.
            if moment < moments.start || matches!(history.get(moment), Some(Op::Mark(_))) {
                continue;
            }
            let doubts = world.doubts();
            for picks in picks(&doubts, most, &mut random) {
                let after = world.after(&doubts, &picks);
                let known = seen.entry(after.print()).or_insert(None);
                if known.is_some() && *known >= mark {
                    continue;
                }
                *known = mark.or(Some(0));
                shown += 1;
                visit(&Crash {
                    disk: Self::with(after),
                    mark,
                    kept_all: doubts.iter().zip(&picks).all(|(doubt, pick)| *pick == doubt.ways()),
                    history: history.get(..moment).unwrap_or_default(),
                    before: &world,
                    doubts: &doubts,
                    picks: &picks,
                })?;
            }
        }
        Ok(shown)
    }
}

/// Ways to decide all doubts: all of them, if there are no more than `most`.
fn picks(doubts: &[Doubt], most: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let all = doubts.iter().try_fold(1_usize, |ways, doubt| ways.checked_mul(doubt.ways() + 1));
    if let Some(all) = all.filter(|all| *all <= most) {
        let nth = |mut number: usize| {
            let digit = |doubt: &Doubt| {
                let base = doubt.ways() + 1;
                let pick = number % base;
                number /= base;
                pick
            };
            doubts.iter().map(digit).collect()
        };
        return (0..all).map(nth).collect();
    }
    let mut picks = vec![vec![0; doubts.len()], doubts.iter().map(|doubt| doubt.ways()).collect()];
    // Mixtures of all degrees, from little to almost everything.
    for way in 0..most.saturating_sub(picks.len()) {
        let degree = way % 8 + 1;
        let pick = |doubt: &Doubt| {
            if random.below(9) < degree { 1 + random.below(doubt.ways()) } else { 0 }
        };
        picks.push(doubts.iter().map(pick).collect());
    }
    picks
}

/// `SplitMix64`: the same seed gives the same choices on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
