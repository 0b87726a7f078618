//! Listings: the kinds one after the other, all at the version of the first.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Digest, Page, PageOptions, PageToken, Resource, ResourceFormat, Revision, Selector},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    read::{At, PAGE, Query, Scope},
};
use crate::config::Namespaces;

pub(super) const LIST: &str = "k8s.store.list";

/// Most requests of one listing: a server that repeats its pages must not keep us indefinitely.
const MOST: usize = 100_000;

/// The position after a page.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    /// Hash of the store's address and the selector.
    #[serde(rename = "s")]
    of: String,
    #[serde(rename = "v")]
    version: u64,
    /// The scope that is read, and where in it.
    #[serde(rename = "k")]
    scope: String,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The last resource, in a form that has another order than its objects.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl Shared {
    /// The scopes that have to be asked for the selected resources, in the order of the references.
    pub(super) async fn scopes(&self, operation: &'static str, selector: &Selector) -> Result<Vec<Scope>> {
        let kinds = self.catalog.select(&self.client, operation, selector, &self.options.kinds).await?;
        let mut scopes = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let wanted = selector.namespace.as_deref();
            let mut put = |namespace: Option<&str>| {
                scopes.push(Scope { kind: Arc::clone(&kind), namespace: namespace.map(str::to_owned) });
            };
            match (kind.is_namespaced, wanted, &self.client.config().namespaces) {
                // A namespace, for a kind that has none; or none, for a kind that is in one.
                (true, Some(""), _) => {}
                (false, Some(namespace), _) if !namespace.is_empty() => {}
                (true, Some(namespace), _) => put(Some(namespace)),
                (true, None, Namespaces::Only(names)) => names.iter().for_each(|name| put(Some(name))),
                (true | false, None, Namespaces::All) | (false, Some(_), _) => put(None),
                // The right to see some namespaces is none to see what is in no namespace.
                (false, None, Namespaces::Only(_)) => {
                    if selector.kind.is_some() {
                        put(None);
                    }
                }
            }
        }
        scopes.sort_by_key(Scope::key);
        Ok(scopes)
    }

    /// The store's present version, as the first scope shows it.
    pub(super) async fn present(&self, operation: &'static str, scopes: &[Scope], query: &Query) -> Result<u64> {
        if let Some(scope) = scopes.first() {
            return Ok(self.list_page(operation, scope, query, At::Latest, 1, None).await?.version);
        }
        // Every server has namespaces, and shows the version with them.
        let namespace = runtide_core::store::ResourceRef::new("", "Namespace", None, "default")?;
        let kind = self.catalog.find(&self.client, operation, &namespace, None).await?;
        Ok(self.look(operation, &kind, &namespace).await?.version)
    }

    fn fingerprint(&self, selector: &Selector) -> String {
        let text = format!("{}\n{selector:?}", self.name);
        Digest::of(text.as_bytes()).to_string().chars().take(16).collect()
    }

    pub(super) async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        self.client.check_open(LIST)?;
        let token = options.after.as_ref().map(|token| self.token(selector, token)).transpose()?;
        let narrowed = self.form.narrow(selector);
        let (scopes, query) = (self.scopes(LIST, &narrowed).await?, Query::of(&narrowed));
        let limit = options.limit.map_or(PAGE, std::num::NonZeroU32::get);
        if !self.form.is_ordered() {
            return self.list_sorted(selector, &scopes, &query, &options, token, limit).await;
        }
        let mut version = token.as_ref().map(|token| token.version);
        let (first, mut next) = token.map_or_else(|| (String::new(), None), |token| (token.scope, token.next));
        let mut items = Vec::new();
        let rest: Vec<_> = scopes.into_iter().filter(|scope| scope.key() >= first).collect();
        for (n, scope) in rest.iter().enumerate() {
            if scope.key() != first {
                next = None;
            }
            for _ in 0..MOST {
                let left = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
                if left == 0 {
                    let token = self.issue(selector, version, scope, next, None)?;
                    return Ok(Page::new(items, Revision(version.unwrap_or(0)), Some(token)));
                }
                let at = version.map_or(At::Latest, At::Exactly);
                let size = left.min(PAGE);
                let listed = self.list_page(LIST, scope, &query, at, size, next.as_deref()).await?;
                version.get_or_insert(listed.version);
                items.extend(self.selected(selector, listed.objects, options.format));
                next = listed.next;
                if next.is_none() {
                    break;
                }
            }
            let is_full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
            if let Some(following) = rest.get(n + 1).filter(|_| is_full) {
                let token = self.issue(selector, version, following, None, None)?;
                return Ok(Page::new(items, Revision(version.unwrap_or(0)), Some(token)));
            }
        }
        let version = match version {
            Some(version) => version,
            None => self.present(LIST, &[], &query).await?,
        };
        Ok(Page::new(items, Revision(version), None))
    }

    fn selected(
        &self,
        selector: &Selector,
        objects: Vec<super::object::Object>,
        format: Option<ResourceFormat>,
    ) -> Vec<Arc<Resource>> {
        let resources = objects.into_iter().filter_map(|object| object.resource(&*self.form));
        resources.filter(|one| selector.names(&one.reference)).map(|one| one.shown(format)).collect()
    }

    /// A page of a form whose objects have another order: of the whole listing, at one version.
    async fn list_sorted(
        &self,
        selector: &Selector,
        scopes: &[Scope],
        query: &Query,
        options: &PageOptions,
        token: Option<Token>,
        limit: u32,
    ) -> Result<Page> {
        let (at, after) = match token {
            Some(token) => (At::Exactly(token.version), token.after),
            None => (At::Latest, None),
        };
        let (version, mut items) = self.everything(LIST, selector, scopes, query, at).await?;
        items.sort_by(|one, other| one.reference.cmp(&other.reference));
        let begin = after.map_or(0, |after| items.partition_point(|one| one.reference.as_str() <= after.as_str()));
        let mut page: Vec<_> = items.split_off(begin.min(items.len()));
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = page.len() <= most;
        page.truncate(most);
        let next = match (is_last, page.last(), scopes.first()) {
            (false, Some(last), Some(scope)) => {
                let after = Some(last.reference.as_str().to_owned());
                Some(self.issue(selector, Some(version), scope, None, after)?)
            }
            _ => None,
        };
        let page = page.into_iter().map(|one| one.shown(options.format)).collect();
        Ok(Page::new(page, Revision(version), next))
    }

    /// All selected resources at one version.
    pub(super) async fn everything(
        &self,
        operation: &'static str,
        selector: &Selector,
        scopes: &[Scope],
        query: &Query,
        at: At,
    ) -> Result<(u64, Vec<Arc<Resource>>)> {
        let mut version = if let At::Exactly(version) = at { Some(version) } else { None };
        let mut items = Vec::new();
        for scope in scopes {
            let mut next = None;
            for _ in 0..MOST {
                let at = version.map_or(At::Latest, At::Exactly);
                let listed = self.list_page(operation, scope, query, at, PAGE, next.as_deref()).await?;
                version.get_or_insert(listed.version);
                items.extend(self.selected(selector, listed.objects, None));
                next = listed.next;
                if next.is_none() {
                    break;
                }
            }
        }
        let version = match version {
            Some(version) => version,
            None => self.present(operation, &[], query).await?,
        };
        Ok((version, items))
    }

    fn issue(
        &self,
        selector: &Selector,
        version: Option<u64>,
        scope: &Scope,
        next: Option<String>,
        after: Option<String>,
    ) -> Result<PageToken> {
        let of = self.fingerprint(selector);
        let token = Token { of, version: version.unwrap_or(0), scope: scope.key(), next, after };
        let text = serde_json::to_string(&token).map_err(|error| self.client.site(LIST).undecodable(error))?;
        Ok(PageToken::new(text))
    }

    fn token(&self, selector: &Selector, token: &PageToken) -> Result<Token> {
        let read = serde_json::from_str::<Token>(token.as_str()).ok();
        read.filter(|token| token.of == self.fingerprint(selector)).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, LIST, "this store issued no such page token for this selector")
                .with_context("store", &self.name)
        })
    }
}
