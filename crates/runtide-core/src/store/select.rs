//! Selection of resources, and pages of a listing.

use std::{num::NonZeroU32, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Resource, ResourceFormat, ResourceRef, Revision};
use crate::{
    labels::LabelMatch,
    names::{names, setters},
};

/// Selection of resources. All given parts must match.
///
/// ```
/// use runtide_core::{LabelMatch, store::Selector};
///
/// let shop = Selector::default().with_kind("Deployment").with_namespace("shop");
/// let fronts = shop.clone().with_label(LabelMatch::is("tier", "front"));
/// # assert_ne!(shop, fronts);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Selector {
    /// This group; empty for the core group.
    pub group: Option<String>,
    /// This kind.
    pub kind: Option<String>,
    /// This namespace; empty for resources without one.
    pub namespace: Option<String>,
    /// This name.
    pub name: Option<String>,
    /// All of these conditions. A resource whose labels are unknown meets none of them.
    pub labels: Vec<LabelMatch>,
}

impl Selector {
    /// Selects every resource.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects this resource alone.
    pub fn only(reference: &ResourceRef) -> Self {
        Self {
            group: Some(reference.group().to_owned()),
            kind: Some(reference.kind().to_owned()),
            namespace: Some(reference.namespace().unwrap_or_default().to_owned()),
            name: Some(reference.name().to_owned()),
            labels: Vec::new(),
        }
    }

    /// This group; empty for the core group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// This kind.
    #[must_use]
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// This namespace; empty for resources without one.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// This name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// This condition too.
    #[must_use]
    pub fn with_label(mut self, condition: LabelMatch) -> Self {
        self.labels.push(condition);
        self
    }

    /// `true` if a reference has all given parts; labels are not compared.
    pub fn names(&self, reference: &ResourceRef) -> bool {
        fn is(wanted: Option<&String>, part: &str) -> bool {
            wanted.is_none_or(|wanted| wanted == part)
        }
        is(self.name.as_ref(), reference.name())
            && is(self.namespace.as_ref(), reference.namespace().unwrap_or_default())
            && is(self.kind.as_ref(), reference.kind())
            && is(self.group.as_ref(), reference.group())
    }

    /// `true` if a resource is selected.
    pub fn matches(&self, resource: &Resource) -> bool {
        self.names(&resource.reference)
            && (self.labels.is_empty()
                || resource.labels().is_some_and(|labels| self.labels.iter().all(|one| one.matches(labels))))
    }
}

names! {
    /// Position at which a listing continues, at the revision of its first page. Opaque: only its own store understands it.
    PageToken;
}

/// Format and pages of a listing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PageOptions {
    /// The bodies in this format; as they were written if `None`.
    pub format: Option<ResourceFormat>,
    /// Most resources in one page; the store's own size if `None`.
    pub limit: Option<NonZeroU32>,
    /// Go on after an earlier page.
    pub after: Option<PageToken>,
}

setters!(PageOptions {
    /// The bodies in this format.
    with_format: format: Option<ResourceFormat>;
    /// Most resources in one page.
    with_limit: limit: Option<NonZeroU32>;
    /// Go on after an earlier page.
    with_after: after: Option<PageToken>;
});

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The resources, in the order of their references.
    pub items: Vec<Arc<Resource>>,
    /// All pages show the store at this revision: a watch goes on from here, `Since::After`.
    pub revision: Revision,
    /// Token of the next page; `None` after the last. A page may have fewer items than requested, or none, and not be the last.
    pub next: Option<PageToken>,
}

impl Page {
    /// A page, for those who implement a store.
    pub fn new(items: Vec<Arc<Resource>>, revision: Revision, next: Option<PageToken>) -> Self {
        Self { items, revision, next }
    }
}
