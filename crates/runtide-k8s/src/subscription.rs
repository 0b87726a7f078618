//! One watch of one namespace, or of all: opened at a version, ended by the server after a time that it was asked for.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Failure, Gap, Result};
use tokio::time::{Instant, Sleep};

use crate::{
    client::Client,
    handover::Namespace,
    lines::{Line, Lines},
    list::{Listed, Selectors, of_namespace, path},
};

pub(crate) const WATCH: &str = "k8s.watch";

/// How often a watch is opened again because the listing before it was too old already.
const ATTEMPTS: usize = 3;
/// First and longest pause between two attempts on a namespace whose right is missing.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An open watch. Dropping it closes its connection.
#[derive(Debug)]
pub(crate) struct Watch {
    lines: Lines,
    opened: Instant,
    asked: Duration,
}

impl Watch {
    pub(crate) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<Line, kube::Error>> {
        self.lines.poll_line(cx)
    }

    pub(crate) fn has_line(&self) -> bool {
        self.lines.has_line()
    }

    /// True if it has ended as it was asked to. One that ended long before is an outage, whose pauses are the driver's (trap K4).
    pub(crate) fn was_whole(&self) -> bool {
        self.opened.elapsed() >= self.asked / 2
    }
}

/// The watch of one namespace, or of all.
pub(crate) struct Scope {
    pub(crate) namespace: Namespace,
    /// The version after the last report.
    pub(crate) version: String,
    /// `true` while changes from before a resumed watch was opened are still on their way.
    pub(crate) is_replaying: bool,
    pub(crate) link: Link,
}

/// The state of a scope's watch.
pub(crate) enum Link {
    Watching(Watch),
    /// The next watch begins where the last one ended.
    Opening(BoxFuture<Result<Watch>>),
    /// The history was lost, or the right was missing: then with the pause that has passed.
    Relisting(Gap, Option<Duration>, BoxFuture<Result<(Listed, Watch)>>),
    /// The right is missing; it is asked for again after a pause.
    Denied {
        until: Pin<Box<Sleep>>,
        pause: Duration,
    },
}

impl Link {
    pub(crate) fn denied(before: Option<Duration>) -> Self {
        let pause = before.map_or(FIRST_PAUSE, |pause| pause.saturating_mul(2).min(LONGEST_PAUSE));
        Self::Denied { until: Box::pin(tokio::time::sleep(pause)), pause }
    }
}

impl Client {
    /// Opens a watch after this version, which the server ends after `window`.
    pub(crate) async fn open_watch(
        &self,
        namespace: &Namespace,
        selectors: &Selectors,
        version: &str,
        window: Duration,
    ) -> Result<Watch> {
        let seconds = window.as_secs().max(1).to_string();
        let query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
            ("resourceVersion", version),
        ];
        let (_, body) = self.stream(WATCH, &path(namespace.as_deref(), selectors, &query)).await?;
        Ok(Watch { lines: Lines::new(body), opened: Instant::now(), asked: window })
    }

    /// Lists, and opens a watch that goes on from the listing: what happens after it is reported (trap K2).
    pub(crate) async fn subscribe(&self, namespace: &Namespace, selectors: &Selectors) -> Result<(Listed, Watch)> {
        for _ in 0..ATTEMPTS {
            let listed = self.list_pods(namespace, selectors).await?;
            match self.open_watch(namespace, selectors, &listed.version, self.config().window()).await {
                Err(error) if error.kind() == ErrorKind::Expired => {}
                Err(error) => return Err(error),
                Ok(watch) => return Ok((listed, watch)),
            }
        }
        let message = "the server's history is shorter than a listing takes";
        Err(self.site(WATCH).error(ErrorKind::Unavailable, message))
    }
}

/// The failure of a namespace whose right is missing, if that is the error.
pub(crate) fn denial(namespace: &Namespace, error: &Error) -> Option<Failure> {
    (namespace.is_some() && error.kind() == ErrorKind::PermissionDenied)
        .then(|| Failure::from(&of_namespace(error, namespace)))
}
