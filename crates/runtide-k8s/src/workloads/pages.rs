//! Listings: consistent, page by page.

use futures_util::future::join_all;
use runtide_core::{Completeness, ErrorKind, Failure, Result};

use super::{decode, kind::WorkloadKind, workload::Workload};
use crate::{
    client::Client,
    list::{namespaces, of_namespace},
    wire::Page,
};

const LIST: &str = "k8s.workloads.list";

/// Objects of one page.
const PAGE: &str = "500";
/// How often a listing is begun again because the server no longer knows its next page (trap K6).
const RESTARTS: usize = 3;
/// Most pages of one listing: a server that repeats its pages must not keep us indefinitely.
const PAGES: usize = 10_000;

/// The workloads of one kind, and if all could be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkloadListing {
    /// The workloads, by namespace and name.
    pub workloads: Vec<Workload>,
    /// Completeness of the list.
    pub completeness: Completeness,
}

pub(super) async fn list(client: &Client, kind: WorkloadKind, selector: Option<&str>) -> Result<WorkloadListing> {
    client.check_open(LIST)?;
    let all = namespaces(client);
    let answers = join_all(all.iter().map(|namespace| of_one(client, kind, namespace.as_deref(), selector))).await;
    let (mut workloads, mut failures, mut first, mut is_any) = (Vec::new(), Vec::new(), None, false);
    for (namespace, answer) in all.iter().zip(answers) {
        match answer {
            Ok((listed, undecodable)) => {
                is_any = true;
                workloads.extend(listed);
                failures.extend(undecodable);
            }
            Err(error) => {
                failures.push(Failure::from(&of_namespace(&error, namespace)));
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first.filter(|_| !is_any) {
        return Err(error);
    }
    workloads.sort_by(|one, other| one.reference.cmp(&other.reference));
    let completeness = if failures.is_empty() { Completeness::Complete } else { Completeness::Partial(failures) };
    Ok(WorkloadListing { workloads, completeness })
}

type Listed = (Vec<Workload>, Vec<Failure>);

async fn of_one(
    client: &Client,
    kind: WorkloadKind,
    namespace: Option<&str>,
    selector: Option<&str>,
) -> Result<Listed> {
    for _ in 0..=RESTARTS {
        match pages(client, kind, namespace, selector).await {
            // The server has compacted the version that the pages are of.
            Err(error) if error.kind() == ErrorKind::Expired => {}
            done => return done,
        }
    }
    let message = format!("the server lost its place in the listing {} times", RESTARTS + 1);
    Err(client.site(LIST).error(ErrorKind::Unavailable, message))
}

async fn pages(client: &Client, kind: WorkloadKind, namespace: Option<&str>, selector: Option<&str>) -> Result<Listed> {
    let site = client.site(LIST);
    let (mut listed, mut next) = (Listed::default(), None::<String>);
    for _ in 0..PAGES {
        let mut query = vec![("limit", PAGE)];
        query.extend(selector.filter(|text| !text.is_empty()).map(|text| ("labelSelector", text)));
        query.extend(next.as_deref().map(|next| ("continue", next)));
        let (_, body) = client.get(LIST, &kind.path(namespace, &query)).await?;
        let page: Page<'_> = serde_json::from_slice(&body).map_err(|error| site.undecodable(error))?;
        for item in &page.items {
            match decode(client, LIST, item.get().as_bytes()) {
                Ok(object) => listed.0.push(Workload::of(kind, &object)),
                Err(error) => listed.1.push(Failure::from(&error.with_context("kind", kind))),
            }
        }
        next = page.metadata.next.map(std::borrow::Cow::into_owned).filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(listed);
        }
    }
    Err(site.error(ErrorKind::Protocol, format!("the listing has more than {PAGES} pages")))
}
