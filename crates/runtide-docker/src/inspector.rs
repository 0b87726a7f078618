//! [`DockerInspector`]: one list request for any number of containers, and inspections only for facts that a list lacks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use runtide_core::{
    Completeness, Detail, Error, ErrorKind, Failure, Instance, InstanceFilter, InstanceId, Listing, Result,
    watch::{Inspection, Inspector},
};
use runtide_engine::Request;
use tokio::time::Instant;

use crate::{
    client::Client,
    ends,
    normalize::{self, Inspected, Rewritten, is_doubtful},
    reported_state::{self, exit_is_label},
};

/// Bytes of ids in one request line. Many proxies refuse a line above 8 KiB.
const QUERY_BUDGET: usize = 7 * 1024;
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Lists and inspects the containers of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct DockerInspector {
    client: Client,
    reported_state: reported_state::Shared,
}

/// A list of the daemon's.
struct Listed {
    listing: Listing,
    /// Items whose exit the list cannot vouch for, and whose inspection failed: they are listed without an exit.
    unknown: Vec<(InstanceId, Failure)>,
}

impl DockerInspector {
    pub(crate) fn new(client: Client, reported_state: reported_state::Shared) -> Self {
        Self { client, reported_state }
    }

    /// The containers that match the filter; only these are inspected.
    pub(crate) async fn list_matching(&self, filter: &InstanceFilter, detail: Detail) -> Result<Listing> {
        let Listed { mut listing, mut unknown } = self.request_list("").await?;
        listing.instances.retain(|instance| filter.matches(instance));
        if detail == Detail::Full {
            let ids: Vec<InstanceId> = listing.instances.iter().map(|instance| instance.id.clone()).collect();
            unknown = replace(&mut listing, self.inspect_each(&ids, Detail::Full).await);
            listing.instances.retain(|instance| filter.matches(instance));
        }
        if !unknown.is_empty() {
            let failures = unknown.into_iter().map(|(_, cause)| cause);
            match &mut listing.completeness {
                Completeness::Partial(known) => known.extend(failures),
                complete => *complete = Completeness::Partial(failures.collect()),
            }
        }
        Ok(listing)
    }

    /// One list request, and an inspection of each item in which the list is likely to lag behind, or whose exit it cannot vouch
    /// for.
    async fn request_list(&self, query: &str) -> Result<Listed> {
        const OPERATION: &str = "docker.list";
        let path = format!("/containers/json?all=1{query}");
        let body = self.client.call(OPERATION, Request::get(path), self.client.deadline()).await?;
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        for raw in normalize::items(&body).map_err(|error| self.client.site(OPERATION).undecodable(error))? {
            match normalize::listed(self.client.id(), raw) {
                Ok(instance) => instances.push(instance),
                Err(failure) => failures.push(failure),
            }
        }
        let now = Instant::now();
        let (mut doubtful, mut exit_unknown) = (Vec::new(), HashSet::new());
        {
            let mut reported_state = self.reported_state.lock();
            for instance in &mut instances {
                let rewritten = instance.exit.is_some_and(|exit| is_doubtful(exit.end));
                if rewritten {
                    instance.exit = None;
                    exit_unknown.insert(instance.id.clone());
                }
                if rewritten || reported_state.doubts(instance, now) {
                    doubtful.push(instance.id.clone());
                }
                reported_state.complete(instance);
            }
        }
        let mut listing = Listing::new(instances.into_iter().map(Arc::new).collect(), failures);
        let mut unknown = Vec::new();
        if !doubtful.is_empty() {
            unknown = replace(&mut listing, self.inspect_each(&doubtful, Detail::Summary).await);
            // An item that only lags behind shows what the stream has reported since.
            unknown.retain(|(id, _)| exit_unknown.contains(id));
        }
        Ok(Listed { listing, unknown })
    }

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
            .buffer_unordered(bound)
            .collect()
            .await
    }

    /// Inspects exactly this container. Docker also accepts a name or a prefix of an id, which may match another container
    /// tomorrow.
    pub(crate) async fn inspect_one(&self, id: &InstanceId, detail: Detail) -> Result<Instance> {
        const OPERATION: &str = "docker.inspect";
        let located = |error: Error| error.with_context("instance", id);
        let site = self.client.site(OPERATION);
        if !is_plausible(id) {
            return Err(located(site.error(ErrorKind::NotFound, "no container has such an id")));
        }
        let path = format!("/containers/{}/json", utf8_percent_encode(id.as_str(), UNESCAPED));
        let body = self.client.call(OPERATION, Request::get(path), self.client.deadline()).await.map_err(located)?;
        let Inspected { mut instance, rewritten } =
            normalize::inspected(self.client.id(), &body).map_err(|error| located(site.undecodable(error)))?;
        if instance.id != *id {
            let why = format!("this is a name, or a prefix of the id, of {}", instance.id);
            return Err(located(site.error(ErrorKind::NotFound, why)));
        }
        if let Some(Rewritten { oom_killed }) = rewritten
            && let Some(begin) = instance.started_at
            && instance.labels.as_ref().is_some_and(|labels| !exit_is_label(|key| labels.contains_key(key)))
        {
            let until = instance.finished_at.and_then(ends::reported_by);
            let end = ends::of_run(&self.client, OPERATION, id.as_str(), begin, until).await;
            instance.exit = end.and_then(|end| end.exit).map(|exit| exit.with_oom_killed(oom_killed));
        }
        if detail == Detail::Summary {
            instance = normalize::summary(&instance);
        }
        self.reported_state.lock().complete(&mut instance);
        Ok(instance)
    }

    /// Inspects many containers by one list request: one that a complete listing lacks is gone.
    async fn inspect_listed(&self, ids: &[InstanceId]) -> Vec<Inspection> {
        let mut answers = Vec::with_capacity(ids.len());
        let (plausible, impossible): (Vec<&InstanceId>, Vec<&InstanceId>) = ids.iter().partition(|id| is_plausible(id));
        answers.extend(impossible.into_iter().cloned().map(Inspection::Absent));
        for chunk in chunks(&plausible) {
            let asked: HashSet<&InstanceId> = chunk.iter().copied().collect();
            let listed = self.request_list(&id_filter(chunk)).await;
            match listed {
                Ok(Listed { listing, unknown }) => {
                    let mut unknown: HashMap<InstanceId, Failure> = unknown.into_iter().collect();
                    let complete = listing.is_complete();
                    let cause = match listing.completeness {
                        Completeness::Partial(failures) => failures.into_iter().next(),
                        _ => None,
                    };
                    let cause = cause
                        .unwrap_or_else(|| Failure::new(ErrorKind::Protocol, "docker.list", "the list was incomplete"));
                    let mut seen = HashSet::new();
                    for instance in listing.instances {
                        if asked.contains(&instance.id) && seen.insert(instance.id.clone()) {
                            answers.push(match unknown.remove(&instance.id) {
                                None => Inspection::Present(instance),
                                Some(cause) => Inspection::Unknown { id: instance.id.clone(), cause },
                            });
                        }
                    }
                    answers.extend(chunk.iter().filter(|id| !seen.contains(**id)).map(|id| {
                        let id = InstanceId::clone(id);
                        if complete { Inspection::Absent(id) } else { Inspection::Unknown { id, cause: cause.clone() } }
                    }));
                }
                Err(error) => {
                    let cause = Failure::from(&error);
                    answers.extend(
                        chunk.iter().map(|id| Inspection::Unknown { id: InstanceId::clone(id), cause: cause.clone() }),
                    );
                }
            }
        }
        answers
    }
}

