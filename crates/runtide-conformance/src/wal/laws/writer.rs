//! W5: one writer.

use std::path::Path;

use runtide_core::ErrorKind;

use super::{DIR, Tried, options};
use crate::wal::{Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// A second writer is refused while there is one, and disturbs nothing. The lock goes with the writer, when it closes and
/// when the power goes. Between processes it is the disk's lock; core's own tests show it there.
pub(crate) fn w5_one_writer(log: &dyn LogHarness, _: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W5, log };
    let disk = ModelDisk::new();
    let mut next = 1;
    for _ in 0..3 {
        let log = tried.open(&disk)?;
        tried.append(&*log, next)?;
        let before = disk.files();
        let second = tried.log.open(Path::new(DIR), options(&disk)).err();
        let refused = second.as_ref().is_some_and(|error| error.kind() == ErrorKind::Conflict);
        tried.ensure(refused, "a second writer to be refused as Conflict", format!("{second:?}"))?;
        tried.ensure(before == disk.files(), "the refused writer to change nothing", "it did")?;
        tried.append(&*log, next + 1)?;
        next = tried.in_order(&tried.all(&*log)?, 1)?;
        // After a power cut the lock is free.
        drop(tried.open(&disk.crash())?);
        tried.works("close the log", log.close())?;
    }
    tried.ensure(next == 7, "the first writer's records", next - 1)?;
    Ok(Looked::at(3, "refused writers"))
}
