//! The laws' tests, by subject.

pub(super) mod durable;
pub(super) mod expired;
pub(super) mod linear;
pub(super) mod order;
pub(super) mod snapshot;
pub(super) mod write;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind,
    store::{
        Applied, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision, Selector,
        StoreBackend, StoreStats,
    },
};

use super::{StoreHarness, StoreLaw};
use crate::{Done, Obstacle, Violation, wal::Random};

pub(super) type Broken = Violation<StoreLaw>;
pub(super) type Held<T = ()> = Result<T, Broken>;

/// The kind of the resource that a harness may write to when it makes a position expire.
pub const EXPIRY: &str = "Expiry";

/// The group of the laws' resources; their kind is `KIND`.
const GROUP: &str = "conformance.test";
const KIND: &str = "Thing";

/// Writes `changes` changes to a resource of the kind [`EXPIRY`]: a store that keeps a fixed number of changes then forgets the
/// earlier ones.
///
/// # Errors
/// The store's error, as [`Obstacle::Failed`].
pub async fn write_past(store: &dyn StoreBackend, changes: u64) -> Done<()> {
    let reference = ResourceRef::new(GROUP, EXPIRY, None, "past").map_err(Obstacle::failed)?;
    for n in 0..changes {
        let body = format!("{{\"past\": {n}}}");
        store.apply(&reference, Document::json(body), Precondition::None).await.map_err(Obstacle::failed)?;
    }
    // The next run begins with a body that differs from the last one of this run.
    store.delete(&reference, Precondition::None).await.map_err(Obstacle::failed)?;
    Ok(())
}

/// The nth resource of the laws.
pub(super) fn reference(n: usize) -> ResourceRef {
    named(&format!("n{n:03}"))
}

fn named(name: &str) -> ResourceRef {
    // The laws' names are valid; if they were not, every law would fail.
    refer(GROUP, KIND, Some("laws"), name).unwrap_or_else(|_| unreachable!("the laws' names are allowed"))
}

fn refer(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> runtide_core::Result<ResourceRef> {
    ResourceRef::new(group, kind, namespace, name)
}

/// A body that no other write has, with a label that every second one has.
pub(super) fn document(writer: usize, n: usize) -> Document {
    let colour = if (writer + n).is_multiple_of(2) { "red" } else { "blue" };
    Document::json(format!(
        r#"{{"kind":"Thing","metadata":{{"labels":{{"colour":"{colour}"}}}},"writer":{writer},"n":{n}}}"#
    ))
}

/// A law under test on a store.
#[derive(Clone, Copy)]
struct Tried<'a> {
    law: StoreLaw,
    h: &'a dyn StoreHarness,
}

impl Tried<'_> {
    fn hand(self) -> Hand {
        Hand { law: self.law, store: self.h.store(), timeout: self.h.tuning().timeout }
    }

    /// The hand of another client.
    async fn other_hand(self) -> Held<Hand> {
        let store = done("make another client", self.h.another().await)?;
        Ok(Hand { store, ..self.hand() })
    }

    fn pick<T>(self, full: T, brief: T) -> T {
        self.h.tuning().effort.pick(full, brief)
    }
}

/// Yields every second time: in a process of few threads, the clients would otherwise run one after the other.
pub(super) async fn give_way(random: &mut Random) {
    if random.below(2) == 0 {
        tokio::task::yield_now().await;
    }
}

/// The result of a required step of the harness; its failure is the harness's, not the store's.
fn done<T>(doing: &str, done: Done<T>) -> Held<T> {
    done.map_err(|obstacle| Violation::harness(doing, obstacle))
}

/// The result of an optional step of the harness; `None`, with the reason in `without`, if it is unsupported.
fn if_any<T>(doing: &str, given: Done<T>, without: &mut Vec<String>) -> Held<Option<T>> {
    match given {
        Err(Obstacle::Unsupported(reason)) => {
            without.push(reason);
            Ok(None)
        }
        given => done(doing, given).map(Some),
    }
}

/// A client of the store under test. Every call must work, unless its name says otherwise, and end within the timeout.
#[derive(Clone)]
pub(super) struct Hand {
    law: StoreLaw,
    pub(in crate::store) store: Arc<dyn StoreBackend>,
    timeout: Duration,
}

impl Hand {
    pub(in crate::store) fn broken(&self, expected: impl Into<String>, found: impl fmt::Display) -> Broken {
        Violation::of(self.law, expected, found.to_string())
    }

    pub(in crate::store) fn ensure(&self, holds: bool, expected: impl Into<String>, found: impl fmt::Display) -> Held {
        if holds { Ok(()) } else { Err(self.broken(expected, found)) }
    }

    pub(in crate::store) fn equal<T: PartialEq + fmt::Debug>(&self, what: &str, found: &T, expected: &T) -> Held {
        self.ensure(found == expected, format!("{what}: {expected:?}"), format!("{found:?}"))
    }

