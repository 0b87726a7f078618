//! Listings and inspections ([`Inspector`]).

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use runtide_core::{
    Detail, Error, ErrorKind, Failure, Instance, InstanceId, Listing, Result,
    watch::{Inspection, Inspector},
};

use crate::{
    client::Client,
    index::Address,
    list::{Selectors, path},
    normalize::{View, uid_of},
    wire::Pod,
};

pub(crate) const INSPECT: &str = "k8s.inspect";

/// Inspections under way at once.
const CONCURRENCY: usize = 8;
/// With more pods than this, one listing costs the server less than so many requests.
const MANY: usize = 64;
/// Bytes of the longest id that a pod or container may have: a uid, a slash and a name.
const LONGEST_ID: usize = 512;

#[derive(Clone, Debug)]
pub(crate) struct PodInspector {
    client: Client,
}

impl PodInspector {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The instances of this pod; `None`: the server reported that it does not exist.
    async fn pod(&self, uid: &str, address: &Address) -> Result<Option<Vec<Arc<Instance>>>> {
        let client = &self.client;
        let selectors = Selectors::of(client);
        if selectors != Selectors::default() {
            // A pod that ceased to match does not exist for this backend.
            let fields = format!("metadata.name={}", address.name);
            let listed =
                client.list_pods(&Some(Arc::clone(&address.namespace)), &selectors.and(None, Some(fields))).await?;
            if let Some(failure) = listed.failures.into_iter().next() {
                return Err(Error::from(failure));
            }
            let own = listed.seen.into_iter().map(|seen| seen.instance);
            let own: Vec<_> = own.filter(|instance| uid_of(instance.id.as_str()) == uid).collect();
            return Ok((!own.is_empty()).then_some(own));
        }
        let path = format!("{}/{}", path(Some(&address.namespace), &selectors, &[]), address.name);
        let body = match client.get(INSPECT, &path).await {
            Ok((_, body)) => body,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let pod: Pod<'_> = serde_json::from_slice(&body).map_err(|error| client.site(INSPECT).undecodable(error))?;
        // A name may come back as another pod.
        let is_it = pod.metadata.uid == uid;
        let seen = View::of(client.config()).instances(&pod);
        Ok(is_it.then(|| seen.into_iter().map(|seen| seen.instance).collect()))
    }

    async fn inspect_pod(&self, uid: &str, ids: Vec<InstanceId>) -> Vec<Inspection> {
        let Some(address) = self.client.index().get(uid) else {
            return ids.into_iter().map(Inspection::Absent).collect();
        };
        let answer = self.pod(uid, &address).await;
        ids.into_iter()
            .map(|id| match &answer {
                Ok(None) => Inspection::Absent(id),
                Ok(Some(own)) => match own.iter().find(|instance| instance.id == id) {
                    Some(instance) => Inspection::Present(Arc::clone(instance)),
                    None => Inspection::Absent(id),
                },
                Err(error) => Inspection::Unknown { id, cause: Failure::from(error) },
            })
            .collect()
    }

    /// One instance.
    pub(crate) async fn inspect_one(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        let answers = self.inspect(std::slice::from_ref(id), Detail::Full).await?;
        match answers.into_iter().next() {
            Some(Inspection::Present(instance)) => Ok(instance),
            Some(Inspection::Unknown { cause, .. }) => Err(Error::from(cause).with_context("instance", id)),
            Some(Inspection::Absent(_)) | None => {
                let absent = self.client.site(INSPECT).error(ErrorKind::NotFound, "there is no such pod or container");
                Err(absent.with_context("instance", shortened(id)))
            }
        }
    }
}

pub(crate) fn shortened(id: &InstanceId) -> String {
    id.as_str().chars().take(LONGEST_ID).collect::<String>().escape_debug().to_string()
}

/// Only the server's own word proves that a pod is gone; a proxy has pages of its own for 404.
fn is_absent(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
        && error.context().iter().any(|(key, value)| key == "reason" && value == "NotFound")
}

#[async_trait]
impl Inspector for PodInspector {
    async fn list(&self, _: Detail) -> Result<Listing> {
        match self.client.handover().take() {
            Some(listing) => Ok(listing),
            None => self.client.list_watched().await,
        }
    }

    async fn inspect(&self, ids: &[InstanceId], _: Detail) -> Result<Vec<Inspection>> {
        let mut by_pod: HashMap<String, Vec<InstanceId>> = HashMap::new();
        for id in ids {
            by_pod.entry(uid_of(id.as_str()).to_owned()).or_default().push(id.clone());
        }
        let is_unknown =
            |uid: &String| uid.len() <= LONGEST_ID && !uid.is_empty() && self.client.index().get(uid).is_none();
        if by_pod.len() > MANY || by_pod.keys().any(is_unknown) {
            // The API finds no pod by its uid: only a listing tells.
            let listing = self.client.list_watched().await;
            let known: HashMap<&InstanceId, &Arc<Instance>> =
                listing.iter().flat_map(|listing| &listing.instances).map(|one| (&one.id, one)).collect();
            let answers = ids.iter().map(|id| match (&listing, known.get(id)) {
                (_, Some(&instance)) => Inspection::Present(Arc::clone(instance)),
                (Ok(listing), None) if listing.is_complete() => Inspection::Absent(id.clone()),
                (Ok(listing), None) => {
                    let cause = listing.completeness.failures().first().cloned();
                    let cause =
                        cause.unwrap_or_else(|| Failure::new(ErrorKind::Unavailable, INSPECT, "a partial listing"));
                    Inspection::Unknown { id: id.clone(), cause }
                }
                (Err(error), None) => Inspection::Unknown { id: id.clone(), cause: Failure::from(error) },
            });
            return Ok(answers.collect());
        }
        let asking = stream::iter(by_pod).map(|(uid, ids)| async move { self.inspect_pod(&uid, ids).await });
        let answers = asking.buffer_unordered(CONCURRENCY);
        Ok(answers.collect::<Vec<_>>().await.into_iter().flatten().collect())
    }
}
