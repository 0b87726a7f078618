//! The pod or container that a verb is about: looks at it, and waits for what becomes of it.

use std::{
    future::poll_fn,
    time::{Duration, SystemTime},
};

use runtide_core::{Error, ErrorKind, ExitStatus, InstanceId, InstanceState, Result, backend::CallSite};
use tokio::time::Instant;

use crate::{
    client::Client,
    config::Granularity,
    index::Address,
    inspector::{PodInspector, shortened},
    lines::{Line, Lines},
    list::{Selectors, path},
    normalize::{View, container_of, exit_of, time, uid_of},
    wire::{Event, Page, Pod},
};

/// Time for which a server may be away before a call without a deadline ends with the error.
pub(super) const OUTAGE: Duration = Duration::from_secs(120);
/// Pause before the next look, where one did not show what the call waits for, and its watch was over at once (trap K4).
const PAUSE: Duration = Duration::from_millis(500);
/// Grace period of a pod that names none, which the server fills in.
const GRACE: u32 = 30;
/// The annotation of the API's copy of a static pod, with the uid that it has on its node.
const STATIC: &str = "kubernetes.io/config.mirror";

/// The pod or container of one call.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) client: Client,
    pub(super) operation: &'static str,
    pub(super) id: InstanceId,
    pub(super) address: Address,
}

/// The options with which a container's main process was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) has_terminal: bool,
    pub(super) has_input: bool,
    /// True if the input ends with the first that was attached to it.
    pub(super) input_ends: bool,
}

/// A pod on its node.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: String,
    /// The uid by which the node knows the pod: of a static pod, another than the API's.
    pub(super) uid: String,
    pub(super) is_on_host_network: bool,
}

/// A look at it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) state: InstanceState,
    /// The container whose output and exit are the instance's.
    pub(super) container: String,
    pub(super) streams: Streams,
    /// Restarts of that container.
    pub(super) run: u32,
    /// True if that container runs.
    pub(super) is_running: bool,
    /// True if a run of it ever began.
    pub(super) has_begun: bool,
    /// Start of its present run.
    pub(super) started_at: Option<SystemTime>,
    pub(super) place: Place,
    /// Exit of its present run, and of the one before.
    pub(super) exit: Option<ExitStatus>,
    pub(super) previous_exit: Option<ExitStatus>,
    pub(super) is_deleted: bool,
    /// Time that its processes are given when it is deleted.
    pub(super) grace: Duration,
    pub(super) finalizers: Vec<String>,
    pub(super) version: String,
}

impl Seen {
    fn of(client: &Client, pod: &Pod<'_>, id: &InstanceId) -> Option<Self> {
        let all = View::of(client.config()).instances(pod);
        let instance = all.into_iter().find(|one| one.instance.id == *id)?.instance;
        let name = id.as_str().split_once('/').map(|(_, name)| name);
        let (container, status) = container_of(pod, name)?;
        let ended = |status: &crate::wire::ContainerStatus<'_>| {
            let last = status.last_state.terminated.as_ref();
            let present = status.state.terminated.as_ref();
            // Of a container that waits for its next run, the present one is the last.
            match (present, status.state.running.is_some()) {
                (Some(present), _) => (exit_of(present), last.and_then(exit_of)),
                (None, true) => (None, last.and_then(exit_of)),
                (None, false) => (last.and_then(exit_of), None),
            }
        };
        let (exit, previous_exit) = status.map_or((None, None), ended);
        let is_running = status.is_some_and(|status| status.state.running.is_some());
        Some(Self {
            state: instance.state,
            container: container.name.to_string(),
            streams: Streams {
                has_terminal: container.tty == Some(true),
                has_input: container.stdin == Some(true),
                input_ends: container.stdin_once == Some(true),
            },
            run: status.map_or(0, |status| status.restart_count),
            is_running,
            has_begun: is_running
                || status.is_some_and(|one| one.state.terminated.is_some() || one.last_state.terminated.is_some()),
            started_at: status
                .and_then(|status| status.state.running.as_ref())
                .and_then(|running| time(running.started_at.as_deref())),
            place: Place {
                node: pod.spec.node_name.as_deref().unwrap_or_default().to_owned(),
                uid: pod.metadata.annotations.get(STATIC).unwrap_or(&pod.metadata.uid).to_string(),
                is_on_host_network: pod.spec.host_network == Some(true),
            },
            exit,
            previous_exit,
            is_deleted: pod.metadata.deletion_timestamp.is_some(),
            grace: Duration::from_secs(pod.spec.termination_grace_period_seconds.unwrap_or(GRACE).into()),
            finalizers: pod.metadata.finalizers.iter().map(ToString::to_string).collect(),
            version: pod.metadata.resource_version.as_deref().unwrap_or_default().to_owned(),
        })
    }

    /// True if its run is over, and no process of it is left.
    pub(super) fn has_ended(&self) -> bool {
        self.state.is_ended() && !self.is_running
    }

    /// True if it has ended, and is not started again.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended() && self.state != InstanceState::Restarting
    }
}