#[async_trait]
impl Inspector for DockerInspector {
    async fn list(&self, detail: Detail) -> Result<Listing> {
        let listing = self.list_matching(&InstanceFilter::default(), detail).await?;
        self.reported_state.lock().prune(&listing, Instant::now());
        Ok(listing)
    }

    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>> {
        Ok(match detail {
            Detail::Summary => self.inspect_listed(ids).await,
            _ => self.inspect_each(ids, detail).await,
        })
    }
}

/// Replaces listed items by their inspections. An item that is gone by now is removed. One whose inspection failed stays as
/// listed, and is returned with the failure.
fn replace(listing: &mut Listing, inspected: Vec<Inspection>) -> Vec<(InstanceId, Failure)> {
    let mut by_id: HashMap<InstanceId, Inspection> = inspected.into_iter().map(|one| (one.id().clone(), one)).collect();
    let mut failures = Vec::new();
    let listed = std::mem::take(&mut listing.instances);
    listing.instances = listed
        .into_iter()
        .filter_map(|instance| match by_id.remove(&instance.id) {
            None => Some(instance),
            Some(Inspection::Present(better)) => Some(better),
            Some(Inspection::Absent(_)) => None,
            Some(Inspection::Unknown { id, cause }) => {
                failures.push((id, cause));
                Some(instance)
            }
        })
        .collect();
    failures
}

/// `false` for a text that Docker could read as a path or a pattern; its ids are hexadecimal.
fn is_plausible(id: &InstanceId) -> bool {
    let id = id.as_str();
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The ids in chunks that fit into one request line each.
fn chunks<'a, 'b>(ids: &'b [&'a InstanceId]) -> impl Iterator<Item = &'b [&'a InstanceId]> {
    let mut rest = ids;
    std::iter::from_fn(move || {
        let mut left = QUERY_BUDGET;
        let fits = rest
            .iter()
            .take_while(|id| {
                let costs = id.as_str().len() + "%22%22%2C".len();
                left = left.saturating_sub(costs);
                left > 0
            })
            .count();
        let (chunk, next) = rest.split_at_checked(fits.max(1))?;
        rest = next;
        Some(chunk)
    })
}

/// The query `&filters={"id":["…","…"]}`, escaped.
fn id_filter(ids: &[&InstanceId]) -> String {
    let list: Vec<String> = ids.iter().map(|id| format!("%22{id}%22")).collect();
    format!("&filters=%7B%22id%22%3A%5B{}%5D%7D", list.join("%2C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_ids_have_a_bounded_length() {
        let ids: Vec<InstanceId> = (0..1_000).map(|n| InstanceId::from(format!("{n:064x}"))).collect();
        let all: Vec<&InstanceId> = ids.iter().collect();
        let chunks: Vec<_> = chunks(&all).collect();
        assert_eq!(chunks.concat(), all);
        assert!(chunks.len() <= 12, "{}", chunks.len());
        assert!(chunks.iter().all(|chunk| id_filter(chunk).len() < 8 * 1024));
    }

    #[test]
    fn a_path_or_a_pattern_is_no_id() {
        for id in ["", "..", "a/b", "a.*", "web_1", "a\u{e9}", &"a".repeat(129)] {
            assert!(!is_plausible(&InstanceId::from(id)), "{id}");
        }
        assert!(is_plausible(&InstanceId::from("6a00dae10311")));
    }
}
