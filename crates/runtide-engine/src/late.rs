//! Creates whose answer comes late, or never.
//!
//! The daemon enters an object into its tables at the end of a create. An undo that runs before that finds nothing, and the object is
//! there afterwards. So a create is a task of its own, which goes on when its call has given up, and undoes after the answer.

use std::time::Duration;

use runtide_core::{
    Error, ErrorKind, Result, Retry,
    backend::{CreateGuard, saturating_add},
};
use tokio::time::Instant;

use crate::{client::Client, dialect::Dialect, error::is_answer};

/// Longest wait for the answer to a create, also where no caller waits for it any more.
pub const LATEST_ANSWER: Duration = Duration::from_secs(300);

/// Longest absence of a daemon after which it is still looked for what it made before.
const ABSENCE: Duration = Duration::from_secs(600);

/// Pauses before the looks for what a create without an answer made. Each waits for the daemon, if nothing listens at its time.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// The same for work that takes as long as its object is large: not every daemon ends it with its request.
const PAUSES_OF_WORK: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1_800),
    Duration::from_secs(7_200),
];

/// Runs a create to its end, also if this future is dropped. What it made is then dropped: its guard removes it.
///
/// # Errors
/// Those of the create; `Cancelled` where the runtime of its task has ended.
///
/// # Cancel safety
/// Sound; see above.
pub async fn seen_through<D: Dialect, T: Send + 'static>(
    client: &Client<D>,
    operation: &'static str,
    create: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { answer.send(create.await) });
    answered.await.unwrap_or_else(|_| {
        let message = "the runtime of the create's task has ended";
        Err(client.site(operation).error(ErrorKind::Cancelled, message))
    })
}

/// Removes what a failed create made, if it may have made something. If its answer did not come, the daemon may still be at it, or may not
/// be there: a task looks again later. The client is one that [outlives the close](Client::outliving_close).
pub async fn undo<D: Dialect>(
    client: &Client<D>,
    operation: &'static str,
    error: &Error,
    guard: impl Fn() -> CreateGuard + Send + Sync + 'static,
) {
    if is_lost(error) {
        undo_now_and_later(client, operation, &PAUSES, guard).await;
    }
}

/// The same for work that was abandoned, which the daemon may go on with for as long as it takes.
pub(crate) async fn undo_work<D: Dialect>(
    client: &Client<D>,
    operation: &'static str,
    guard: impl Fn() -> CreateGuard + Send + Sync + 'static,
) {
    undo_now_and_later(client, operation, &PAUSES_OF_WORK, guard).await;
}

async fn undo_now_and_later<D: Dialect>(
    client: &Client<D>,
    operation: &'static str,
    pauses: &'static [Duration],
    guard: impl Fn() -> CreateGuard + Send + Sync + 'static,
) {
    guard().undo().await;
    let client = client.clone();
    tokio::spawn(look_again(
        pauses,
        async move || match client.ping(operation).await {
            Err(error) => match error.retry() {
                Retry::Poll(interval) => Some(interval),
                _ => None,
            },
            Ok(()) => None,
        },
        async move || guard().undo().await,
    ));
}

/// A look after each pause; while nothing listens it waits until something does. `is_away` gives the time after which to ask
/// again.
async fn look_again(pauses: &[Duration], is_away: impl AsyncFn() -> Option<Duration>, look: impl AsyncFn()) {
    let until = saturating_add(Instant::now(), ABSENCE);
    for pause in pauses {
        tokio::time::sleep(*pause).await;
        while let Some(interval) = is_away().await
            && Instant::now() < until
        {
            tokio::time::sleep(interval).await;
        }
        look().await;
    }
}

/// `true` if the request may have been carried out, so that its outcome is not known: no answer came, none that can be read, or one of a
/// proxy that got none.
fn is_lost(error: &Error) -> bool {
    if error.fact("status").is_some() {
        return !is_answer(error);
    }
    // No request was sent if nothing listens.
    !matches!(error.retry(), Retry::Poll(_))
        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use runtide_core::backend::lock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_was_away_is_looked_at_as_soon_as_it_listens_again() {
        let begun = Instant::now();
        let looks = async |back: Duration| {
            let looks = Mutex::new(Vec::new());
            let begun = Instant::now();
            let is_away = async || (begun.elapsed() < back).then_some(Duration::from_millis(50));
            look_again(&PAUSES, is_away, async || lock(&looks).push(begun.elapsed().as_secs())).await;
            lock(&looks).clone()
        };
        assert_eq!(looks(Duration::ZERO).await, [1, 6, 36, 156]);
        assert_eq!(looks(Duration::from_secs(200)).await, [200, 205, 235, 355], "one that was away for minutes");
        assert!(begun.elapsed() < Duration::from_secs(900));
        assert_eq!(looks(Duration::MAX).await, [600, 605, 635, 755], "it never comes back");
    }

    #[test]
    fn only_the_daemons_own_answer_says_that_nothing_was_made() {
        let error = |kind| Error::new(kind, "engine.create", "it failed");
        for (status, kind) in [("502", ErrorKind::Unavailable), ("504", ErrorKind::Timeout)] {
            assert!(is_lost(&error(kind).with_context("status", status)), "a proxy's {status}");
        }
        for (status, kind) in
            [("409", ErrorKind::Conflict), ("500", ErrorKind::Unexpected), ("404", ErrorKind::NotFound)]
        {
            assert!(!is_lost(&error(kind).with_context("status", status)), "{status}");
        }
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Protocol] {
            assert!(is_lost(&error(kind)), "{kind}");
        }
        assert!(!is_lost(&error(ErrorKind::InvalidInput)), "it was not sent");
        assert!(!is_lost(&error(ErrorKind::Unavailable).with_retry(Retry::Poll(Duration::from_millis(50)))));
    }
}
