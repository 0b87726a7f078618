//! Reads of the whole store while writers go on: each shows one revision.

use std::{collections::HashMap, sync::Arc};

use runtide_core::{
    Result,
    store::{Resource, ResourceRef, Revision, Selector},
};

use super::{
    Inner,
    ahead::{FEW, ask},
    history::{Dropped, ReadPoint},
    lock,
    tree::Scope,
    view::View,
};

/// Number of views of the whole store that are kept for the watchers that are still reading them.
const VIEWS: usize = 4;

/// Number of entries that are read under the lock at once.
const PART: usize = 512;

/// Largest number of rows of a view that is not shared.
const OWN: usize = 4_096;

/// The result of one read of the store.
pub(super) struct Pass {
    pub(super) point: ReadPoint,
    /// In the order of their references.
    pub(super) rows: Vec<Arc<Resource>>,
    /// The last reference, if the read stopped there and there may be more.
    pub(super) cut: Option<ResourceRef>,
}

impl Inner {
    /// The selected resources at a revision (the newest, if `None`), after a reference, about `most` of them. Labels are not
    /// matched: that is for the caller.
    pub(super) fn rows(
        &self,
        at: Option<Revision>,
        selector: &Selector,
        behind: Option<&ResourceRef>,
        most: usize,
    ) -> Result<Pass> {
        loop {
            let point = lock(&self.history).begin_read(at)?;
            let (mut rows, cut) = self.collect(selector, behind, most);
            let wanted = |reference: &ResourceRef| {
                selector.names(reference)
                    && behind.is_none_or(|behind| reference > behind)
                    && cut.as_ref().is_none_or(|cut| reference <= cut)
            };
            let before = self.written_since(point, wanted);
            let mut dropped = Dropped::default();
            let replaced = lock(&self.history).end_read(point, &mut dropped);
            drop(dropped);
            if replaced {
                continue;
            }
            if !before.is_empty() {
                undo(&mut rows, before);
            }
            return Ok(Pass { point, rows, cut });
        }
    }

    /// The resources that were written since a read began, as they were before. Writes that come while this is read are younger
    /// than the collected rows, and do not matter.
    fn written_since(
        &self,
        point: ReadPoint,
        wanted: impl Fn(&ResourceRef) -> bool,
    ) -> HashMap<ResourceRef, Option<Arc<Resource>>> {
        let (mut before, mut at) = (HashMap::new(), point.next);
        let end = lock(&self.history).next();
        while at < end {
            // The lock is taken for one part at a time, so that writers go on.
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

    /// The present resources; each scope is read at its own moment.
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
                    let text = format!("{}{only}", scope.key);
                    rows.extend(self.index.get(self.index.key(&text)));
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

    /// The view for a watcher that has lost its position, or has none yet: the store at revision `least` or later.
    pub(super) fn view(&self, selector: &Selector, least: Revision) -> Result<Arc<View>> {
        if let (Some(_), Some(_), Some(_)) = (&selector.group, &selector.kind, &selector.namespace) {
            let own = self.rows(None, selector, None, OWN)?;
            if own.cut.is_none() {
                return Ok(Arc::new(View::new(own.point.revision, own.point.next, own.rows)));
            }
        }
        let (known, first) = {
            let mut history = lock(&self.history);
            history.views.retain(|view| view.strong_count() > 0);
            // Dropped only after the lock is released: one of them may be the last reference to a view, with all its rows.
            let known: Vec<_> = history.views.iter().filter_map(std::sync::Weak::upgrade).collect();
            (known, history.first())
        };
        let usable = known.iter().filter(|view| view.next >= first && view.revision >= least && view.is_kept());
        if let Some(view) = usable.max_by_key(|view| view.next) {
            return Ok(Arc::clone(view));
        }
        drop(known);
        let all = self.rows(None, &Selector::all(), None, usize::MAX)?;
        let view = Arc::new(View::new(all.point.revision, all.point.next, all.rows));
        let mut history = lock(&self.history);
        history.views.push_back(Arc::downgrade(&view));
        let excess = history.views.len().saturating_sub(VIEWS);
        let old: Vec<_> = history.views.drain(..excess).collect();
        drop(history);
        old.iter().filter_map(std::sync::Weak::upgrade).for_each(|old| old.release());
        Ok(view)
    }
}

/// Undoes the writes that came while the rows were collected.
fn undo(rows: &mut Vec<Arc<Resource>>, before: HashMap<ResourceRef, Option<Arc<Resource>>>) {
    rows.retain(|row| !before.contains_key(&row.reference));
    rows.extend(before.into_values().flatten());
    rows.sort_by(|one, other| one.reference.cmp(&other.reference));
}
