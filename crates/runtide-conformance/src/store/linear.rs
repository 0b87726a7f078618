//! Checks that the results of many concurrent clients could be those of one client after the other.
//!
//! The algorithm is that of Wing and Gong, with Lowe's memory of the states already tried, on each resource alone:
//! linearizability is local, so the histories of all resources are linearizable exactly if the whole is.

use std::{collections::HashSet, hash::Hash};

/// A call of one client, with its time on a clock that all clients share.
#[derive(Clone, Debug)]
pub(super) struct Call<O> {
    /// Time before the call.
    pub(super) invoked: u64,
    /// Time after the call; `None` if its outcome is unknown: it may take effect at any later time, or never.
    pub(super) returned: Option<u64>,
    pub(super) op: O,
}

/// No order of the calls explains their results.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// The most calls that any of the tried orders explained.
    pub(super) explained: usize,
    /// The call whose return no such order could come to.
    pub(super) at: usize,
}

/// Searches for an order of the calls that explains each result, in which none is moved before one that ended before it began.
///
/// `step` gives the state after a call, or `None` if the call cannot have had its result in that state.
pub(super) fn linearize<O, S: Clone + Eq + Hash>(
    calls: &[Call<O>],
    begin: S,
    step: impl Fn(&S, &O) -> Option<S>,
) -> Result<(), Stuck> {
    let mut line = Line::new(calls);
    let mut left = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut tried: HashSet<(Done, S)> = HashSet::new();
    let mut done = Done::none(calls.len());
    let mut chosen: Vec<(usize, S)> = Vec::new();
    let mut state = begin;
    let mut stuck = Stuck { explained: 0, at: 0 };
    let mut at = line.first();
    while left > 0 {
        match line.what(at) {
            What::Call(call) => {
                let next = calls.get(call).and_then(|call| step(&state, &call.op));
                let next = next.filter(|next| tried.insert((done.with(call), next.clone())));
                let Some(next) = next else {
                    at = line.next(at);
                    continue;
                };
                chosen.push((call, std::mem::replace(&mut state, next)));
                done.flip(call);
                left -= usize::from(line.has_return(call));
                line.take(call);
                at = line.first();
            }
            what => {
                if let What::Return(call) = what
                    && chosen.len() >= stuck.explained
                {
                    stuck = Stuck { explained: chosen.len(), at: call };
                }
                // A call that is not chosen by now should have been: the last choice was wrong.
                let Some((call, before)) = chosen.pop() else { return Err(stuck) };
                state = before;
                done.flip(call);
                left += usize::from(line.has_return(call));
                line.put_back(call);
                at = line.next(line.of_call(call));
            }
        }
    }
    Ok(())
}

/// The set of calls that were chosen.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Box<[u64]>);

impl Done {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)].into())
    }

    fn flip(&mut self, call: usize) {
        if let Some(word) = self.0.get_mut(call / 64) {
            *word ^= 1 << (call % 64);
        }
    }

    fn with(&self, call: usize) -> Self {
        let mut with = self.clone();
        with.flip(call);
        with
    }
}

#[derive(Clone, Copy)]
enum What {
    Call(usize),
    Return(usize),
    End,
}

/// Calls and returns in the order of time, as a list from which a call and its return can be taken and put back.
struct Line {
    whats: Vec<What>,
    /// For each position the next and the previous one; the last position is before the first and after the last.
    links: Vec<(usize, usize)>,
    /// The position of each call, and of its return.
    positions: Vec<(usize, Option<usize>)>,
}

