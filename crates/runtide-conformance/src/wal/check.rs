//! The test of a law of the log.

use super::{Effort, LogHarness, WalLaw, WalLawResult, laws};
use crate::{Kept, LawResult, LawSet, Subject, Verdict};

impl WalLaw {
    /// Tests it on logs of this kind, each on a fresh disk. The same call inspects the same cases, except for the work that the
    /// log's own threads do in between; a violation names its case.
    pub fn check(self, log: &dyn LogHarness, effort: Effort) -> WalLawResult {
        crate::__wal_laws! { __law_call [WalLaw, self, log, effort] }
    }
}

impl LawSet for WalLaw {
    const SUITE: &'static str = "wal";
    type Harness = dyn LogHarness;

    fn number_and_name(self) -> (&'static str, &'static str) {
        (self.id(), self.name())
    }

    async fn check(self, log: &Self::Harness) -> LawResult<Self> {
        let looked = self.check(log, Effort::Full)?;
        Ok(Verdict::Kept(Kept { looked: Some(looked), without: Vec::new() }))
    }

    fn subject(log: &Self::Harness) -> Subject<'_, Self> {
        Subject { name: log.name(), is_real: false, version: None, skips: &[] }
    }
}
