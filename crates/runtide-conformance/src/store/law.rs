//! The laws of stores by name, and how one is tested.

use super::{StoreHarness, laws};
use crate::{Violation, law::named_laws, wal::Looked};

/// What testing a law of stores gives.
pub type StoreLawResult = Result<StoreVerdict, Violation<StoreLaw>>;

/// The law was not broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreVerdict {
    /// It held, as far as the harness could drive the store there.
    Kept(Kept),
    /// The harness cannot produce what the law is about. A failure unless the harness lists it among its skips.
    NotApplicable(String),
}

/// What was looked at without finding a law broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// How much of what.
    pub looked: Looked,
    /// Parts that this store does not have, each with its reason.
    pub without: Vec<String>,
}

impl Kept {
    pub(crate) fn at(count: u64, what: &'static str, without: Vec<String>) -> StoreVerdict {
        StoreVerdict::Kept(Self { looked: Looked::at(count, what), without })
    }
}

macro_rules! laws {
    ($($law:ident $name:literal $check:path, $text:literal;)*) => {
        named_laws! {
            /// What a store promises. Each is a test, guards against a trap, and has a mutant that breaks it.
            StoreLaw { $($law $name $text;)* }
        }

        impl StoreLaw {
            /// Tests it on a fresh harness. It wants tokio's time, and tasks that run beside it.
            pub async fn check(self, h: &dyn StoreHarness) -> StoreLawResult {
                match self { $( Self::$law => Box::pin($check(h)).await, )* }
            }
        }
    };
}

laws! {
    S1 "read your write" laws::write::s1_read_your_write, "get after apply gives what was applied, in the format asked";
}
