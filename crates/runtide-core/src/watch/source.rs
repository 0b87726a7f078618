//! The interface that a backend implements: [`Source`] and [`Inspector`] translate. Reconnecting, backing off, comparing,
//! queueing and resyncing are the driver's.

use std::{sync::Arc, time::Duration, time::SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    completeness::Completeness,
    error::{Failure, Result},
    event::{Gap, ResumeToken},
    instance::{ExitStatus, Incarnation, Instance, InstanceId, InstanceState},
    options::Detail,
};

/// The stream half of a runtime: its reports.
///
/// The driver makes a source when the first watch opens, drives it from one task, and drops it with the last watch;
/// dropping it closes its connection. `open` is called again, on the same value, after every end of the stream.
///
/// The driver reads `next_batch` all the time, also during a listing, so that a runtime which drops slow readers never meets
/// one. A source needs neither its own task nor a queue.
///
/// # Order
/// `learn` if there are rows, `open`, then `next_batch` until it ends, while the driver lists and inspects through [`Inspector`]. Subscribing comes first
/// and listing second: changes in between are then in the stream.
#[async_trait]
pub trait Source: Send + 'static {
    /// Takes in the consumer's rows at the token that the watch resumes from; called at most once, before the first `open`.
    ///
    /// A runtime's messages may leave open what its earlier ones said: a new process has not seen those, but its rows hold what
    /// followed from them. They may be outdated in everything that can change. The default ignores them.
    fn learn(&mut self, known: &[Arc<Instance>]) {
        let _ = known;
    }

    /// Subscribes; when it returns, nothing that happens from now on is missed by `next_batch`.
    ///
    /// # Behavior
    /// * Drops an earlier subscription.
    /// * With `resume`, returns `Resumed` only with proof that nothing after that token is missing; the events after it are
    ///   then reported again, and end with [`SignalBody::CaughtUp`]. Without proof it returns `Fresh` with the reason.
    /// * Ends within a deadline.
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened>;

    /// The next reports of the runtime.
    ///
    /// # Behavior
    /// * Appends at least one signal, and as many as are at hand (at most a few hundred): one hand-over for all of them.
    /// * Waits as long as it takes; silence is the driver's to judge.
    /// * `Flow::Closed`: the runtime ended the stream cleanly, which is routine. What was appended before still counts.
    /// * A message that cannot be read is a `Hint` if it names an instance, else `Lost(Gap::Undecodable)`; never an `Err`.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the driver drops it whenever other work is due.
    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow>;

    /// The request half.
    fn inspector(&self) -> Arc<dyn Inspector>;

    /// The longest silence that a healthy link can show, `Alive` included; past it the driver calls the link dead and opens
    /// again. `None`: silence proves nothing.
    fn max_silence(&self) -> Option<Duration>;

    /// True if the stream itself reports every lifecycle change, as `Edge`, `State` or `Gone`.
    ///
    /// If so, an answer that disagrees with the reports so far is taken for one that ran ahead of the stream: the driver gives
    /// the stream a moment to report the change, and then opens the stream again. If not, answers count at once.
    fn reports_edges(&self) -> bool;
}

/// The request half of a runtime: listings and inspections. It runs concurrently with the stream. A listing that waits for the stream
/// to report what it shows does so for a bounded time: a silent stream reports nothing.
#[async_trait]
pub trait Inspector: Send + Sync + 'static {
    /// Lists every instance.
    ///
    /// # Behavior
    /// * An item that cannot be decoded makes it `Partial`, not an `Err`, and hides no other.
    /// * `Complete` only if every page was read, every item decoded, and the permissions are as they were before.
    async fn list(&self, detail: Detail) -> Result<Listing>;

    /// These instances, many in one request if the runtime supports it: one answer per id, and `Unknown` for an id that failed.
    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>>;
}

/// State of the stream after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There may be more.
    Open,
    /// The runtime ended the stream cleanly.
    Closed,
}

/// Beginning of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing after the token is missing.
    Resumed,
    /// Events may be missing, for this reason.
    Fresh(Gap),
}

/// A report of the runtime, before the driver has checked it.
#[derive(Clone, Debug)]
pub struct Signal {
    /// The report itself.
    pub body: SignalBody,
    /// Token to resume after this signal; for an edge, the identity of the fact as well.
    pub token: Option<ResumeToken>,
    /// The runtime's clock: information, never order.
    pub at: Option<SystemTime>,
}

impl Signal {
    /// A signal without token and time.
    pub fn new(body: SignalBody) -> Self {
        Self { body, token: None, at: None }
    }

    /// With the runtime's token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Option<ResumeToken>>) -> Self {
        self.token = token.into();
        self
    }

    /// With the runtime's time.
    #[must_use]
    pub fn with_at(mut self, at: impl Into<Option<SystemTime>>) -> Self {
        self.at = at.into();
        self
    }
}

/// From certain (`State`, `Gone`) through claimed (`Edge`) to suspected (`Hint`). A message that the source does not know
/// is a hint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SignalBody {
    /// The instance as it is now; fields that it leaves open (`None`) stay as they were known.
    State(Arc<Instance>),
    /// The instance is gone.
    Gone(InstanceId),
    /// The instance changed in this way.
    Edge(Edge),
    /// The instance may have changed: inspect it.
    Hint(InstanceId),
    /// A listing that the source made itself.
    Full(Listing),
    /// The link is healthy, and nothing happened.
    Alive,
    /// Reports were missed: list everything.
    Lost(Gap),
    /// The replay of a `Resumed` subscription ends here.
    CaughtUp,
}

/// A lifecycle change that the runtime claims.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Id of the instance.
    pub id: InstanceId,
    /// Incarnation, if the message names it.
    pub incarnation: Option<Incarnation>,
    /// State after the change.
    pub state: InstanceState,
    /// Exit of the run that ended, if the message has it.
    pub exit: Option<ExitStatus>,
    /// The instance as the message alone describes it, for one that is gone before it can be inspected. Used only if the
    /// driver does not know the instance; without it, the driver depends on an inspection.
    pub described: Option<Arc<Instance>>,
}

/// Answer of an inspection of one instance. `Unknown` changes nothing.
#[derive(Clone, Debug)]
pub enum Inspection {
    /// The instance exists, as described.
    Present(Arc<Instance>),
    /// The runtime reported that the instance does not exist.
    Absent(InstanceId),
    /// The inspection failed.
    Unknown {
        /// Id of the instance.
        id: InstanceId,
        /// Cause of the failure.
        cause: Failure,
    },
}

impl Inspection {
    /// Id of the instance.
    pub fn id(&self) -> &InstanceId {
        match self {
            Self::Present(instance) => &instance.id,
            Self::Absent(id) | Self::Unknown { id, .. } => id,
        }
    }
}

/// Answer of a listing. Absence means removal only if it is `Complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listing {
    /// The instances, each id once.
    pub instances: Vec<Arc<Instance>>,
    /// Completeness of the list.
    pub completeness: Completeness,
}

impl Listing {
    /// A complete listing.
    pub fn complete(instances: Vec<Arc<Instance>>) -> Self {
        Self { instances, completeness: Completeness::Complete }
    }

    /// A listing that is complete if nothing failed.
    pub fn new(instances: Vec<Arc<Instance>>, failures: Vec<Failure>) -> Self {
        let completeness = if failures.is_empty() { Completeness::Complete } else { Completeness::Partial(failures) };
        Self { instances, completeness }
    }

    /// `true` if an instance's absence from it means its removal.
    pub fn is_complete(&self) -> bool {
        self.completeness.is_complete()
    }
}