impl Line {
    fn new<O>(calls: &[Call<O>]) -> Self {
        let mut times: Vec<(u64, What)> = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            times.push((call.invoked, What::Call(number)));
            times.extend(call.returned.map(|returned| (returned, What::Return(number))));
        }
        times.sort_by_key(|(time, _)| *time);
        let mut positions = vec![(0, None); calls.len()];
        for (position, (_, what)) in times.iter().enumerate() {
            match what {
                What::Call(call) => positions.get_mut(*call).into_iter().for_each(|positions| positions.0 = position),
                What::Return(call) => {
                    positions.get_mut(*call).into_iter().for_each(|positions| positions.1 = Some(position));
                }
                What::End => {}
            }
        }
        let count = times.len();
        let links =
            (0..=count).map(|position| ((position + 1) % (count + 1), (position + count) % (count + 1))).collect();
        let whats = times.into_iter().map(|(_, what)| what).chain([What::End]).collect();
        Self { whats, links, positions }
    }

    fn end(&self) -> usize {
        self.whats.len() - 1
    }

    fn link(&self, position: usize) -> (usize, usize) {
        self.links.get(position).copied().unwrap_or_default()
    }

    fn first(&self) -> usize {
        self.next(self.end())
    }

    fn next(&self, position: usize) -> usize {
        self.link(position).0
    }

    fn what(&self, position: usize) -> What {
        self.whats.get(position).copied().unwrap_or(What::End)
    }

    fn position(&self, call: usize) -> (usize, Option<usize>) {
        self.positions.get(call).copied().unwrap_or_default()
    }

    fn of_call(&self, call: usize) -> usize {
        self.position(call).0
    }

    fn has_return(&self, call: usize) -> bool {
        self.position(call).1.is_some()
    }

    fn set(&mut self, before: usize, after: usize) {
        self.links.get_mut(before).into_iter().for_each(|link| link.0 = after);
        self.links.get_mut(after).into_iter().for_each(|link| link.1 = before);
    }

    fn take(&mut self, call: usize) {
        let (at, returned) = self.position(call);
        for position in [Some(at), returned].into_iter().flatten() {
            let (after, before) = self.link(position);
            self.set(before, after);
        }
    }

    /// Undoes `take`; the calls must come back in the reverse order.
    fn put_back(&mut self, call: usize) {
        let (at, returned) = self.position(call);
        for position in [returned, Some(at)].into_iter().flatten() {
            let (after, before) = self.link(position);
            self.links.get_mut(before).into_iter().for_each(|link| link.0 = position);
            self.links.get_mut(after).into_iter().for_each(|link| link.1 = position);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A call on a number: writes it, reads it, or replaces it on the condition that it has a given value.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        Write(u8),
        Read(u8),
        Exchange(u8, u8, bool),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as the checker calls it")]
    fn step(state: &u8, op: &Op) -> Option<u8> {
        match *op {
            Op::Write(new) => Some(new),
            Op::Read(read) => (read == *state).then_some(*state),
            Op::Exchange(from, to, done) => (done == (from == *state)).then_some(if done { to } else { *state }),
        }
    }

    /// Tries every order of every choice of the calls whose outcome is unknown.
    fn by_force(calls: &[Call<Op>], state: u8, done: &mut Vec<usize>) -> bool {
        let open = |number: &usize| !done.contains(number);
        let left: Vec<usize> = (0..calls.len()).filter(open).collect();
        if left.iter().all(|number| calls[*number].returned.is_none()) {
            return true;
        }
        left.iter().any(|&number| {
            let earlier = |other: &usize| calls[*other].returned.is_some_and(|ended| ended < calls[number].invoked);
            if left.iter().any(earlier) {
                return false;
            }
            let Some(next) = step(&state, &calls[number].op) else { return false };
            done.push(number);
            let found = by_force(calls, next, done);
            done.pop();
            found
        })
    }

    fn call(invoked: u64, returned: Option<u64>, op: Op) -> Call<Op> {
        Call { invoked, returned, op }
    }

    #[test]
    fn a_stale_read_is_not_linearizable() {
        let calls = [call(0, Some(1), Op::Write(1)), call(2, Some(3), Op::Write(2)), call(4, Some(5), Op::Read(1))];
        assert_eq!(linearize(&calls, 0, step), Err(Stuck { explained: 2, at: 2 }));
    }

    #[test]
    fn an_unknown_outcome_may_come_late_or_never_but_not_twice() {
        let unknown = call(0, None, Op::Write(1));
        let read = |at, value| call(at, Some(at + 1), Op::Read(value));
        assert!(linearize(&[unknown.clone(), read(2, 0), read(4, 0)], 0, step).is_ok());
        assert!(linearize(&[unknown.clone(), read(2, 0), read(4, 1)], 0, step).is_ok());
        assert!(linearize(&[unknown.clone(), read(2, 1), read(4, 0)], 0, step).is_err());
        let write = call(6, Some(7), Op::Write(0));
        assert!(linearize(&[unknown, read(2, 1), write, read(8, 1)], 0, step).is_err());
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0_u8..3).prop_map(Op::Write),
            (0_u8..3).prop_map(Op::Read),
            (0_u8..3, 0_u8..3, any::<bool>()).prop_map(|(from, to, done)| Op::Exchange(from, to, done)),
        ]
    }

    /// Up to seven calls; each begins after some and ends after some, and one in five has an unknown outcome.
    fn calls() -> impl Strategy<Value = Vec<Call<Op>>> {
        prop::collection::vec((op(), 0_u64..20, 1_u64..12, 0_u8..5), 1..8).prop_map(|made| {
            // All times are distinct.
            let moment = |time: u64, number: usize, end: u64| time * 100 + number as u64 * 2 + end;
            made.into_iter()
                .enumerate()
                .map(|(number, (op, begin, length, known))| {
                    let returned = (known > 0).then(|| moment(begin + length, number, 1));
                    call(moment(begin, number, 0), returned, op)
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn it_agrees_with_trying_every_order(calls in calls()) {
            prop_assert_eq!(linearize(&calls, 0, step).is_ok(), by_force(&calls, 0, &mut Vec::new()));
        }
    }
}
