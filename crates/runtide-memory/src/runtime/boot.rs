//! The identity of a runtime: every id and every token names it, so that those of two runtimes never compare equal.

use std::hash::{BuildHasher, RandomState};

use runtide_core::event::ResumeToken;

/// Name of one boot of the runtime with the state that it counts in. A restart that keeps the state keeps it; a runtime that
/// begins again with nothing has another.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    /// Empty for seed 0.
    name: String,
    /// Number of times that the runtime lost all it had.
    losses: u32,
}

/// A token of any boot.
struct Token<'a> {
    boot: &'a str,
    number: u64,
}

/// Relation of a token to a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The number of a fact of this boot.
    This(u64),
    /// Another boot gave the token.
    Another,
    /// No runtime in memory gave the token.
    Foreign,
}

impl Boot {
    /// Random without a seed: the counters of two processes both begin with 1.
    pub(super) fn new(seed: Option<u64>) -> Self {
        let name = match seed {
            Some(0) => String::new(),
            Some(seed) => seed.to_string(),
            // Its keys come from the system's random source.
            None => format!("{:016x}", RandomState::new().hash_one("boot")),
        };
        Self { name, losses: 0 }
    }

    /// The boot that follows once everything is lost; the same each time for the same seed.
    pub(super) fn after_loss(&self) -> Self {
        Self { losses: self.losses.saturating_add(1), ..self.clone() }
    }

    fn name(&self) -> String {
        match self.losses {
            0 => self.name.clone(),
            losses => format!("{}r{losses}", self.name),
        }
    }

    /// An id: kind, boot and number.
    pub(super) fn id(&self, kind: &str, number: u64) -> String {
        let name = self.name();
        let between = if name.is_empty() { "" } else { "-" };
        format!("{kind}-{name}{between}{number:06}")
    }

    /// Token of the fact with this number.
    pub(super) fn token(&self, number: u64) -> ResumeToken {
        let name = self.name();
        let between = if name.is_empty() { "" } else { "." };
        ResumeToken::from(format!("{name}{between}{number}"))
    }

    pub(super) fn origin(&self, token: &ResumeToken) -> Origin {
        match Token::read(token) {
            None => Origin::Foreign,
            Some(token) if token.boot == self.name() => Origin::This(token.number),
            Some(_) => Origin::Another,
        }
    }
}

impl<'a> Token<'a> {
    fn read(token: &'a ResumeToken) -> Option<Self> {
        let (boot, number) = token.as_str().rsplit_once('.').unwrap_or(("", token.as_str()));
        Some(Self { boot, number: number.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_tokens_of_two_boots_never_compare_equal() {
        let boots = [None, None, Some(0), Some(1), Some(11)].map(Boot::new);
        let lost = boots.clone().map(|boot| boot.after_loss());
        let twice = lost.clone().map(|boot| boot.after_loss());
        let all: Vec<Boot> = boots.into_iter().chain(lost).chain(twice).collect();
        for (n, one) in all.iter().enumerate() {
            assert_eq!(one.origin(&one.token(7)), Origin::This(7));
            assert_eq!(one.origin(&"nonsense".into()), Origin::Foreign);
            assert_eq!(one.origin(&"1795196509.137893753 start 6a00".into()), Origin::Foreign, "a token of Docker's");
            for other in all.iter().skip(n + 1) {
                assert_eq!(one.origin(&other.token(7)), Origin::Another, "{one:?} {other:?}");
                for number in [1, 11, 111] {
                    assert_ne!(one.token(number), other.token(number));
                    assert_ne!(one.id("mem", number), other.id("mem", number));
                }
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_boot_each_time() {
        let ids = |seed| [Boot::new(seed), Boot::new(seed).after_loss()].map(|boot| (boot.id("mem", 1), boot.token(1)));
        assert_eq!(ids(Some(7)), ids(Some(7)));
        assert_eq!(Boot::new(Some(7)).id("mem", 1), "mem-7-000001");
        assert_eq!(Boot::new(Some(0)).id("mem", 1), "mem-000001");
    }
}
