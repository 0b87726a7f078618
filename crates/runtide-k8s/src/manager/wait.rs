//! Waits for the end of a run.

use runtide_core::{ErrorKind, ExitStatus, Result};

use super::subject::Subject;

/// The end of the run that is under way, or that was the last; `None`: it is over, and the server does not report how.
pub(super) async fn wait(subject: &Subject) -> Result<Option<ExitStatus>> {
    let Some(first) = subject.look().await? else { return Err(subject.is_gone()) };
    if first.has_ended() {
        return Ok(first.exit);
    }
    if !first.has_begun {
        return Err(subject.error(ErrorKind::Conflict, format!("it never ran, and is {}", first.state)));
    }
    end_of(subject, first.run).await
}

/// The end of this run, whose number of restarts it is.
pub(super) async fn end_of(subject: &Subject, run: u32) -> Result<Option<ExitStatus>> {
    let ended = subject.until(|seen| match seen {
        None => Some(Err(subject.is_gone())),
        Some(seen) if seen.run == run => seen.has_ended().then_some(Ok(seen.exit)),
        // The exits of runs in between are not kept.
        Some(seen) => Some(Ok(if seen.run == run.saturating_add(1) { seen.previous_exit } else { None })),
    });
    ended.await?
}
