//! Writing to the log from a task: on a thread that may block, so that a future that is dropped leaves nothing half done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use crate::{Error, ErrorKind, Result};

/// The tokio runtime that this task runs on.
pub(crate) fn handle(operation: &'static str) -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Unexpected, operation, "a journal is used inside a tokio runtime").with_source(error)
    })
}

/// Does the work to its end, also when nobody waits for it any more.
pub(crate) async fn carry<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = handle(operation)?.spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, operation, "the tokio runtime is shutting down")))
}

/// Nobody panics while holding a lock, and if somebody did, what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