impl Subject {
    /// Finds it. An id that was not seen yet takes a listing, since the API knows pods by their names alone.
    ///
    /// # Errors
    /// `NotFound` only if a complete listing shows it nowhere.
    pub(super) async fn find(client: &Client, operation: &'static str, id: &InstanceId) -> Result<Self> {
        client.check_open(operation)?;
        let uid = uid_of(id.as_str());
        let is_of_pod = client.config().granularity == Granularity::Pod;
        let known = client.index().get(uid).filter(|_| uid.len() == id.as_str().len() || !is_of_pod);
        let address = if let Some(address) = known {
            address
        } else {
            let found = PodInspector::new(client.clone()).inspect_one(id).await;
            found.map_err(|error| error.with_context("operation", operation))?;
            client.index().get(uid).ok_or_else(|| Self::absent(client.site(operation), id))?
        };
        Ok(Self { client: client.clone(), operation, id: id.clone(), address })
    }

    pub(super) fn site(&self) -> CallSite<'_> {
        self.client.site(self.operation)
    }

    fn absent(site: CallSite<'_>, id: &InstanceId) -> Error {
        site.error(ErrorKind::NotFound, "there is no such pod or container").with_context("instance", shortened(id))
    }

    /// `NotFound` for this instance.
    pub(super) fn is_gone(&self) -> Error {
        Self::absent(self.site(), &self.id)
    }

    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.site().error(kind, message).with_context("instance", &self.id)
    }

    /// Path of the pod.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", path(Some(&self.address.namespace), &Selectors::default(), &[]), self.address.name)
    }

    /// Path of a listing, or of a watch, of this pod alone: under the selectors of the configuration, so that a pod which ceased to
    /// match them is gone here too.
    fn alone(&self, query: &[(&str, &str)]) -> String {
        let fields = format!("metadata.name={}", self.address.name);
        path(Some(&self.address.namespace), &Selectors::of(&self.client).and(None, Some(fields)), query)
    }

    fn read(&self, text: &str) -> Result<Option<Seen>> {
        let pod: Pod<'_> = serde_json::from_str(text).map_err(|error| self.site().undecodable(error))?;
        // A name may come back as another pod (trap K19).
        let is_it = pod.metadata.uid == uid_of(self.id.as_str());
        Ok(if is_it { Seen::of(&self.client, &pod, &self.id) } else { None })
    }

    /// One look, and the version that it is of; `None`: it is gone.
    async fn look_at(&self) -> Result<(Option<Seen>, String)> {
        let (_, body) = self.client.get(self.operation, &self.alone(&[])).await?;
        let page: Page<'_> = serde_json::from_slice(&body).map_err(|error| self.site().undecodable(error))?;
        let seen = match page.items.first() {
            Some(item) => self.read(item.get())?,
            None => None,
        };
        Ok((seen, page.metadata.resource_version.as_deref().unwrap_or_default().to_owned()))
    }

    /// One look; `None`: it is gone.
    pub(super) async fn look(&self) -> Result<Option<Seen>> {
        Ok(self.look_at().await?.0)
    }

    /// Waits until a look, or a report after it, answers. It has no deadline; a server that is away is asked again, for two minutes.
    pub(super) async fn until<T>(&self, mut answer: impl FnMut(Option<&Seen>) -> Option<T>) -> Result<T> {
        let mut away: Option<Instant> = None;
        loop {
            let outcome = match self.look_at().await {
                Ok((seen, version)) => match answer(seen.as_ref()) {
                    Some(answer) => return Ok(answer),
                    None => self.reports(&version, &mut answer).await,
                },
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => away = None,
                Err(error) if !is_outage(&error) || away.is_some_and(|since| since.elapsed() > OUTAGE) => {
                    return Err(error);
                }
                Err(_) => away = away.or_else(|| Some(Instant::now())),
            }
            self.pause().await?;
        }
    }

    /// Waits before the next look.
    pub(super) async fn pause(&self) -> Result<()> {
        let pause = async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        };
        self.client.until_closed(self.operation, pause).await
    }

    /// Reads reports until one answers; `None`: the watch is over.
    async fn reports<T>(
        &self,
        version: &str,
        answer: &mut impl FnMut(Option<&Seen>) -> Option<T>,
    ) -> Result<Option<T>> {
        let config = self.client.config();
        let window = config.window().as_secs().to_string();
        let query = [("watch", "1"), ("resourceVersion", version), ("timeoutSeconds", &window)];
        let (_, body) = match self.client.stream(self.operation, &self.alone(&query)).await {
            // Another look has a version that the server still has.
            Err(error) if error.kind() == ErrorKind::Expired => return Ok(None),
            opened => opened?,
        };
        let mut lines = Lines::new(body);
        loop {
            let next = tokio::time::timeout(config.max_silence, poll_fn(|cx| lines.poll_line(cx)));
            let next = self.client.until_closed(self.operation, async { Ok(next.await) }).await?;
            let Ok(Ok(Line::Whole(line))) = next else { return Ok(None) };
            let Ok(event) = serde_json::from_slice::<Event<'_>>(&line) else { return Ok(None) };
            let gone = match &*event.kind {
                "ADDED" | "MODIFIED" => false,
                "DELETED" => true,
                "BOOKMARK" => continue,
                _ => return Ok(None),
            };
            let Ok(seen) = self.read(event.object.get()) else { return Ok(None) };
            // A report about another pod of this name says that this one is gone, and so does the last one, which may have its end.
            let answered = match (answer(seen.as_ref()), gone) {
                (None, true) => answer(None),
                (answered, _) => answered,
            };
            if answered.is_some() {
                return Ok(answered);
            }
        }
    }
}

/// True for a server that may answer later.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited)
}
