//! [`PodmanInspector`]: one list request for any number of containers, and inspections only for facts that a list lacks.
//!
//! Podman's list is exact: it takes each container's lock, and a message is written under the same lock. So nothing that a message
//! said can be missing from a listing after it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use runtide_core::{
    Completeness, Detail, Error, ErrorKind, Failure, Instance, InstanceFilter, InstanceId, Listing, Result,
    watch::{Inspection, Inspector},
};
use runtide_engine::{Request, lenient, segment};
use serde::Deserialize;

use crate::{
    client::{Client, is_answer, is_status},
    infra,
    left_out::LeftOut,
    normalize::{self, Inspected, Listed},
    progress::{Follower, Progress},
    subscription,
};

/// Ids in one request; its line stays below 8 KiB, which many proxies refuse to exceed.
const IDS_AT_ONCE: usize = 90;

/// Words of a 500 to an inspection during which the container's process ended (trap P17): how often it is asked again, and the pause.
const ENDED_MEANWHILE: &str = "no such process";
const RACES: usize = 5;
const RACE: Duration = Duration::from_millis(20);

/// Lists and inspects the containers of one service.
#[derive(Clone, Debug)]
pub(crate) struct PodmanInspector {
    client: Client,
    known: infra::Shared,
    /// The stream with which a watch compares its listings.
    progress: Progress,
}

impl PodmanInspector {
    pub(crate) fn new(client: Client, known: infra::Shared) -> Self {
        Self { client, known, progress: Progress::default() }
    }

