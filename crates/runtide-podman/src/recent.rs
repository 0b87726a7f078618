//! [`Recent`]: the messages that a stream has passed.
//!
//! Podman 4.5 and later go on in a new file of events, and mean to leave out what it has of the old one; but they leave it out only up to
//! the mark of an older rotation, if the new file has that as well, and repeat what comes after it.

use std::collections::{HashSet, VecDeque};

use runtide_core::event::ResumeToken;

/// Messages kept at most: more than the half of Podman's own file of 1 MB, a message of which has 300 bytes and more.
const MOST: usize = 8 * 1024;

/// The last messages of a stream.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    order: VecDeque<ResumeToken>,
    passed: HashSet<ResumeToken>,
}

impl Recent {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The stream has brought this message before.
    pub(crate) fn contains(&self, token: &ResumeToken) -> bool {
        self.passed.contains(token)
    }

    /// The stream has come to this message; `None`: to one without a token.
    pub(crate) fn insert(&mut self, token: Option<&ResumeToken>) {
        let Some(token) = token else { return };
        if !self.passed.insert(token.clone()) {
            return;
        }
        self.order.push_back(token.clone());
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.passed.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_repeats_is_known_within_a_bound() {
        let token = |n: usize| ResumeToken::from(format!("1.{n:09} start a1").as_str());
        let mut recent = Recent::default();
        for n in 0..=MOST {
            assert!(!recent.contains(&token(n)), "{n}");
            recent.insert(Some(&token(n)));
            recent.insert(Some(&token(n)));
        }
        assert!(recent.contains(&token(MOST)) && recent.contains(&token(1)));
        assert!(!recent.contains(&token(0)), "the oldest goes first");
        assert_eq!((recent.order.len(), recent.passed.len()), (MOST, MOST));
    }
}
