//! [`CreateGuard`]: removes a created object when its call fails or is dropped.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use tokio::runtime::Handle;

use super::call_site::CallSite;
use crate::error::{Error, Result};

type Undo = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// Guard of an object that was created, or may have been, by a call that has not succeeded yet.
///
/// # Behavior
/// * [`settle`](Self::settle) with a failure removes it before the failure is returned.
/// * A guard that is dropped (with its call: the caller gave up, or a deadline passed) removes the object in a task of the
///   tokio runtime in which the guard was made; also if it is dropped in the middle of `settle`, so a removal must be safe to
///   begin twice.
/// * A removal has a deadline. If it fails, takes too long, or has no runtime to run in, a warning with backend, operation
///   and name is logged: the object then stays for the caller to remove.
#[must_use = "dropping the guard removes what was created"]
pub struct CreateGuard {
    undo: Option<Undo>,
    leftover: Leftover,
    deadline: Duration,
    /// `None`: the guard was made outside a tokio runtime.
    runtime: Option<Handle>,
}

impl CreateGuard {
    /// Guards the object that is created under this name. Make it before the request is sent: a request without an answer may
    /// have been carried out.
    pub fn new<F>(
        site: CallSite<'_>,
        name: impl fmt::Display,
        deadline: Duration,
        undo: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            undo: Some(Box::new(move || Box::pin(undo()))),
            leftover: Leftover::new(site.operation(), site.owner().to_owned(), name.to_string()),
            deadline,
            runtime: Handle::try_current().ok(),
        }
    }

    /// Keeps the object: the call succeeded.
    pub fn keep(mut self) {
        self.undo = None;
    }

    /// Keeps the object if the rest of the call succeeded, removes it if not. A removal that fails is logged, and the call's own
    /// error is returned.
    ///
    /// # Cancel safety
    /// A future dropped during the removal begins it again in a task.
    pub async fn settle<T>(self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(_) => self.keep(),
            Err(_) => self.undo().await,
        }
        outcome
    }

    /// Removes the object now. A removal that fails is logged.
    ///
    /// # Cancel safety
    /// A future dropped during the removal begins it again in a task.
    pub async fn undo(mut self) {
        if let Some(undo) = &self.undo {
            self.leftover.removed(tokio::time::timeout(self.deadline, undo()).await);
        }
        // After the await: dropped inside it, the guard still has its removal.
        self.undo = None;
    }
}

impl Drop for CreateGuard {
    fn drop(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        let mut leftover = self.leftover.clone();
        let Some(runtime) = &self.runtime else { return leftover.warn("there is no tokio runtime to remove it") };
        let deadline = self.deadline;
        leftover.is_pending = true;
        runtime.spawn(async move {
            let removed = tokio::time::timeout(deadline, undo()).await;
            leftover.removed(removed);
        });
    }
}

impl fmt::Debug for CreateGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateGuard").field("name", &self.leftover.name).finish_non_exhaustive()
    }
}

/// Names in the warning for an object that stays behind if its removal fails.
#[derive(Clone, Debug)]
struct Leftover {
    operation: &'static str,
    owner: String,
    name: String,
    /// A task carries the removal out; if it is dropped before its end, the tokio runtime ended.
    is_pending: bool,
}

impl Leftover {
    fn new(operation: &'static str, owner: String, name: String) -> Self {
        Self { operation, owner, name, is_pending: false }
    }

    fn removed(&mut self, removed: std::result::Result<Result<()>, tokio::time::error::Elapsed>) {
        self.is_pending = false;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.warn(&Error::to_string(&error)),
            Err(_) => self.warn("the removal took too long"),
        }
    }

    fn warn(&self, reason: &str) {
        let Self { operation, owner, name, .. } = self;
        tracing::warn!(backend = owner, operation, instance = name, reason, "created in part, and not removed");
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if self.is_pending {
            self.warn("the tokio runtime ended first");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;
    use crate::{error::ErrorKind, instance::BackendId};

    /// Counts removals that ended; each waits for a permit.
    #[derive(Clone, Default)]
    struct Removals {
        permit: Arc<Notify>,
        ended: Arc<AtomicUsize>,
        end: Arc<Notify>,
    }

    impl Removals {
        fn guard(&self) -> CreateGuard {
            let (id, this) = (BackendId::from("demo"), self.clone());
            let site = CallSite::new("demo.create", &id);
            CreateGuard::new(site, "web", Duration::from_secs(5), move || {
                let this = this.clone();
                async move {
                    this.permit.notified().await;
                    this.ended.fetch_add(1, Ordering::SeqCst);
                    this.end.notify_one();
                    Ok(())
                }
            })
        }

        fn count(&self) -> usize {
            self.ended.load(Ordering::SeqCst)
        }
    }

    fn failure() -> Error {
        Error::new(ErrorKind::Conflict, "demo.create", "it went wrong")
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_object_is_not_removed() {
        let removals = Removals::default();
        removals.permit.notify_one();
        removals.guard().keep();
        assert_eq!(removals.guard().settle(Ok(1)).await.unwrap(), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(removals.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_removes_before_it_is_returned() {
        let removals = Removals::default();
        removals.permit.notify_one();
        let error = removals.guard().settle::<()>(Err(failure())).await.unwrap_err();
        assert_eq!((error.message(), removals.count()), ("it went wrong", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_that_is_dropped_removes_in_a_task() {
        let removals = Removals::default();
        drop(removals.guard());
        removals.permit.notify_one();
        removals.end.notified().await;
        assert_eq!(removals.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_is_dropped_half_way_is_begun_again() {
        let removals = Removals::default();
        let settled = tokio::time::timeout(Duration::from_secs(1), removals.guard().settle::<()>(Err(failure()))).await;
        assert!(settled.is_err(), "no permit yet");
        removals.permit.notify_one();
        removals.end.notified().await;
        assert_eq!(removals.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_hangs_does_not_hold_the_call() {
        let error = Removals::default().guard().settle::<()>(Err(failure())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_guard_is_dropped_on_any_thread_and_after_its_runtime() {
        let (removals, runtime) = (Removals::default(), tokio::runtime::Runtime::new().unwrap());
        let (first, second) = runtime.block_on(async { (removals.guard(), removals.guard()) });
        drop(first);
        removals.permit.notify_one();
        runtime.block_on(removals.end.notified());
        drop(runtime);
        drop(second);
        drop(removals.guard());
        assert_eq!(removals.count(), 1);
    }
}
