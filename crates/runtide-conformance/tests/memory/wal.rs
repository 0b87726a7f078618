//! W10 with an allocator that counts.

use std::{io::Write, path::Path};

use runtide_conformance::wal::{Audit, Effort, Entries, LogHarness, Meter, OpenLog, RealLog, Salvaged, WalLaw};
use runtide_core::{
    Error, ErrorKind, Result,
    wal::{ReadFrom, WalOptions},
};

use crate::Counted;

/// The log, metered: as it is, or with its dump gathered in memory first, which no count of reads shows.
#[derive(Debug)]
struct Metered {
    gathers: bool,
}

impl LogHarness for Metered {
    fn name(&self) -> &'static str {
        "wal"
    }

    fn open(&self, dir: &Path, options: WalOptions) -> Result<Box<dyn OpenLog>> {
        RealLog.open(dir, options)
    }

    fn reader(&self, dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Entries> {
        RealLog.reader(dir, from, options)
    }

    fn verify(&self, dir: &Path, anchor: Option<&str>, options: &WalOptions) -> Result<Audit> {
        RealLog.verify(dir, anchor, options)
    }

    fn salvage(&self, dir: &Path, out: &Path, options: &WalOptions) -> Result<Salvaged> {
        RealLog.salvage(dir, out, options)
    }

    fn dump(&self, dir: &Path, out: &mut dyn Write, options: &WalOptions) -> Result<()> {
        if self.gathers {
            let mut all = Vec::new();
            RealLog.dump(dir, &mut all, options)?;
            let failed = |error| Error::new(ErrorKind::Unexpected, "dump", "it cannot be written").with_source(error);
            return out.write_all(&all).map_err(failed);
        }
        RealLog.dump(dir, out, options)
    }

    fn meter(&self) -> Option<&dyn Meter> {
        Some(&Counted)
    }
}

#[test]
fn the_log_is_bounded_in_allocated_memory() {
    let _alone = Counted::alone();
    let result = WalLaw::W10.check(&Metered { gathers: false }, Effort::Full);
    assert!(result.is_ok(), "{}", result.err().map(|broken| broken.to_string()).unwrap_or_default());
    let broken = WalLaw::W10.check(&Metered { gathers: true }, Effort::Brief).err();
    assert!(broken.is_some_and(|broken| broken.to_string().contains("dump to take")), "a dump that gathers is found");
}
