//! Reports of the server ([`Source`]): a watch for each namespace, in one stream. No reconnecting, no diffing, no queue: those are the
//! driver's.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use runtide_core::{
    Error, ErrorKind, Gap, Instance, InstanceId, Result,
    event::ResumeToken,
    watch::{Flow, Inspector, Opened, Signal, SignalBody, Source},
};
use tokio::time::Instant;

use crate::{
    client::Client,
    handover::Namespace,
    inspector::PodInspector,
    lines::Line,
    list::{Listed, Selectors, listing, namespaces},
    normalize::View,
    runs::Runs,
    status::Status,
    subscription::{BoxFuture, Link, Scope, WATCH, Watch, denial},
    token::{Cluster, Position},
    wire::{Event, Named, Pod},
};

/// Signals of one batch, roughly.
const BATCH: usize = 256;
/// Length of the first watch after a resumption. The server sends a bookmark two seconds before the end of each: from there on what was
/// missed is here.
const REPLAY: Duration = Duration::from_secs(3);

/// Pause before the question after the cluster is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Longest time for which a server that does not say of which cluster it is is asked again, and the first and the longest pause in between.
const STARTS: Duration = Duration::from_secs(5);
const STARTS_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct PodSource {
    client: Client,
    view: View,
    selectors: Selectors,
    scopes: Vec<Scope>,
    cluster: Option<Cluster>,
    /// The question after the cluster, where no answer names it.
    naming: Option<BoxFuture<Cluster>>,
    runs: Runs,
    /// The error that comes after the signals before it.
    failed: Option<Error>,
    is_replaying: bool,
    /// A subscription that has not reported its position yet.
    is_new: bool,
}

/// Result of one step of a scope.
enum Step {
    /// Something was done, and there may be more.
    Done,
    Waiting,
    Closed,
}

