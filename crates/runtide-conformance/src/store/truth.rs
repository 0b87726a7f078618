//! The oracle: the history of a store according to its writers, and the check that a reader or a watcher saw a part of just that.

use std::{collections::BTreeMap, fmt, sync::Arc};

use runtide_core::{
    Gap,
    store::{Document, Resource, ResourceRef, Revision, Selector, Since, StoreEvent, StoreWatchOptions},
};

/// All resources at one revision.
pub(super) type State = BTreeMap<ResourceRef, Arc<Resource>>;

/// The effect of a write.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) reference: ResourceRef,
    /// `None` if the resource was removed.
    pub(super) document: Option<Document>,
}

impl Change {
    pub(super) fn new(revision: Revision, reference: ResourceRef, document: Option<Document>) -> Self {
        Self { revision, reference, document }
    }

    fn resource(&self) -> Option<Arc<Resource>> {
        let document = self.document.clone()?;
        Some(Arc::new(Resource::new(self.reference.clone(), document, self.revision)))
    }
}

#[derive(Clone, Debug)]
enum Fact {
    Change(Change),
    /// A restore, with all resources after it.
    Restored(State),
}

/// The whole history, from an empty store on, in the order of the revisions.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    facts: Vec<(Revision, Fact)>,
}

/// The reason why something cannot have been seen.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) found: String,
    /// Index of the event, if it was one.
    pub(super) at: Option<usize>,
}

fn mismatch(expected: impl Into<String>, found: impl fmt::Display) -> Mismatch {
    Mismatch { expected: expected.into(), found: found.to_string(), at: None }
}

/// The part of the history that a watcher saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Number of changes that it got one by one.
    pub(super) changes: u64,
    /// Reason and revision of each reset; the first one counts.
    pub(super) resets: Vec<(Gap, Revision)>,
    /// The revision up to which it knew everything.
    pub(super) position: Revision,
}

impl Truth {
    /// The history with these acknowledged writes, in any order.
    pub(super) fn of(changes: impl IntoIterator<Item = Change>) -> Result<Self, Mismatch> {
        let mut truth = Self::default();
        truth.add(changes)?;
        Ok(truth)
    }

    /// Adds more acknowledged writes.
    pub(super) fn add(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), Mismatch> {
        self.facts.extend(changes.into_iter().map(|change| (change.revision, Fact::Change(change))));
        self.sort()
    }

    /// Adds a restore, with the state after it.
    pub(super) fn restore(&mut self, revision: Revision, state: State) -> Result<(), Mismatch> {
        self.facts.push((revision, Fact::Restored(state)));
        self.sort()
    }

    fn sort(&mut self) -> Result<(), Mismatch> {
        self.facts.sort_by_key(|(revision, _)| *revision);
        let twice = self.facts.windows(2).find(|pair| matches!(pair, [(one, _), (other, _)] if one == other));
        match twice {
            Some([(revision, one), (_, other)]) => {
                Err(mismatch("each write to have its own revision", format!("{revision}: {one:?} and {other:?}")))
            }
            _ => Ok(()),
        }
    }

    /// The last revision.
    pub(super) fn revision(&self) -> Revision {
        self.facts.last().map_or(Revision(0), |(revision, _)| *revision)
    }

    /// The state at a revision.
    pub(super) fn at(&self, revision: Revision) -> State {
        let mut walk = Walk::new(self);
        walk.to(revision);
        walk.state
    }

    /// The last moment between two revisions at which the state was just this, and the history until then. A resource that was
    /// made and removed again leaves the same state as if it had never been, so there may be more than one such moment.
    pub(super) fn up_to(&self, least: Revision, most: Revision, there: &State) -> Option<(Revision, Self)> {
        let mut walk = Walk::new(self);
        walk.to(least);
        let mut found = None;
        let mut moment = least;
        loop {
            if walk.state == *there {
                found = Some((moment, self.facts.len() - walk.rest.len()));
            }
            match walk.peek() {
                Some((next, _)) if *next <= most => moment = walk.step()?.0,
                _ => break,
            }
        }
        let (moment, until) = found?;
        Some((moment, Self { facts: self.facts.get(..until)?.to_vec() }))
    }

    /// Checks that a listing shows the state at a revision.
    pub(super) fn listed(
        &self,
        selector: &Selector,
        revision: Revision,
        items: &[Arc<Resource>],
    ) -> Result<(), Mismatch> {
        same(&self.at(revision), selector, None, items).map_err(|mut broken| {
            broken.expected = format!("the listing at revision {revision} to have {}", broken.expected);
            broken
        })
    }