    /// The result of a call, which must end within the timeout.
    pub(in crate::store) async fn ends<T>(&self, doing: &str, call: impl Future<Output = T>) -> Held<T> {
        let ended = tokio::time::timeout(self.timeout, call).await;
        ended.map_err(|_| self.broken(format!("to {doing}"), format!("no end within {:?}", self.timeout)))
    }

    pub(in crate::store) async fn works<T>(
        &self,
        doing: &str,
        call: impl Future<Output = runtide_core::Result<T>>,
    ) -> Held<T> {
        self.ends(doing, call).await?.map_err(|error| self.broken(format!("to {doing}"), error))
    }

    /// The error of a call that must be refused with this kind.
    async fn refused<T: fmt::Debug>(
        &self,
        doing: &str,
        kind: ErrorKind,
        call: impl Future<Output = runtide_core::Result<T>>,
    ) -> Held<Error> {
        match self.ends(doing, call).await? {
            Err(error) if error.kind() == kind => Ok(error),
            Err(error) => Err(self.broken(format!("{kind:?} for: {doing}"), error)),
            Ok(done) => Err(self.broken(format!("{kind:?} for: {doing}"), format!("success, {done:?}"))),
        }
    }

    pub(in crate::store) async fn put(&self, reference: &ResourceRef, document: &Document) -> Held<Applied> {
        self.apply(reference, document, Precondition::None).await
    }

    pub(in crate::store) async fn apply(
        &self,
        reference: &ResourceRef,
        document: &Document,
        precondition: Precondition,
    ) -> Held<Applied> {
        let doing = format!("apply {reference}");
        self.works(&doing, self.store.apply(reference, document.clone(), precondition)).await
    }

    pub(in crate::store) async fn delete(
        &self,
        reference: &ResourceRef,
        precondition: Precondition,
    ) -> Held<Option<Revision>> {
        self.works(&format!("delete {reference}"), self.store.delete(reference, precondition)).await
    }

    pub(in crate::store) async fn get(&self, reference: &ResourceRef) -> Held<Option<Arc<Resource>>> {
        self.works(&format!("get {reference}"), self.store.get(reference, None)).await
    }

    /// Asserts the stored state of a resource.
    async fn shows(&self, reference: &ResourceRef, document: Option<&Document>, revision: Revision) -> Held {
        let found = self.get(reference).await?;
        let expected = document.map(|document| Resource::new(reference.clone(), document.clone(), revision));
        let same = found.as_deref() == expected.as_ref();
        self.ensure(same, format!("{reference} to be {}", describe(expected.as_ref())), describe(found.as_deref()))
    }

    async fn stats(&self) -> Held<StoreStats> {
        self.works("count", self.store.stats()).await
    }

    /// All pages of a listing, and their revision.
    async fn list(&self, selector: &Selector, limit: u32) -> Held<(Revision, Vec<Arc<Resource>>)> {
        self.listed(selector, limit, None).await?.map_err(|error| self.broken("to list", error))
    }

    /// All pages of a listing, or the error that ended it.
    async fn listed(
        &self,
        selector: &Selector,
        limit: u32,
        format: Option<ResourceFormat>,
    ) -> Held<runtide_core::Result<(Revision, Vec<Arc<Resource>>)>> {
        let mut options = PageOptions::default().with_limit(std::num::NonZeroU32::new(limit)).with_format(format);
        let mut items: Vec<Arc<Resource>> = Vec::new();
        let mut revision = None;
        loop {
            let page = match self.ends("list", self.store.list(selector, options.clone())).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let Page { items: more, revision: at, next, .. } = page;
            let first = *revision.get_or_insert(at);
            self.ensure(at == first, format!("all pages to be of revision {first}"), at)?;
            let few = limit == 0 || more.len() <= limit as usize;
            self.ensure(few, format!("at most {limit} resources in a page"), more.len())?;
            items.extend(more);
            match next {
                Some(next) => {
                    options = options.with_after(Some(next));
                    tokio::task::yield_now().await;
                }
                None => break,
            }
        }
        let ordered = items.windows(2).all(|pair| matches!(pair, [a, b] if a.reference < b.reference));
        self.ensure(ordered, "a listing in the order of the references, each once", listed_names(&items))?;
        Ok(Ok((revision.unwrap_or_default(), items)))
    }
}

fn listed_names(items: &[Arc<Resource>]) -> String {
    items.iter().map(|item| item.reference.as_str()).collect::<Vec<_>>().join(", ")
}

/// A resource on one line.
pub(super) fn describe(resource: Option<&Resource>) -> String {
    resource.map_or_else(
        || "absent".to_owned(),
        |found| format!("{} at revision {}: {}", found.reference, found.revision, body(&found.document)),
    )
}

/// A body on one line, cut after 96 bytes.
fn body(document: &Document) -> String {
    let bytes = document.bytes.get(..document.bytes.len().min(96)).unwrap_or_default();
    format!("{} '{}' ({} bytes)", document.format, bytes.escape_ascii(), document.bytes.len())
}
