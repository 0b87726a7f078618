//! Position in a listing: [`Token`], and its text.

use runtide_core::store::PageToken;

/// `etcd1:<revision>:<generation>:<the part of the last key that names a resource>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) revision: u64,
    pub(crate) generation: String,
    pub(crate) last: String,
}

impl Token {
    pub(crate) fn text(&self) -> PageToken {
        PageToken::new(format!("etcd1:{}:{}:{}", self.revision, self.generation, self.last))
    }

    /// `None` if the text is not of this form. The store itself checks that the token is one of its own.
    pub(crate) fn parse(token: &PageToken) -> Option<Self> {
        // The name of a resource may contain colons.
        let mut parts = token.as_str().splitn(4, ':');
        let (Some("etcd1"), Some(revision), Some(generation), Some(last)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let revision = revision.parse().ok().filter(|revision| (1..=i64::MAX.unsigned_abs()).contains(revision))?;
        let is_name = !generation.is_empty() && generation.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then(|| Self { revision, generation: generation.to_owned(), last: last.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_invalid_token_is_refused() {
        for bad in [
            "",
            "etcd1",
            "etcd1:1",
            "etcd1:0:g:x",
            "etcd1:-1:g:x",
            "etcd2:1:g:x",
            "etcd1:9223372036854775808:g:x",
            "etcd1:1::x",
            "etcd1:1:a/b:x",
            "/Node//n1",
        ] {
            assert_eq!(Token::parse(&PageToken::from(bad)), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_token_is_read_back(revision in 1..=i64::MAX.unsigned_abs(), generation in "[0-9a-f]{32}", last in "[a-z/:@]{1,20}") {
            let token = Token { revision, generation, last };
            prop_assert_eq!(Token::parse(&token.text()), Some(token));
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = Token::parse(&PageToken::from(text));
        }
    }
}
