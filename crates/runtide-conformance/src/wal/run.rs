//! Runs one law of the log: time, report. What `wal_suite!` expands to.

use std::time::Instant;

use super::{Effort, LogHarness, Looked, WalLaw};
use crate::report::{Line, Outcome};

/// Tests a law, reports it, and panics with what was found if it is broken; what was looked at.
///
/// # Panics
/// If the law is broken, or the report cannot be written.
#[expect(clippy::panic, clippy::print_stdout, reason = "a test prints and panics")]
pub fn test(law: WalLaw, log: &dyn LogHarness) -> Looked {
    let begun = Instant::now();
    let looked = law.check(log, Effort::Full);
    let outcome = if looked.is_ok() { Outcome::Passed } else { Outcome::Failed };
    let reason = looked.as_ref().err().map(ToString::to_string);
    let line = Line::of_log(log.name(), law, outcome, reason, begun.elapsed());
    if let Err(error) = line.append() {
        panic!("the report cannot be written: {error}");
    }
    match looked {
        Ok(looked) => {
            println!("{law} on {}: {looked}", log.name());
            looked
        }
        Err(violation) => panic!("{violation}"),
    }
}
