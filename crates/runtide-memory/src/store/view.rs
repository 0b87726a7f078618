//! The store as it was at one revision, taken while writers go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use runtide_core::{
    Result,
    store::{Resource, ResourceRef, Revision, Selector},
};

use super::{
    Inner,
    ahead::{FEW, ask},
    history::{Dropped, Look},
    lock,
    tree::Scope,
};

/// Everything that is there, in order: shared by all watchers that are being shown it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) revision: Revision,
    /// The number of the entry with which it goes on.
    pub(super) next: u64,
    /// `None`: it was taken back, since a view keeps what it shows in memory.
    rows: Mutex<Option<Vec<Arc<Resource>>>>,
}

/// Views that are kept for watchers that have not yet seen all of them.
const VIEWS: usize = 4;

/// As many entries are looked at in one go.
const PART: usize = 512;

/// As many rows a watcher may have for itself alone.
const OWN: usize = 4_096;

impl View {
    fn new(look: Look, rows: Vec<Arc<Resource>>) -> Self {
        Self { revision: look.revision, next: look.next, rows: Mutex::new(Some(rows)) }
    }

    /// Rows from a place on; `None` if the view was taken back.
    pub(super) fn rows(&self, from: usize, most: usize, out: &mut Vec<Arc<Resource>>) -> Option<()> {
        let rows = lock(&self.rows);
        out.extend(rows.as_ref()?.iter().skip(from).take(most).cloned());
        Some(())
    }

    fn take_back(&self) {
        let rows = lock(&self.rows).take();
        drop(rows);
    }
}

/// What one pass over the store gives.
pub(super) struct Pass {
    pub(super) look: Look,
    /// In the order of their references.
    pub(super) rows: Vec<Arc<Resource>>,
    /// Where it was cut; behind it there may be more.
    pub(super) cut: Option<ResourceRef>,
}

impl Inner {
    /// The selected resources as they were at a revision (now, if `None`), behind a reference, about as many as told.
    /// Labels are not looked at.
    pub(super) fn rows(
        &self,
        at: Option<Revision>,
        selector: &Selector,
        behind: Option<&ResourceRef>,
        most: usize,
    ) -> Result<Pass> {
        loop {
            let look = lock(&self.history).look(at)?;
            let (mut rows, cut) = self.collect(selector, behind, most);
            let wanted = |reference: &ResourceRef| {
                selector.names(reference)
                    && behind.is_none_or(|behind| reference > behind)
                    && cut.as_ref().is_none_or(|cut| reference <= cut)
            };
            let before = self.written_since(look, wanted);
            let mut dropped = Dropped::default();
            let replaced = lock(&self.history).looked(look, &mut dropped);
            drop(dropped);
            if replaced {
                continue;
            }
            if !before.is_empty() {
                undo(&mut rows, before);
            }
            return Ok(Pass { look, rows, cut });
        }
    }

    /// What was written since a look began, each as it was before. What comes while this is read is younger than what was
    /// collected, and does not matter.
    fn written_since(
        &self,
        look: Look,
        wanted: impl Fn(&ResourceRef) -> bool,
    ) -> HashMap<ResourceRef, Option<Arc<Resource>>> {
        let (mut before, mut at) = (HashMap::new(), look.next);
        let end = lock(&self.history).next();
        while at < end {
            // A part at a time, so that writers go on.
            let (part, next) = lock(&self.history).part(at, PART, &wanted);
            for (reference, was) in part {
                before.entry(reference).or_insert(was);
            }
            if next == at {
                break;
            }
            at = next;
        }
        before
    }

    /// What is there now; each scope at its own moment.
    fn collect(
        &self,
        selector: &Selector,
        behind: Option<&ResourceRef>,
        most: usize,
    ) -> (Vec<Arc<Resource>>, Option<ResourceRef>) {
        let scopes: Vec<Arc<Scope>> = self.tree().scopes(selector, behind);
        let mut rows: Vec<Arc<Resource>> = Vec::new();
        for scope in scopes {
            let name = behind.filter(|behind| behind.scope() == &*scope.key).map(ResourceRef::name);
            let left = most - rows.len();
            match &selector.name {
                Some(only) if name.is_none_or(|name| name < only.as_str()) => {
                    rows.extend(scope.read().get(only).cloned());
                }
                Some(_) => {}
                None => scope.in_order(|collection| {
                    rows.reserve(left.min(collection.len()));
                    let mut found = collection.behind(name).take(left);
                    let mut few = Vec::with_capacity(FEW);
                    loop {
                        few.extend(found.by_ref().take(FEW));
                        if few.is_empty() {
                            break;
                        }
                        ask(few.iter().copied());
                        rows.extend(few.drain(..).cloned());
                    }
                }),
            }
            if rows.len() >= most {
                let cut = rows.last().map(|last| last.reference.clone());
                return (rows, cut);
            }
        }
        (rows, None)
    }

    /// What a watcher is shown that has lost its place, or has none yet: the store at a revision, or later.
    pub(super) fn view(&self, selector: &Selector, least: Revision) -> Result<Arc<View>> {
        if let (Some(_), Some(_), Some(_)) = (&selector.group, &selector.kind, &selector.namespace) {
            let own = self.rows(None, selector, None, OWN)?;
            if own.cut.is_none() {
                return Ok(Arc::new(View::new(own.look, own.rows)));
            }
        }
        let (known, first) = {
            let mut history = lock(&self.history);
            history.views.retain(|view| view.strong_count() > 0);
            // Kept until the lock is given back: one of them may be the last, with all its rows.
            let known: Vec<_> = history.views.iter().filter_map(std::sync::Weak::upgrade).collect();
            (known, history.first())
        };
        let usable =
            known.iter().filter(|view| view.next >= first && view.revision >= least && lock(&view.rows).is_some());
        if let Some(view) = usable.max_by_key(|view| view.next) {
            return Ok(Arc::clone(view));
        }
        drop(known);
        let all = self.rows(None, &Selector::all(), None, usize::MAX)?;
        let view = Arc::new(View::new(all.look, all.rows));
        let mut history = lock(&self.history);
        history.views.push_back(Arc::downgrade(&view));
        let excess = history.views.len().saturating_sub(VIEWS);
        let old: Vec<_> = history.views.drain(..excess).collect();
        drop(history);
        old.iter().filter_map(std::sync::Weak::upgrade).for_each(|old| old.take_back());
        Ok(view)
    }
}

/// Makes rows that were collected while writers went on what they were before.
fn undo(rows: &mut Vec<Arc<Resource>>, before: HashMap<ResourceRef, Option<Arc<Resource>>>) {
    rows.retain(|row| !before.contains_key(&row.reference));
    rows.extend(before.into_values().flatten());
    rows.sort_by(|one, other| one.reference.cmp(&other.reference));
}
