//! Listings: consistent, page by page; and the one that a subscription begins with.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::future::join_all;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtide_core::{Error, ErrorKind, Failure, Instance, Listing, Result};
use serde_json::value::RawValue;

use crate::{
    client::Client,
    config::Namespaces,
    handover::Namespace,
    normalize::{Seen, View, uid_of},
    wire::{Named, Page, Pod},
};

pub(crate) const LIST: &str = "k8s.list";

/// Pods of one page.
const PAGE: usize = 500;
/// How often a listing is begun again because the server no longer knows its next page (trap K6).
const RESTARTS: usize = 3;
/// Most pages of one listing: a server that repeats its pages must not keep us indefinitely.
const PAGES: usize = 10_000;
/// The header that names the object by which the server schedules this user's requests.
const FLOW_SCHEMA: &str = "x-kubernetes-pf-flowschema-uid";

/// Selectors of the server, in its own syntax.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selectors {
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

impl Selectors {
    pub(crate) fn of(client: &Client) -> Self {
        let config = client.config();
        let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self { labels: present(&config.label_selector), fields: present(&config.field_selector) }
    }

    /// With these conditions too.
    pub(crate) fn and(mut self, labels: Option<String>, fields: Option<String>) -> Self {
        for (own, more) in [(&mut self.labels, labels), (&mut self.fields, fields)] {
            *own = match (own.take(), more) {
                (Some(own), Some(more)) => Some(format!("{own},{more}")),
                (own, more) => own.or(more),
            };
        }
        self
    }

    /// The text that a token carries: under other selectors, other pods are there.
    pub(crate) fn identity(&self) -> Option<String> {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        (*self != Self::default()).then(|| format!("{};{}", part(&self.labels), part(&self.fields)))
    }
}

pub(crate) fn namespaces(client: &Client) -> Vec<Namespace> {
    match &client.config().namespaces {
        Namespaces::All => vec![None],
        Namespaces::Only(names) => names.iter().map(|name| Some(name.as_str().into())).collect(),
    }
}

/// The path and query of a request for pods.
pub(crate) fn path(namespace: Option<&str>, selectors: &Selectors, query: &[(&str, &str)]) -> String {
    let path = match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{}/pods", encoded(namespace).replace("%2D", "-")),
        None => "/api/v1/pods".to_owned(),
    };
    let selectors = [("labelSelector", selectors.labels.as_deref()), ("fieldSelector", selectors.fields.as_deref())];
    let selectors = selectors.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let all: Vec<_> = query.iter().copied().chain(selectors).collect();
    with_query(path, &all)
}

/// The text with all but letters and digits encoded.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The path with these parameters.
pub(crate) fn with_query(mut path: String, query: &[(&str, &str)]) -> String {
    for (n, (key, value)) in query.iter().enumerate() {
        path.push(if n == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        path.push_str(&encoded(value));
    }
    path
}

/// A listing of one namespace, or of all.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) seen: Vec<Seen>,
    pub(crate) failures: Vec<Failure>,
    /// The version from which a watch goes on.
    pub(crate) version: String,
    pub(crate) flow_schema: Option<String>,
}

/// The object by which the server schedules this user's requests, if the answer names it.
fn flow_schema(headers: &http::HeaderMap) -> Option<String> {
    let uid = headers.get(FLOW_SCHEMA)?.to_str().ok()?;
    (!uid.is_empty()).then(|| uid.to_owned())
}

impl Client {
    /// Every pod there, at one version.
    pub(crate) async fn list_pods(&self, namespace: &Namespace, selectors: &Selectors) -> Result<Listed> {
        for _ in 0..=RESTARTS {
            match self.list_pages(namespace.as_deref(), selectors).await {
                // The server has compacted the version that the pages are of.
                Err(error) if error.kind() == ErrorKind::Expired => {}
                done => return done,
            }
        }
        let message = format!("the server lost its place in the listing {} times", RESTARTS + 1);
        Err(self.site(LIST).error(ErrorKind::Unavailable, message))
    }