    /// Checks that these are the events that a watcher had to get, up to the position where it stopped.
    pub(super) fn explain(
        &self,
        selector: &Selector,
        options: &StoreWatchOptions,
        counted: bool,
        events: &[StoreEvent],
    ) -> Result<Seen, Mismatch> {
        let mut watch = Watched {
            walk: Walk::new(self),
            position: None,
            selector,
            options,
            counted,
            seen: Seen::default(),
            block: None,
        };
        if let Since::After(revision) = options.since {
            watch.walk.to(revision);
            watch.position = Some(revision);
        }
        for (at, event) in events.iter().enumerate() {
            watch.event(event).map_err(|broken| Mismatch { at: Some(at), ..broken })?;
        }
        watch.seen.position = watch.position.unwrap_or_default();
        Ok(watch.seen)
    }
}

/// Checks that the items are exactly the selected resources.
fn same(
    state: &State,
    selector: &Selector,
    options: Option<&StoreWatchOptions>,
    items: &[Arc<Resource>],
) -> Result<(), Mismatch> {
    let format = options.and_then(|options| options.format);
    let mut expected: BTreeMap<_, _> =
        state.iter().filter(|(_, one)| selector.matches(one)).map(|(name, one)| (name, one.shown(format))).collect();
    for item in items {
        match expected.remove(&item.reference) {
            Some(one) if one == *item => {}
            Some(one) => return Err(mismatch(shown(&one), shown(item))),
            None => return Err(mismatch("no such resource, or only once", shown(item))),
        }
    }
    match expected.into_values().next() {
        Some(missing) => Err(mismatch(shown(&missing), "nothing")),
        None => Ok(()),
    }
}

fn shown(resource: &Resource) -> String {
    super::laws::describe(Some(resource))
}

/// A walk through the history.
struct Walk<'t> {
    rest: std::slice::Iter<'t, (Revision, Fact)>,
    state: State,
}

/// The next thing that a watcher has to get.
enum Next {
    Event(StoreEvent),
    Restored(Revision),
}

impl<'t> Walk<'t> {
    fn new(truth: &'t Truth) -> Self {
        Self { rest: truth.facts.iter(), state: State::new() }
    }

    fn peek(&self) -> Option<&'t (Revision, Fact)> {
        self.rest.as_slice().first()
    }

    /// Takes one step. Returns its revision, the resource that was there before, and the fact.
    fn step(&mut self) -> Option<(Revision, Option<Arc<Resource>>, &'t Fact)> {
        let (revision, fact) = self.rest.next()?;
        let before = match fact {
            Fact::Change(change) => match change.resource() {
                Some(resource) => self.state.insert(change.reference.clone(), resource),
                None => self.state.remove(&change.reference),
            },
            Fact::Restored(state) => {
                self.state.clone_from(state);
                None
            }
        };
        Some((*revision, before, fact))
    }

    /// Advances to a revision. Returns the number of facts passed, and `true` if a restore was among them.
    fn to(&mut self, revision: Revision) -> (u64, bool) {
        let (mut passed, mut restored) = (0, false);
        while self.peek().is_some_and(|(at, _)| *at <= revision) {
            restored |= matches!(self.step(), Some((_, _, Fact::Restored(_))));
            passed += 1;
        }
        (passed, restored)
    }

    /// Advances to the next event that a watcher has to get, if there is one up to a revision.
    fn next(&mut self, up_to: Revision, selector: &Selector, options: &StoreWatchOptions) -> Option<Next> {
        while self.peek().is_some_and(|(at, _)| *at <= up_to) {
            let (revision, before, fact) = self.step()?;
            let Fact::Change(change) = fact else {
                return Some(Next::Restored(revision));
            };
            let before = before.filter(|before| selector.matches(before));
            let after = change.resource().filter(|after| selector.matches(after));
            let after = after.map(|after| after.shown(options.format));
            let event = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => StoreEvent::Added(after),
                (Some(_), Some(after)) => StoreEvent::Modified(after),
                (Some(_), None) => {
                    StoreEvent::Deleted { reference: change.reference.clone(), revision: change.revision }
                }
            };
            return Some(Next::Event(event));
        }
        None
    }
}

/// A watcher's events, one after the other.
struct Watched<'a> {
    walk: Walk<'a>,
    /// The position up to which the watcher knows everything; `None` before the first event of a watch that does not give one.
    position: Option<Revision>,
    selector: &'a Selector,
    options: &'a StoreWatchOptions,
    counted: bool,
    seen: Seen,
    /// Inside a reset: its revision, and the resources received so far.
    block: Option<(Revision, Vec<Arc<Resource>>)>,
}

