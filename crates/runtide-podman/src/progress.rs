//! [`Progress`]: how far the stream has come, so that no listing is compared with it too early.
//!
//! Podman looks into its file of events four times a second, so that a listing is ahead of the stream. A change is in the log before
//! any listing shows it: once the stream has come to the message that was the last one after the listing, it has reported all that the
//! listing shows.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use runtide_core::{backend::lock, event::ResumeToken};
use tokio::sync::Notify;

/// The position of one backend's stream, which the source writes and listings read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: Option<ResumeToken>,
    /// Listings under way.
    followers: usize,
    /// Messages since the first of them began.
    passed: HashSet<ResumeToken>,
}

impl Progress {
    /// The stream has come to this message; `None`: it begins without one.
    pub(crate) fn reach(&self, token: Option<&ResumeToken>) {
        let mut state = lock(&self.0.state);
        if state.last.as_ref() == token {
            return;
        }
        if state.followers > 0 {
            state.passed.extend(token.cloned());
            self.0.moved.notify_waiters();
        }
        state.last = token.cloned();
    }

    /// Follows the stream from here.
    pub(crate) fn follow(&self) -> Follower {
        let mut state = lock(&self.0.state);
        state.followers += 1;
        let from = state.last.clone();
        state.passed.extend(from.clone());
        Follower { progress: self.clone(), from }
    }
}

/// A listing that follows the stream.
#[derive(Debug)]
pub(crate) struct Follower {
    progress: Progress,
    from: Option<ResumeToken>,
}

impl Follower {
    /// The message that the stream had come to when this began.
    pub(crate) fn from(&self) -> Option<&ResumeToken> {
        self.from.as_ref()
    }

    /// Returns once the stream has come to this message.
    ///
    /// # Cancel safety
    /// A dropped future changes nothing.
    pub(crate) async fn passed(&self, token: &ResumeToken) {
        let shared = &self.progress.0;
        loop {
            let moved = shared.moved.notified();
            if lock(&shared.state).passed.contains(token) {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.progress.0.state);
        state.followers -= 1;
        if state.followers == 0 {
            state.passed = HashSet::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn has_passed(follower: &Follower, token: &ResumeToken) -> bool {
        tokio::time::timeout(Duration::from_secs(1), follower.passed(token)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_waits_for_the_message_that_it_may_show_and_for_no_older_one() {
        let [one, two, three] = ["1", "2", "3"].map(ResumeToken::from);
        let progress = Progress::default();
        progress.reach(Some(&one));
        let follower = progress.follow();
        assert_eq!(follower.from(), Some(&one));
        assert!(has_passed(&follower, &one).await);
        assert!(!has_passed(&follower, &two).await);
        let (passed, ()) = tokio::join!(has_passed(&follower, &two), async {
            progress.reach(Some(&two));
            progress.reach(Some(&three));
        });
        assert!(passed, "the stream is past it already");
        drop(follower);
        assert!(has_passed(&progress.follow(), &three).await);
        assert!(!has_passed(&progress.follow(), &two).await, "nothing is kept while no listing is under way");
    }
}
