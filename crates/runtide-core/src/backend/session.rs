//! [`Session`]: closed or open, and the server that answered last.

use std::sync::{Arc, Mutex};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{call_site::CallSite, lock::lock};
use crate::error::Result;

/// State of one backend's client: closed or open, and the server (`S`: version, boot, capabilities) that answered last.
///
/// The last server outlives an outage, since capabilities are asked for then too; the *current* one is what calls may rely
/// on, and is forgotten as soon as another server may answer.
#[derive(Debug)]
pub struct Session<S> {
    closed: CancellationToken,
    seen: Mutex<Seen<S>>,
}

#[derive(Debug)]
struct Seen<S> {
    last: Option<Arc<S>>,
    is_current: bool,
}

impl<S> Default for Session<S> {
    fn default() -> Self {
        Self { closed: CancellationToken::new(), seen: Mutex::new(Seen { last: None, is_current: false }) }
    }
}

impl<S> Session<S> {
    /// Closes the session; every later call of [`check_open`](Self::check_open) fails. There is no way back.
    pub fn close(&self) {
        self.closed.cancel();
        self.forget();
    }

    /// `true` once [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until it is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// Checks that the call may be made.
    ///
    /// # Errors
    /// `Cancelled` once it was closed.
    pub fn check_open(&self, site: CallSite<'_>) -> Result<()> {
        if self.is_closed() { Err(site.closed()) } else { Ok(()) }
    }

    /// Records the server that answered and returns the one before it, so that the caller can compare the two and notice a
    /// restart or an upgrade.
    pub fn answered(&self, server: Arc<S>) -> Option<Arc<S>> {
        let mut seen = lock(&self.seen);
        // A late answer must not bring a closed session back.
        seen.is_current = !self.is_closed();
        seen.last.replace(server)
    }

    /// The server that calls may rely on; `None` before the first answer and after [`forget`](Self::forget).
    pub fn current_server(&self) -> Option<Arc<S>> {
        let seen = lock(&self.seen);
        seen.last.clone().filter(|_| seen.is_current)
    }

    /// The server that answered last, also while none can be reached.
    pub fn last_server(&self) -> Option<Arc<S>> {
        lock(&self.seen).last.clone()
    }

    /// Forgets the current server: the next call identifies it again.
    pub fn forget(&self) {
        lock(&self.seen).is_current = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, instance::BackendId};

    #[test]
    fn a_closed_session_refuses_every_call() {
        let (id, session) = (BackendId::from("demo"), Session::<u32>::default());
        let site = CallSite::new("demo.list", &id);
        session.check_open(site).unwrap();
        session.close();
        session.close();
        assert_eq!(session.check_open(site).unwrap_err().kind(), ErrorKind::Cancelled);
        session.answered(Arc::new(1));
        assert_eq!((session.current_server(), session.last_server()), (None, Some(Arc::new(1))), "an answer came late");
    }

    #[test]
    fn another_server_is_noticed_and_the_last_one_outlives_an_outage() {
        let session = Session::default();
        assert_eq!((session.last_server(), session.answered(Arc::new(1))), (None, None));
        assert_eq!(session.current_server(), Some(Arc::new(1)));
        session.forget();
        assert_eq!((session.current_server(), session.last_server()), (None, Some(Arc::new(1))));
        assert_eq!(session.answered(Arc::new(2)), Some(Arc::new(1)));
        assert_eq!(session.current_server(), Some(Arc::new(2)));
    }
}
