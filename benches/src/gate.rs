//! [`Gate`]: waits until a number of tasks have finished their part of a round.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// Deadline of a round; longer than any.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Opens once the announced number of parts have passed.
#[derive(Debug, Default)]
pub struct Gate {
    left: AtomicUsize,
    open: Notify,
}

impl Gate {
    /// Announces the next round.
    pub fn arm(&self, parts: usize) {
        self.left.store(parts, Ordering::Release);
    }

    /// Marks one part as done.
    pub fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.open.notify_one();
        }
    }

    /// Waits until all parts are done.
    pub async fn wait(&self) {
        let opened = tokio::time::timeout(TIMEOUT, self.open.notified()).await;
        assert!(opened.is_ok(), "a round did not end: {} parts are missing", self.left.load(Ordering::Acquire));
    }
}