impl Watched<'_> {
    fn event(&mut self, event: &StoreEvent) -> Result<(), Mismatch> {
        match event {
            StoreEvent::Reset { gap, revision } => self.reset(*gap, *revision),
            StoreEvent::Bookmark { revision } => self.bookmark(*revision),
            event if self.block.is_some() => self.in_block(event),
            event => self.change(event),
        }
    }

    fn reset(&mut self, gap: Gap, revision: Revision) -> Result<(), Mismatch> {
        if let Some(position) = self.position.filter(|position| *position > revision) {
            return Err(mismatch(format!("a reset at {position} or later"), revision));
        }
        let begins = self.position.is_none() && self.options.since == Since::Start;
        if begins != (gap == Gap::Initial) {
            return Err(mismatch("a reset with `Initial` where the watch begins and nowhere else", format!("{gap:?}")));
        }
        let known = self.position.is_some();
        let (passed, restored) = self.walk.to(revision);
        let counts = self.counted && known && !restored && *self.selector == Selector::all();
        match gap {
            Gap::Lagged { dropped } if counts && dropped != passed => {
                return Err(mismatch(format!("{passed} changes to be left out"), format!("{gap:?}")));
            }
            Gap::Restored if known && !restored => {
                return Err(mismatch("`Restored` where there was a restore", format!("{gap:?} as of {revision}")));
            }
            _ => {}
        }
        self.position = Some(revision);
        self.block = Some((revision, Vec::new()));
        self.seen.resets.push((gap, revision));
        Ok(())
    }

    fn bookmark(&mut self, revision: Revision) -> Result<(), Mismatch> {
        if let Some((begun, items)) = self.block.take() {
            if begun != revision {
                return Err(mismatch(format!("a reset as of {begun} to be closed by its bookmark"), revision));
            }
            return same(&self.walk.state, self.selector, Some(self.options), &items).map_err(|mut broken| {
                broken.expected = format!("a reset as of {begun} to have {}", broken.expected);
                broken
            });
        }
        let Some(position) = self.position else {
            if self.options.since == Since::Start {
                return Err(mismatch("the state that is there, first of all", format!("a bookmark of {revision}")));
            }
            self.walk.to(revision);
            self.position = Some(revision);
            return Ok(());
        };
        if revision < position {
            return Err(mismatch(format!("no bookmark before {position}"), revision));
        }
        match self.walk.next(revision, self.selector, self.options) {
            Some(Next::Event(missing)) => Err(mismatch(line(&missing), format!("a bookmark of {revision}"))),
            Some(Next::Restored(at)) => {
                Err(mismatch(format!("a reset as of {at}"), format!("a bookmark of {revision}")))
            }
            None => {
                self.position = Some(revision);
                Ok(())
            }
        }
    }

    fn in_block(&mut self, event: &StoreEvent) -> Result<(), Mismatch> {
        let (StoreEvent::Added(resource), Some((_, items))) = (event, &mut self.block) else {
            return Err(mismatch("nothing but `Added` up to a reset's bookmark", line(event)));
        };
        items.push(Arc::clone(resource));
        Ok(())
    }

    fn change(&mut self, event: &StoreEvent) -> Result<(), Mismatch> {
        if self.position.is_none() {
            let first = if self.options.since == Since::Start { "the state" } else { "a bookmark" };
            return Err(mismatch(format!("{first} first of all"), line(event)));
        }
        match self.walk.next(Revision(u64::MAX), self.selector, self.options) {
            Some(Next::Event(expected)) if expected == *event => {
                self.position = Some(event.revision());
                self.seen.changes += 1;
                Ok(())
            }
            Some(Next::Event(expected)) => Err(mismatch(line(&expected), line(event))),
            Some(Next::Restored(revision)) => Err(mismatch(format!("a reset as of {revision}"), line(event))),
            None => Err(mismatch("nothing more", line(event))),
        }
    }
}

/// An event on one line.
pub(super) fn line(event: &StoreEvent) -> String {
    match event {
        StoreEvent::Added(resource) => format!("added {}", shown(resource)),
        StoreEvent::Modified(resource) => format!("modified {}", shown(resource)),
        StoreEvent::Deleted { reference, revision } => format!("deleted {reference} at revision {revision}"),
        StoreEvent::Reset { gap, revision } => format!("reset as of {revision}: {gap:?}"),
        StoreEvent::Bookmark { revision } => format!("bookmark of {revision}"),
        other => format!("{other:?}"),
    }
}
