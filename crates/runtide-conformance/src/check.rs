//! The test of a law of runtimes.

use crate::{Harness, Law, LawResult, LawSet, Subject, laws};

impl LawSet for Law {
    const SUITE: &'static str = "runtime";
    const ALONE: bool = true;
    type Harness = dyn Harness;

    fn number_and_name(self) -> (&'static str, &'static str) {
        (self.id(), self.name())
    }

    async fn check(self, h: &Self::Harness) -> LawResult {
        h.begin(self);
        crate::__runtime_laws! { __law_call [Law, self, h] }
    }

    fn subject(h: &Self::Harness) -> Subject<'_, Self> {
        Subject { name: h.name(), is_real: h.is_real(), version: h.version(), skips: h.skips() }
    }

    async fn finish(h: &Self::Harness) {
        h.finish().await;
    }
}