    /// The inspector of a watch: no listing is shown before the stream has what it shows.
    pub(crate) fn behind(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Lists everything, as it is now.
    pub(crate) async fn list_now(&self, detail: Detail) -> Result<Listing> {
        let listing = self.list_matching(&InstanceFilter::default(), detail).await?;
        self.known.lock().prune(&listing);
        Ok(listing)
    }

    /// Returns once the stream has reported what a listing of this moment shows. It is bounded: a stream that has fallen silent reports
    /// nothing, which the listing then shows.
    async fn reported(&self, follower: &Follower) {
        let Some(since) = follower.from().and_then(subscription::time_of) else { return };
        // A journal takes long to read, and is read without a delay.
        if self.client.known_logger().is_none_or(|logger| logger.is_journal()) {
            return;
        }
        let passed = async {
            if let Ok(Some(newest)) = subscription::newest(&self.client, since).await {
                follower.passed(&newest).await;
            }
        };
        if tokio::time::timeout(self.client.patience(), passed).await.is_err() {
            tracing::debug!(backend = %self.client.id(), "the stream does not report what is in the log");
        }
    }

    /// The containers that match the filter; only these are inspected.
    pub(crate) async fn list_matching(&self, filter: &InstanceFilter, detail: Detail) -> Result<Listing> {
        let mut listing = self.request_list(&[]).await?;
        listing.instances.retain(|instance| filter.matches(instance));
        if detail != Detail::Full {
            return Ok(listing);
        }
        let ids: Vec<InstanceId> = listing.instances.iter().map(|instance| instance.id.clone()).collect();
        let (mut instances, mut failures) = (Vec::with_capacity(ids.len()), Vec::new());
        let listed = std::mem::take(&mut listing.instances);
        for (inspected, listed) in self.inspect_each(&ids, Detail::Full).await.into_iter().zip(listed) {
            match inspected {
                Inspection::Present(full) => instances.push(full),
                Inspection::Absent(_) => {}
                Inspection::Unknown { cause, .. } => {
                    failures.push(cause);
                    instances.push(listed);
                }
            }
        }
        instances.retain(|instance| filter.matches(instance));
        listing.instances = instances;
        if !failures.is_empty() {
            match &mut listing.completeness {
                Completeness::Partial(known) => known.extend(failures),
                complete => *complete = Completeness::Partial(failures),
            }
        }
        Ok(listing)
    }

    /// One list request; of these ids, or of all. Containers for which Podman lists nothing at all are inspected.
    async fn request_list(&self, ids: &[&InstanceId]) -> Result<Listing> {
        const OPERATION: &str = "podman.list";
        let mut out = LeftOut::default();
        let body = loop {
            let patterns = match ids {
                [] => out.all_others(),
                ids => ids.iter().filter(|id| !out.contains(id)).map(|id| id.as_str().to_owned()).collect(),
            };
            if patterns.is_empty() && !ids.is_empty() {
                break b"[]".to_vec().into();
            }
            let mut request = Request::get("/containers/json").with_query("all", true);
            if !patterns.is_empty() {
                request = request.with_query("filters", serde_json::json!({ "id": patterns }));
            }
            match self.client.call(OPERATION, request, self.client.deadline()).await {
                Ok(body) => break body,
                Err(error) if out.learn(&error) => {
                    tracing::warn!(%error, "a container makes every listing fail: listing the others, and inspecting it");
                }
                Err(error) => return Err(error),
            }
        };
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        for id in out.ids() {
            match self.inspect_one(id, Detail::Summary).await {
                Ok(instance) => instances.push(Arc::new(instance)),
                // It is gone by now, or holds a pod together.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => failures.push(Failure::from(&error)),
            }
        }
        let items = normalize::items(&body).map_err(|error| self.client.site(OPERATION).undecodable(error))?;
        let mut known = self.known.lock();
        for raw in items {
            match normalize::listed(self.client.id(), raw) {
                Ok(Listed { mut instance, is_infra, pod }) => {
                    known.learn(instance.id.as_str(), is_infra);
                    if let Some((id, name)) = pod.filter(|(_, name)| !name.is_empty()) {
                        known.learn_pod(&id, &name);
                    }
                    if !is_infra {
                        known.complete(&mut instance);
                        instances.push(Arc::new(instance));
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        Ok(Listing::new(instances, failures))
    }

    /// Each of them, in their order.
    async fn inspect_each(&self, ids: &[InstanceId], detail: Detail) -> Vec<Inspection> {
        let bound = self.client.config().inspect_concurrency.get();
        stream::iter(ids.to_vec())
            .map(|id| async move {
                match self.inspect_one(&id, detail).await {
                    Ok(instance) => Inspection::Present(Arc::new(instance)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Inspection::Absent(id),
                    Err(error) => Inspection::Unknown { id, cause: Failure::from(&error) },
                }
            })
            .buffered(bound)
            .collect()
            .await
    }

    /// Inspects exactly this container. Podman also accepts a name or a prefix of an id, which may match another container
    /// tomorrow.
    pub(crate) async fn inspect_one(&self, id: &InstanceId, detail: Detail) -> Result<Instance> {
        const OPERATION: &str = "podman.inspect";
        let located = |error: Error| error.with_context("instance", id);
        let site = self.client.site(OPERATION);
        if !is_plausible(id) {
            return Err(located(site.error(ErrorKind::NotFound, "no container has such an id")));
        }
        let Inspected { mut instance, is_infra, pod } =
            match self.inspected(OPERATION, id, self.client.deadline()).await {
                Ok(inspected) => inspected,
                Err(refusal) if is_status(&refusal, "500") => {
                    return self.listed_one(id).await.ok_or_else(|| located(refusal));
                }
                Err(error) => return Err(located(error)),
            };
        if instance.id != *id {
            let why = format!("this is a name, or a prefix of the id, of {}", instance.id);
            return Err(located(site.error(ErrorKind::NotFound, why)));
        }
        if is_infra {
            let why = "this container holds a pod together, and is no instance: see Pods";
            return Err(located(site.error(ErrorKind::NotFound, why)).with_context("pod", pod.unwrap_or_default()));
        }
        if let Some(pod) = pod {
            instance.group = self.pod_name(&pod).await?.map(|name| normalize::pod(&name));
        }
        if detail == Detail::Summary {
            instance = normalize::summary(&instance);
        }
        self.known.lock().complete(&mut instance);
        Ok(instance)
    }

    /// The row of a container that the service refuses to inspect: killed while it removed one, it lists it and nothing more (trap P16).
    /// `None`: it lists none.
    async fn listed_one(&self, id: &InstanceId) -> Option<Instance> {
        let filters = serde_json::json!({ "id": [id.as_str()] });
        let request = Request::get("/containers/json").with_query("all", true).with_query("filters", filters);
        let body = self.client.call("podman.inspect", request, self.client.deadline()).await.ok()?;
        let mut items = normalize::items(&body).ok()?.into_iter();
        let Listed { mut instance, is_infra, .. } =
            items.find_map(|raw| normalize::listed(self.client.id(), raw).ok().filter(|one| one.instance.id == *id))?;
        let mut known = self.known.lock();
        known.learn(id.as_str(), is_infra);
        known.complete(&mut instance);
        (!is_infra).then_some(instance)
    }

    async fn inspected(&self, operation: &'static str, id: &InstanceId, deadline: Duration) -> Result<Inspected> {
        let request = || Request::get(format!("/containers/{}/json", segment(id.as_str())));
        let mut asked = self.client.call(operation, request(), deadline).await;
        for _ in 0..RACES {
            let Err(error) = &asked else { break };
            if !error.message().contains(ENDED_MEANWHILE) {
                break;
            }
            tokio::time::sleep(RACE).await;
            asked = self.client.call(operation, request(), deadline).await;
        }
        let body = asked?;
        let inspected = normalize::inspected(self.client.id(), &body)
            .map_err(|error| self.client.site(operation).undecodable(error))?;
        self.known.lock().learn(inspected.instance.id.as_str(), inspected.is_infra);
        Ok(inspected)
    }

    /// True if this container holds a pod together. One that is gone by now, or that the service cannot inspect in time, counts by its
    /// name: the messages of all others wait for this answer.
    ///
    /// # Errors
    /// The service cannot be reached.
    pub(crate) async fn is_infra(&self, id: InstanceId, by_name: bool) -> Result<bool> {
        match self.inspected("podman.inspect", &id, self.client.patience()).await {
            Ok(inspected) => Ok(inspected.is_infra),
            Err(error)
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) && !is_answer(&error) =>
            {
                Err(error)
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, instance = %id, "it cannot be inspected: if it is a pod's own container is judged by its name");
                }
                Ok(by_name)
            }
        }
    }

    /// The pod's name; `None` if it is gone.
    async fn pod_name(&self, pod: &str) -> Result<Option<String>> {
        const OPERATION: &str = "podman.pod_inspect";
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Pod {
            name: String,
        }
        if let Some(name) = self.known.lock().pod(pod).map(str::to_owned) {
            return Ok(Some(name));
        }
        let request = Request::get(format!("/pods/{}/json", segment(pod)));
        let body = match self.client.call(OPERATION, request, self.client.deadline()).await {
            Ok(body) => body,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (found, _): (Pod, _) = lenient(&String::from_utf8_lossy(&body), |json| serde_json::from_str(json))
            .map_err(|error| self.client.site(OPERATION).undecodable(error))?;
        self.known.lock().learn_pod(pod, &found.name);
        Ok(Some(found.name))
    }

    /// Inspects many containers by one list request: one that a complete listing lacks is gone. The list has no addresses, so that
    /// those that joined or left a network are inspected each.
    async fn inspect_listed(&self, ids: &[InstanceId]) -> Vec<Inspection> {
        let mut answers = Vec::with_capacity(ids.len());
        let (plausible, impossible): (Vec<&InstanceId>, Vec<&InstanceId>) = ids.iter().partition(|id| is_plausible(id));
        answers.extend(impossible.into_iter().cloned().map(Inspection::Absent));
        let (rewired, plausible): (Vec<&InstanceId>, Vec<&InstanceId>) = {
            let mut known = self.known.lock();
            plausible.into_iter().partition(|id| known.take_rewired(id))
        };
        let rewired: Vec<InstanceId> = rewired.into_iter().cloned().collect();
        for answer in self.inspect_each(&rewired, Detail::Summary).await {
            if matches!(answer, Inspection::Unknown { .. }) {
                self.known.lock().rewire(answer.id());
            }
            answers.push(answer);
        }
        for chunk in plausible.chunks(IDS_AT_ONCE) {
            let unknown = |cause: &Failure| {
                let cause = cause.clone();
                move |id: &&InstanceId| Inspection::Unknown { id: InstanceId::clone(id), cause: cause.clone() }
            };
            let listing = match self.request_list(chunk).await {
                Ok(listing) => listing,
                Err(error) => {
                    answers.extend(chunk.iter().map(unknown(&Failure::from(&error))));
                    continue;
                }
            };
            let asked: HashSet<&InstanceId> = chunk.iter().copied().collect();
            let mut seen = HashSet::new();
            for instance in listing.instances {
                if asked.contains(&instance.id) && seen.insert(instance.id.clone()) {
                    answers.push(Inspection::Present(instance));
                }
            }
            let missing = chunk.iter().filter(|id| !seen.contains(**id));
            match listing.completeness {
                Completeness::Partial(failures) => {
                    let cause = failures.into_iter().next();
                    let cause = cause
                        .unwrap_or_else(|| Failure::new(ErrorKind::Protocol, "podman.list", "the list was incomplete"));
                    answers.extend(missing.map(unknown(&cause)));
                }
                _ => answers.extend(missing.map(|id| Inspection::Absent(InstanceId::clone(id)))),
            }
        }
        answers
    }
}

#[async_trait]
impl Inspector for PodmanInspector {
    async fn list(&self, detail: Detail) -> Result<Listing> {
        let follower = self.progress.follow();
        let listing = self.list_now(detail).await?;
        self.reported(&follower).await;
        Ok(listing)
    }

    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>> {
        Ok(match detail {
            Detail::Summary => self.inspect_listed(ids).await,
            _ => self.inspect_each(ids, detail).await,
        })
    }
}

/// `false` for a text that Podman could read as a path or a pattern; its ids are hexadecimal.
fn is_plausible(id: &InstanceId) -> bool {
    let id = id.as_str();
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_a_pattern_is_no_id() {
        for id in ["", "..", "a/b", "a.*", "web_1", "a\u{e9}", &"a".repeat(129)] {
            assert!(!is_plausible(&InstanceId::from(id)), "{id}");
        }
        assert!(is_plausible(&InstanceId::from("6a00dae10311")));
    }

    #[test]
    fn requests_for_ids_have_a_bounded_length() {
        let ids = vec!["f".repeat(64); IDS_AT_ONCE];
        let filters = serde_json::json!({ "id": ids });
        let request = Request::get("/containers/json").with_query("all", true).with_query("filters", filters);
        assert!(request.path_and_query().len() < 7 * 1024, "{}", request.path_and_query().len());
    }
}