impl PodSource {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            view: View::of(client.config()),
            selectors: Selectors::of(&client),
            client,
            scopes: Vec::new(),
            cluster: None,
            naming: None,
            runs: Runs::default(),
            failed: None,
            is_replaying: false,
            is_new: false,
        }
    }

    /// Goes on after the position. `Err` with the gap: it cannot be proven that nothing is missing.
    async fn resume(&mut self, position: Position) -> Result<std::result::Result<(), Gap>> {
        let names = namespaces(&self.client);
        let key = |namespace: &Namespace| namespace.as_deref().unwrap_or_default().to_owned();
        let is_ours = position.selectors == self.selectors.identity()
            && position.versions.len() == names.len()
            && names.iter().all(|namespace| position.versions.contains_key(&key(namespace)));
        if !is_ours {
            return Ok(Err(Gap::ForeignCursor));
        }
        if matches!(&position.cluster, Cluster::Address(address) if *address != self.client.endpoint()) {
            return Ok(Err(Gap::ForeignCursor));
        }
        if !self.is_same(&position.cluster, names.first().unwrap_or(&None)).await? {
            return Ok(Err(Gap::RuntimeRestarted));
        }
        let window = REPLAY.min(self.client.config().window());
        let opening = names.iter().map(async |namespace| {
            let version = position.versions.get(&key(namespace)).cloned().unwrap_or_default();
            let watch = self.client.open_watch(namespace, &self.selectors, &version, window).await?;
            Ok::<_, Error>((version, watch))
        });
        let mut scopes = Vec::with_capacity(names.len());
        for (namespace, opened) in names.iter().zip(join_all(opening).await) {
            match opened {
                Ok((version, watch)) => {
                    let link = Link::Watching(watch);
                    scopes.push(Scope { namespace: namespace.clone(), version, is_replaying: true, link });
                }
                Err(error) if error.kind() == ErrorKind::Expired => return Ok(Err(Gap::HistoryExpired)),
                // One of several namespaces: the others go on, from a listing.
                Err(error) if denial(namespace, &error).is_some() && names.len() > 1 => {
                    return Ok(Err(Gap::Disconnected));
                }
                Err(error) => return Err(error),
            }
        }
        self.scopes = scopes;
        self.cluster = Some(position.cluster);
        self.is_replaying = true;
        Ok(Ok(()))
    }

    /// Asks the server if it is of this cluster. A server that has started just now may not say: it has yet to read the rights of its users,
    /// and by which object it schedules their requests.
    async fn is_same(&mut self, cluster: &Cluster, namespace: &Namespace) -> Result<bool> {
        let end = Instant::now() + STARTS.min(self.client.config().deadline / 2);
        let mut pause = STARTS_PAUSE;
        loop {
            let known = match cluster {
                Cluster::Address(_) => return Ok(true),
                Cluster::Namespace(uid) => match cluster_of(&self.client).await? {
                    Cluster::Namespace(now) => Some(now == *uid),
                    _ => None,
                },
                Cluster::FlowSchema(uid) => {
                    self.client.flow_schema(namespace, &self.selectors).await?.map(|now| now == *uid)
                }
            };
            match known {
                Some(is_same) => return Ok(is_same),
                None if Instant::now() >= end => return Ok(false),
                None => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE); // it may as well be one that denies for good
                }
            }
        }
    }

    /// Lists, and goes on from there.
    async fn begin(&mut self) -> Result<()> {
        let names = namespaces(&self.client);
        let subscribing = names.iter().map(|namespace| self.client.subscribe(namespace, &self.selectors));
        let (mut seen, mut failures, mut refused) = (Vec::new(), Vec::new(), None);
        let answers = join_all(subscribing).await;
        for (namespace, answer) in names.iter().zip(answers) {
            let (version, link) = match answer {
                Ok((listed, watch)) => {
                    self.runs.listed(&listed.seen);
                    if let Some(uid) = listed.flow_schema {
                        self.cluster = Some(Cluster::FlowSchema(uid));
                    }
                    seen.extend(listed.seen);
                    failures.extend(listed.failures);
                    (listed.version, Link::Watching(watch))
                }
                Err(error) => {
                    let Some(failure) = denial(namespace, &error).filter(|_| names.len() > 1) else {
                        return Err(error);
                    };
                    self.client.handover().set_denied(namespace, Some(failure.clone()));
                    failures.push(failure);
                    refused = Some(error);
                    (String::new(), Link::denied(None))
                }
            };
            self.scopes.push(Scope { namespace: namespace.clone(), version, is_replaying: false, link });
        }
        if let Some(error) = refused
            && self.scopes.iter().all(|scope| matches!(scope.link, Link::Denied { .. }))
        {
            return Err(error);
        }
        self.client.handover().put(Some(listing(seen, failures)));
        self.is_new = true;
        Ok(())
    }

    fn drop_subscription(&mut self) {
        self.scopes.clear();
        self.naming = None;
        self.failed = None;
        self.is_replaying = false;
        self.is_new = false;
        self.client.handover().put(None);
        for namespace in namespaces(&self.client) {
            self.client.handover().set_denied(&namespace, None);
        }
    }

    /// The present position; `None` while the cluster is not known, or a namespace is not watched.
    fn token(&self) -> Option<ResumeToken> {
        let mut versions = std::collections::BTreeMap::new();
        for scope in &self.scopes {
            if matches!(scope.link, Link::Denied { .. } | Link::Relisting(..)) {
                return None;
            }
            versions.insert(scope.namespace.as_deref().unwrap_or_default().to_owned(), scope.version.clone());
        }
        Position { cluster: self.cluster.clone()?, selectors: self.selectors.identity(), versions }.to_token()
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Poll<Result<Flow>> {
        if let Some(error) = self.failed.take() {
            self.scopes.clear();
            return Poll::Ready(Err(error));
        }
        if self.scopes.is_empty() {
            return Poll::Ready(Ok(Flow::Closed));
        }
        self.poll_naming(cx, out);
        loop {
            let mut is_waiting = true;
            for index in 0..self.scopes.len() {
                match self.step(index, cx, out) {
                    Ok(Step::Done) => is_waiting = false,
                    Ok(Step::Waiting) => {}
                    Ok(Step::Closed) => {
                        self.scopes.clear();
                        return Poll::Ready(Ok(Flow::Closed));
                    }
                    Err(error) if out.is_empty() => {
                        self.scopes.clear();
                        return Poll::Ready(Err(error));
                    }
                    Err(error) => {
                        self.failed = Some(error);
                        return Poll::Ready(Ok(Flow::Open));
                    }
                }
                if out.len() >= BATCH {
                    return Poll::Ready(Ok(Flow::Open));
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(Flow::Open));
            }
            if is_waiting {
                return Poll::Pending;
            }
        }
    }

    /// Asks what the cluster is, where its answers do not say it: after the first listing, which needs no more requests than its pages.
    fn poll_naming(&mut self, cx: &mut Context<'_>, out: &mut Vec<Signal>) {
        if self.cluster.is_some() {
            // A stream that stays quiet has a position all the same.
            if std::mem::take(&mut self.is_new) {
                out.push(Signal::new(SignalBody::Alive).with_token(self.token()));
            }
            return;
        }
        let client = &self.client;
        let naming = self.naming.get_or_insert_with(|| {
            let client = client.clone();
            Box::pin(async move {
                client.handover().taken().await;
                loop {
                    if let Ok(cluster) = cluster_of(&client).await {
                        return cluster;
                    }
                    // Without an answer there are no positions, and the watch goes on.
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            })
        });
        if let Poll::Ready(cluster) = naming.as_mut().poll(cx) {
            self.naming = None;
            self.cluster = Some(cluster);
            out.push(Signal::new(SignalBody::Alive).with_token(self.token()));
        }
    }

    /// Takes one scope one step further.
    fn step(&mut self, index: usize, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Result<Step> {
        let Some(scope) = self.scopes.get_mut(index) else { return Ok(Step::Waiting) };
        match &mut scope.link {
            Link::Watching(watch) => {
                let Poll::Ready(line) = watch.poll_line(cx) else { return Ok(Step::Waiting) };
                let site = self.client.site(WATCH);
                match line.map_err(|error| crate::status::of_transport(site, error))? {
                    Line::Whole(line) => {
                        self.line(index, &line, out)?;
                        self.more_lines(index, cx, out)?;
                    }
                    Line::TooLong => {
                        return Err(site.error(ErrorKind::Protocol, "a line of the watch is longer than any object"));
                    }
                    Line::End if watch.was_whole() => {
                        self.caught_up(index, out);
                        self.reopen(index);
                    }
                    Line::End => return Ok(Step::Closed),
                }
            }
            Link::Opening(opening) => {
                let Poll::Ready(opened) = opening.as_mut().poll(cx) else { return Ok(Step::Waiting) };
                match opened {
                    Ok(watch) => self.reopened(index, watch, out),
                    Err(error) => self.refused(index, error, out)?,
                }
            }
            Link::Relisting(gap, _, relisting) => {
                let Poll::Ready(done) = relisting.as_mut().poll(cx) else { return Ok(Step::Waiting) };
                let gap = *gap;
                match done {
                    Ok((listed, watch)) => self.relisted(index, gap, listed, watch, out),
                    Err(error) => self.refused(index, error, out)?,
                }
            }
            Link::Denied { until, pause } => {
                if until.as_mut().poll(cx).is_pending() {
                    return Ok(Step::Waiting);
                }
                let pause = *pause;
                self.relist(index, Gap::PartialListing, Some(pause));
            }
        }
        Ok(Step::Done)
    }

    /// Takes the lines that are at hand: one hand-over for all of them.
    fn more_lines(&mut self, index: usize, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Result<()> {
        while out.len() < BATCH {
            let Some(Scope { link: Link::Watching(watch), .. }) = self.scopes.get_mut(index) else { break };
            if !watch.has_line() {
                break;
            }
            let Poll::Ready(Ok(Line::Whole(line))) = watch.poll_line(cx) else { break };
            self.line(index, &line, out)?;
        }
        Ok(())
    }

    /// Opens the next watch of a scope, where the last one ended.
    fn reopen(&mut self, index: usize) {
        let Some(scope) = self.scopes.get_mut(index) else { return };
        let (client, selectors) = (self.client.clone(), self.selectors.clone());
        let (namespace, version) = (scope.namespace.clone(), scope.version.clone());
        scope.link = Link::Opening(Box::pin(async move {
            client.open_watch(&namespace, &selectors, &version, client.config().window()).await
        }));
    }

    fn reopened(&mut self, index: usize, watch: Watch, out: &mut Vec<Signal>) {
        if let Some(scope) = self.scopes.get_mut(index) {
            scope.link = Link::Watching(watch);
            out.push(Signal::new(SignalBody::Alive).with_token(self.token()));
        }
    }

    /// Begins again with a listing; `paused` is the time that an attempt without the right was waited for.
    fn relist(&mut self, index: usize, gap: Gap, paused: Option<Duration>) {
        let Some(scope) = self.scopes.get_mut(index) else { return };
        let (client, selectors, namespace) = (self.client.clone(), self.selectors.clone(), scope.namespace.clone());
        let work = async move { client.subscribe(&namespace, &selectors).await };
        scope.link = Link::Relisting(gap, paused, Box::pin(work));
    }

    fn relisted(&mut self, index: usize, gap: Gap, listed: Listed, watch: Watch, out: &mut Vec<Signal>) {
        self.runs.listed(&listed.seen);
        let is_only = self.scopes.len() == 1;
        let Some(scope) = self.scopes.get_mut(index) else { return };
        scope.version = listed.version;
        scope.is_replaying = false;
        scope.link = Link::Watching(watch);
        self.client.handover().set_denied(&scope.namespace, None);
        if is_only {
            self.client.handover().put(Some(listing(listed.seen, listed.failures)));
        }
        self.is_replaying = false;
        out.push(Signal::new(SignalBody::Lost(gap)));
        out.push(Signal::new(SignalBody::Alive).with_token(self.token()));
    }

    /// A scope's watch was refused: the history is gone, or the right, or the link.
    fn refused(&mut self, index: usize, error: Error, out: &mut Vec<Signal>) -> Result<()> {
        let is_only = self.scopes.len() == 1;
        let Some(scope) = self.scopes.get_mut(index) else { return Err(error) };
        if error.kind() == ErrorKind::Expired {
            self.relist(index, Gap::HistoryExpired, None);
            return Ok(());
        }
        match denial(&scope.namespace, &error) {
            Some(failure) if !is_only => {
                let again = if let Link::Relisting(_, paused, _) = &scope.link { *paused } else { None };
                scope.link = Link::denied(again);
                scope.is_replaying = false;
                tracing::info!(backend = %self.client.id(), %failure, "a namespace cannot be watched");
                let is_new = again.is_none();
                self.client.handover().set_denied(&scope.namespace, Some(failure));
                if is_new {
                    self.is_replaying = false;
                    out.push(Signal::new(SignalBody::Lost(Gap::PartialListing)));
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// The replay of a scope is over.
    fn caught_up(&mut self, index: usize, out: &mut Vec<Signal>) {
        if let Some(scope) = self.scopes.get_mut(index) {
            scope.is_replaying = false;
        }
        if self.is_replaying && self.scopes.iter().all(|scope| !scope.is_replaying) {
            self.is_replaying = false;
            out.push(Signal::new(SignalBody::CaughtUp).with_token(self.token()));
        }
    }

    /// One line of a watch.
    fn line(&mut self, index: usize, line: &[u8], out: &mut Vec<Signal>) -> Result<()> {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else {
            if !line.trim_ascii().is_empty() {
                out.push(Signal::new(SignalBody::Lost(Gap::Undecodable)));
            }
            return Ok(());
        };
        let object = event.object.get();
        match &*event.kind {
            "ERROR" => {
                let status: Status = serde_json::from_str(object).unwrap_or_default();
                if status.is_expired() {
                    self.relist(index, Gap::HistoryExpired, None);
                    return Ok(());
                }
                let error = status.into_error(self.client.site(WATCH));
                self.refused(index, error, out)
            }
            "BOOKMARK" => {
                let named: Named = serde_json::from_str(object).unwrap_or_default();
                self.advance(index, named.metadata.resource_version.as_str());
                out.push(Signal::new(SignalBody::Alive).with_token(self.token()));
                self.caught_up(index, out);
                Ok(())
            }
            kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
                match serde_json::from_str::<Pod<'_>>(object) {
                    Ok(pod) => self.pod(index, &pod, kind == "DELETED", out),
                    Err(error) => self.undecodable(index, object, kind == "DELETED", &error, out),
                }
                Ok(())
            }
            // A kind of event that later servers have.
            _ => {
                let named: Named = serde_json::from_str(object).unwrap_or_default();
                match named.metadata.uid.as_str() {
                    Some(uid) => self.hint(uid, out),
                    None => out.push(Signal::new(SignalBody::Alive)),
                }
                Ok(())
            }
        }
    }

    fn advance(&mut self, index: usize, version: Option<&str>) {
        if let (Some(scope), Some(version)) =
            (self.scopes.get_mut(index), version.filter(|version| !version.is_empty()))
        {
            version.clone_into(&mut scope.version);
        }
    }

    fn pod(&mut self, index: usize, pod: &Pod<'_>, is_gone: bool, out: &mut Vec<Signal>) {
        let meta = &pod.metadata;
        self.advance(index, meta.resource_version.as_deref());
        let mut bodies = Vec::with_capacity(2);
        for seen in self.view.instances(pod) {
            if is_gone {
                self.runs.gone(&seen, &mut bodies);
            } else {
                self.runs.reported(&seen, &mut bodies);
            }
        }
        if is_gone {
            self.client.index().remove(&meta.uid);
        } else {
            self.client.index().insert(&meta.uid, meta.namespace.as_deref().unwrap_or_default(), &meta.name);
        }
        // Only after the last of them is all that the object says reported.
        let last = bodies.len().saturating_sub(1);
        for (n, body) in bodies.into_iter().enumerate() {
            let token = if n == last { self.token() } else { None };
            out.push(Signal::new(body).with_token(token));
        }
    }

    /// One object that cannot be decoded is a hint for that object.
    fn undecodable(
        &mut self,
        index: usize,
        object: &str,
        is_gone: bool,
        error: &serde_json::Error,
        out: &mut Vec<Signal>,
    ) {
        let named: Named = serde_json::from_str(object).unwrap_or_default();
        let meta = &named.metadata;
        self.advance(index, meta.resource_version.as_str());
        let Some(uid) = meta.uid.as_str() else {
            return out.push(Signal::new(SignalBody::Lost(Gap::Undecodable)));
        };
        tracing::warn!(backend = %self.client.id(), instance = uid, %error, "a pod cannot be decoded");
        if is_gone {
            for id in self.runs.of_pod(uid) {
                self.runs.forget(&id);
                out.push(Signal::new(SignalBody::Gone(id)));
            }
            return;
        }
        if let (Some(namespace), Some(name)) = (meta.namespace.as_str(), meta.name.as_str()) {
            self.client.index().insert(uid, namespace, name);
        }
        self.hint(uid, out);
    }

    /// The pod may have changed.
    fn hint(&mut self, uid: &str, out: &mut Vec<Signal>) {
        let mut known = self.runs.of_pod(uid);
        if known.is_empty() {
            known.push(InstanceId::from(uid));
        }
        out.extend(known.into_iter().map(|id| Signal::new(SignalBody::Hint(id))));
    }
}

/// The uid of `kube-system`, or the address for a user who may not read it.
async fn cluster_of(client: &Client) -> Result<Cluster> {
    let address = || Cluster::Address(client.endpoint().to_owned());
    match client.get(WATCH, "/api/v1/namespaces/kube-system").await {
        Ok((_, body)) => {
            let named: Named = serde_json::from_slice(&body).unwrap_or_default();
            Ok(named.metadata.uid.as_str().map_or_else(address, |uid| Cluster::Namespace(uid.to_owned())))
        }
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => Ok(address()),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Source for PodSource {
    fn learn(&mut self, known: &[Arc<Instance>]) {
        self.runs.learn(known);
    }

    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        self.client.check_open(WATCH)?;
        self.drop_subscription();
        let gap = match resume {
            None => Gap::Initial,
            Some(token) => match Position::of_token(token) {
                None => Gap::ForeignCursor,
                Some(position) => match self.resume(position).await? {
                    Ok(()) => return Ok(Opened::Resumed),
                    Err(gap) => gap,
                },
            },
        };
        self.drop_subscription();
        self.cluster = None;
        self.runs = Runs::default();
        self.begin().await.inspect_err(|_| self.scopes.clear())?;
        Ok(Opened::Fresh(gap))
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        // Cancel-safe: what was begun is in the scopes, and a line that was read is in `out`.
        poll_fn(|cx| self.poll_batch(cx, out)).await
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        Arc::new(PodInspector::new(self.client.clone()))
    }

    fn max_silence(&self) -> Option<Duration> {
        Some(self.client.config().max_silence)
    }

    fn reports_edges(&self) -> bool {
        true
    }
}