    async fn list_pages(&self, namespace: Option<&str>, selectors: &Selectors) -> Result<Listed> {
        let (site, view) = (self.site(LIST), View::of(self.config()));
        let limit = PAGE.to_string();
        let mut next: Option<String> = None;
        let mut listed = Listed { seen: Vec::new(), failures: Vec::new(), version: String::new(), flow_schema: None };
        for _ in 0..PAGES {
            let query = [("limit", limit.as_str()), ("continue", next.as_deref().unwrap_or_default())];
            let query = query.get(..if next.is_some() { 2 } else { 1 }).unwrap_or_default();
            let (headers, body) = self.get(LIST, &path(namespace, selectors, query)).await?;
            let page: Page<'_> = serde_json::from_slice(&body).map_err(|error| site.undecodable(error))?;
            for item in &page.items {
                match serde_json::from_str::<Pod<'_>>(item.get()) {
                    Ok(pod) => {
                        self.index().insert(
                            &pod.metadata.uid,
                            pod.metadata.namespace.as_deref().unwrap_or_default(),
                            &pod.metadata.name,
                        );
                        listed.seen.extend(view.instances(&pod));
                    }
                    Err(error) => listed.failures.push(undecodable(item, &error, self)),
                }
            }
            if listed.flow_schema.is_none() {
                listed.flow_schema = flow_schema(&headers);
            }
            let version = page.metadata.resource_version.filter(|version| !version.is_empty());
            listed.version = version
                .ok_or_else(|| site.error(ErrorKind::Protocol, "the listing has no resourceVersion"))?
                .into_owned();
            next = page.metadata.next.map(std::borrow::Cow::into_owned).filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(listed);
            }
        }
        Err(site.error(ErrorKind::Protocol, format!("the listing has more than {PAGES} pages")))
    }

    /// The object by which the server schedules listings of this user's. Older servers schedule no watch, and name it in no answer to one.
    pub(crate) async fn flow_schema(&self, namespace: &Namespace, selectors: &Selectors) -> Result<Option<String>> {
        let (headers, _) = self.get(LIST, &path(namespace.as_deref(), selectors, &[("limit", "1")])).await?;
        Ok(flow_schema(&headers))
    }

    /// Every pod of every namespace, but for those that are `left_out`, each with its reason.
    pub(crate) async fn list_all(
        &self,
        selectors: &Selectors,
        left_out: &BTreeMap<Arc<str>, Failure>,
    ) -> Result<Listing> {
        let (mut seen, mut failures, mut first) = (Vec::new(), Vec::new(), None);
        let all = namespaces(self);
        let asked: Vec<_> = all
            .iter()
            .filter(|namespace| !namespace.as_ref().is_some_and(|name| left_out.contains_key(name)))
            .collect();
        failures.extend(left_out.values().cloned());
        let answers = join_all(asked.iter().map(|namespace| self.list_pods(namespace, selectors))).await;
        let mut is_any = false;
        for (namespace, answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(listed) => {
                    is_any = true;
                    seen.extend(listed.seen);
                    failures.extend(listed.failures);
                }
                Err(error) => {
                    failures.push(Failure::from(&of_namespace(&error, namespace)));
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if !is_any => Err(error),
            _ => Ok(listing(seen, failures)),
        }
    }

    /// A listing of all that this backend sees, which the index is brought up to.
    pub(crate) async fn list_watched(&self) -> Result<Listing> {
        let listing = self.list_all(&Selectors::of(self), &self.handover().denied()).await?;
        if listing.is_complete() {
            let there: HashSet<&str> = listing.instances.iter().map(|one| uid_of(one.id.as_str())).collect();
            self.index().retain(|uid| there.contains(uid));
        }
        Ok(listing)
    }
}

pub(crate) fn listing(seen: Vec<Seen>, failures: Vec<Failure>) -> Listing {
    // A server that is asked for two namespaces may show one pod in each only if it lies; one id is one instance.
    let mut known = HashSet::with_capacity(seen.len());
    let instances: Vec<Arc<Instance>> =
        seen.into_iter().map(|one| one.instance).filter(|one| known.insert(one.id.clone())).collect();
    Listing::new(instances, failures)
}

/// The error with the namespace that it is about.
pub(crate) fn of_namespace(error: &Error, namespace: &Namespace) -> Error {
    let again = Error::from(Failure::from(error));
    match namespace {
        Some(name) => again.with_context("namespace", name),
        None => again,
    }
}

/// The failure of one object, named as far as it can be.
fn undecodable(item: &RawValue, error: &serde_json::Error, client: &Client) -> Failure {
    let named: Named = serde_json::from_str(item.get()).unwrap_or_default();
    let mut error = client.site(LIST).error(ErrorKind::Protocol, format!("a pod cannot be decoded: {error}"));
    for (key, value) in
        [("instance", &named.metadata.uid), ("namespace", &named.metadata.namespace), ("name", &named.metadata.name)]
    {
        if let Some(text) = value.as_str() {
            error = error.with_context(key, text);
        }
    }
    Failure::from(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_parts_encoded() {
        let selectors = Selectors { labels: Some("a in (b,c),!d".to_owned()), fields: None };
        assert_eq!(
            path(Some("kube-system"), &selectors, &[("limit", "500")]),
            "/api/v1/namespaces/kube-system/pods?limit=500&labelSelector=a%20in%20%28b%2Cc%29%2C%21d"
        );
        assert_eq!(path(None, &Selectors::default(), &[]), "/api/v1/pods");
    }

    #[test]
    fn selectors_are_joined() {
        let own = Selectors { labels: Some("a=b".to_owned()), fields: None };
        let joined = own.and(Some("c=d".to_owned()), Some("metadata.name=x".to_owned()));
        assert_eq!((joined.labels.as_deref(), joined.fields.as_deref()), (Some("a=b,c=d"), Some("metadata.name=x")));
        assert_eq!(joined.identity().as_deref(), Some("a=b,c=d;metadata.name=x"));
        assert_eq!(Selectors::default().identity(), None);
    }
}
