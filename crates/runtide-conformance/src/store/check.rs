//! The test of a law of stores.

use super::{StoreHarness, StoreLaw, StoreLawResult, laws};
use crate::{LawSet, Subject};

impl LawSet for StoreLaw {
    const SUITE: &'static str = "store";
    type Harness = dyn StoreHarness;

    fn number_and_name(self) -> (&'static str, &'static str) {
        (self.id(), self.name())
    }

    async fn check(self, h: &Self::Harness) -> StoreLawResult {
        crate::__store_laws! { __law_call [StoreLaw, self, h] }
    }

    fn subject(h: &Self::Harness) -> Subject<'_, Self> {
        Subject { name: h.name(), is_real: h.is_real(), version: h.version(), skips: h.skips() }
    }

    async fn finish(h: &Self::Harness) {
        h.finish().await;
    }
}
