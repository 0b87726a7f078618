//! [`Unreadables`]: the unreadable messages behind a stream's position, which another stream from there brings again.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Messages that are remembered, at most. Each further one is news whenever it comes.
const MOST: usize = 1024;

/// The unreadable messages since the last readable one. They have no position, so that a stream that is opened again at the last one
/// brings them again: as news each would cost another resync, as often as the stream is proven.
#[derive(Debug, Default)]
pub struct Unreadables {
    /// Hashes of those since the position.
    since: Vec<u64>,
    /// Of these, the ones that the present stream has not brought yet.
    expected: Vec<u64>,
}

impl Unreadables {
    /// The stream has come to a readable message: another one begins there.
    pub fn pass(&mut self) {
        self.since.clear();
        self.expected.clear();
    }

    /// Another stream begins at the position.
    pub fn again(&mut self) {
        self.expected.clone_from(&self.since);
    }

    /// `true` if this message is not one that another stream brought before.
    pub fn is_news(&mut self, message: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(at) = self.expected.iter().position(|expected| *expected == hash) {
            self.expected.swap_remove(at);
            return false;
        }
        if self.since.len() < MOST {
            self.since.push(hash);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_news_once_whatever_number_of_streams_bring_it() {
        let mut unreadables = Unreadables::default();
        assert!(unreadables.is_news(b"a") && unreadables.is_news(b"a"), "one stream brings no message twice");
        for _ in 0..3 {
            unreadables.again();
            assert!(!unreadables.is_news(b"a") && !unreadables.is_news(b"a"));
        }
        assert!(unreadables.is_news(b"a"), "a third one");
        unreadables.again();
        assert!(unreadables.is_news(b"b"));
        unreadables.pass();
        unreadables.again();
        assert!(unreadables.is_news(b"a"), "it is behind another message");
    }

    #[test]
    fn no_number_of_messages_takes_more_memory() {
        let mut unreadables = Unreadables::default();
        for n in 0..10 * MOST {
            assert!(unreadables.is_news(&n.to_ne_bytes()));
        }
        assert_eq!(unreadables.since.len(), MOST);
    }
}
