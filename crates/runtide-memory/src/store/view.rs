//! Views: the store at one revision, as watchers get it.

use std::sync::{Arc, Mutex};

use runtide_core::store::{Resource, Revision};

use super::lock;

/// The resources of the store at one revision, in the order of their references; shared by all watchers that it is delivered to.
#[derive(Debug)]
pub(super) struct View {
    pub(super) revision: Revision,
    /// Number of the first entry after the view.
    pub(super) next: u64,
    /// `None` once the view was released: a view keeps all its resources in memory, so only the newest are kept.
    rows: Mutex<Option<Vec<Arc<Resource>>>>,
}

impl View {
    pub(super) fn new(revision: Revision, next: u64, rows: Vec<Arc<Resource>>) -> Self {
        Self { revision, next, rows: Mutex::new(Some(rows)) }
    }

    /// Appends at most `most` rows from an index on; `None` if the view was released.
    pub(super) fn rows(&self, from: usize, most: usize, out: &mut Vec<Arc<Resource>>) -> Option<()> {
        let rows = lock(&self.rows);
        out.extend(rows.as_ref()?.iter().skip(from).take(most).cloned());
        Some(())
    }

    /// `true` until the view is released.
    pub(super) fn is_kept(&self) -> bool {
        lock(&self.rows).is_some()
    }

    /// Frees the rows.
    pub(super) fn release(&self) {
        let rows = lock(&self.rows).take();
        drop(rows);
    }
}
