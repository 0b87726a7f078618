//! Waits until a rollout is complete, by a watch of the object.

use std::{future::poll_fn, time::Duration};

use runtide_core::{Error, ErrorKind, Result, Retry, backend::instant_after};
use tokio::time::Instant;

use super::{
    decode,
    kind::WorkloadRef,
    object::Object,
    obstacle,
    workload::{Rollout, Workload},
};
use crate::{
    client::Client,
    lines::{Line, Lines},
    manager::is_outage,
    wire::{Event, Page},
};

const WAIT: &str = "k8s.workloads.wait";

/// Pause before the next look, where one did not show what the call waits for, and its watch was over at once (trap K4).
const PAUSE: Duration = Duration::from_millis(500);
/// Time for which a server that has answered may refuse: one that was started again does not know its users' rights at once.
const REFUSING: Duration = Duration::from_secs(30);
/// Time for finding out why it took too long.
const REASONS: Duration = Duration::from_secs(5);

pub(super) async fn wait(client: &Client, reference: &WorkloadRef, limit: Duration) -> Result<Workload> {
    client.check_open(WAIT)?;
    reference.check(client.site(WAIT))?;
    let mut waiting = Waiting { client, reference, last: None, outage: None };
    let outcome = tokio::time::timeout_at(instant_after(limit), waiting.follow()).await;
    match outcome {
        Ok(Ok(Answer::Complete(workload))) => Ok(workload),
        Ok(Ok(Answer::Failed(reason, message))) => Err(waiting.stuck(Some(&reason), message).await),
        Ok(Err(error)) => Err(error.with_context("workload", reference)),
        Err(_) => {
            let missing = waiting.missing();
            let message = format!("it is not rolled out within {limit:?}: {missing}");
            Err(waiting.stuck(None, message).await)
        }
    }
}

/// End of a wait.
enum Answer {
    Complete(Workload),
    /// The cluster gave it up: its word and text.
    Failed(String, String),
}

/// A wait that is under way.
struct Waiting<'a> {
    client: &'a Client,
    reference: &'a WorkloadRef,
    /// The last object that was seen.
    last: Option<Object>,
    /// The failure since which the server has not answered.
    outage: Option<Error>,
}

impl Waiting<'_> {
    /// Follows the object until a look, or a report after it, answers.
    async fn follow(&mut self) -> Result<Answer> {
        let mut refused: Option<Instant> = None;
        loop {
            let outcome = match self.look().await {
                Ok((answer @ Some(_), _)) => Ok(answer),
                Ok((None, version)) => {
                    (refused, self.outage) = (None, None);
                    self.reports(&version).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) => {
                    let is_refusal = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unauthenticated);
                    let since = *refused.get_or_insert_with(Instant::now);
                    let may_pass = is_refusal && self.last.is_some() && since.elapsed() < REFUSING;
                    if !is_outage(&error) && !may_pass {
                        return Err(error);
                    }
                    if !is_refusal {
                        refused = None;
                    }
                    self.outage = Some(error);
                }
            }
            let asked = self.outage.as_ref().and_then(|error| match error.retry() {
                Retry::After(pause) => Some(pause),
                _ => None,
            });
            let pause = async {
                tokio::time::sleep(asked.unwrap_or(PAUSE).max(PAUSE)).await;
                Ok(())
            };
            self.client.until_closed(WAIT, pause).await?;
        }
    }

    /// One look; without an answer, the version that it is of.
    async fn look(&mut self) -> Result<(Option<Answer>, String)> {
        let (_, body) = self.client.get(WAIT, &self.reference.alone(&[])).await?;
        let page: Page<'_> =
            serde_json::from_slice(&body).map_err(|error| self.client.site(WAIT).undecodable(error))?;
        let Some(item) = page.items.first() else { return Err(self.is_gone()) };
        let answer = self.take(decode(self.client, WAIT, item.get().as_bytes())?)?;
        Ok((answer, page.metadata.resource_version.as_deref().unwrap_or_default().to_owned()))
    }

    /// Reads reports until one answers; `None`: the watch is over.
    async fn reports(&mut self, version: &str) -> Result<Option<Answer>> {
        let config = self.client.config();
        let window = config.window().as_secs().to_string();
        let query = [("watch", "1"), ("resourceVersion", version), ("timeoutSeconds", window.as_str())];
        let (_, body) = match self.client.stream(WAIT, &self.reference.alone(&query)).await {
            // Another look has a version that the server still has.
            Err(error) if error.kind() == ErrorKind::Expired => return Ok(None),
            opened => opened?,
        };
        let mut lines = Lines::new(body);
        loop {
            let next = tokio::time::timeout(config.max_silence, poll_fn(|cx| lines.poll_line(cx)));
            let next = self.client.until_closed(WAIT, async { Ok(next.await) }).await?;
            let Ok(Ok(Line::Whole(line))) = next else { return Ok(None) };
            let Ok(event) = serde_json::from_slice::<Event<'_>>(&line) else { return Ok(None) };
            match &*event.kind {
                "ADDED" | "MODIFIED" => {}
                "DELETED" => return Err(self.is_gone()),
                "BOOKMARK" => continue,
                _ => return Ok(None),
            }
            let Ok(object) = decode(self.client, WAIT, event.object.get().as_bytes()) else { return Ok(None) };
            if let answer @ Some(_) = self.take(object)? {
                return Ok(answer);
            }
        }
    }

    /// Takes an object in; `None`: its rollout is under way.
    fn take(&mut self, object: Object) -> Result<Option<Answer>> {
        if self.last.as_ref().is_some_and(|last| last.metadata.uid != object.metadata.uid) {
            return Err(self.is_gone());
        }
        let workload = Workload::of(self.reference.kind, &object);
        self.last = Some(object);
        match workload.rollout {
            Rollout::Complete => Ok(Some(Answer::Complete(workload))),
            Rollout::Progressing(_) => Ok(None),
            Rollout::Failed { reason, message } => Ok(Some(Answer::Failed(reason, message))),
            Rollout::Manual => {
                let reason = "its strategy is OnDelete: the cluster replaces no pod by itself";
                let error = self.client.site(WAIT).error(ErrorKind::Unsupported, reason);
                Err(error.with_context("feature", WAIT).with_context("reason", reason))
            }
        }
    }

    fn is_gone(&self) -> Error {
        let message = match &self.last {
            None => "there is no such workload",
            Some(_) => "it was removed while its rollout was waited for",
        };
        self.client.site(WAIT).error(ErrorKind::NotFound, message)
    }

    /// The part of the rollout that is missing.
    fn missing(&self) -> String {
        let last = self.last.as_ref().map(|object| Workload::of(self.reference.kind, object).rollout);
        match last {
            Some(Rollout::Progressing(missing)) => missing,
            _ => "the server did not show it".to_owned(),
        }
    }

    /// The error of a rollout that does not go on, or not fast enough, with the cluster's reasons.
    async fn stuck(self, reason: Option<&str>, message: String) -> Error {
        let obstacles = async {
            match &self.last {
                Some(object) => obstacle::of(self.client, WAIT, self.reference, object).await,
                None => Vec::new(),
            }
        };
        let obstacles = tokio::time::timeout(REASONS, obstacles).await.unwrap_or_default();
        let mut error =
            self.client.site(WAIT).error(ErrorKind::Timeout, message).with_context("workload", self.reference);
        if let Some(reason) = reason.or_else(|| obstacles.first().map(|first| first.reason.as_str())) {
            error = error.with_context("reason", reason);
        }
        if let Some(text) = obstacle::named(&obstacles) {
            error = error.with_context("obstacles", text);
        }
        match self.outage {
            Some(outage) => error.with_source(outage),
            None => error,
        }
    }
}
