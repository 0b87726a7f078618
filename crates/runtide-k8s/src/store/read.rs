//! Reads of objects: one, with the version of the look; pages at one version; and the reports after a version.

use std::{future::poll_fn, sync::Arc, time::Duration};

use runtide_core::{
    Error, ErrorKind, LabelMatch, Result,
    store::{ResourceRef, Selector},
};
use serde_json::value::RawValue;

use super::{Shared, catalog::Kind, object::Object};
use crate::{
    lines::{Line, Lines},
    list::with_query,
    status::{Status, of_transport},
    wire::{Event, Page},
};

/// Objects of one page.
pub(super) const PAGE: u32 = 500;

/// A selector that no object matches.
const NOTHING: &str = "runtide,!runtide";

/// The kind of some objects, and the namespace that they are in; `None`: all, or the kind has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: Option<String>,
}

impl Scope {
    /// `apps/Deployment/shop/`, by which scopes are ordered.
    pub(super) fn key(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}{namespace}/", self.kind.prefix()),
            None => self.kind.prefix(),
        }
    }
}

/// Conditions that the server checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    labels: Option<String>,
    fields: Option<String>,
}

impl Query {
    pub(super) fn of(selector: &Selector) -> Self {
        let labels: Vec<String> = selector.labels.iter().filter_map(condition).collect();
        Self {
            labels: (!labels.is_empty()).then(|| labels.join(",")),
            fields: selector.name.as_ref().map(|name| format!("metadata.name={}", escaped(name))),
        }
    }

    pub(super) fn named(name: &str) -> Self {
        Self { labels: None, fields: Some(format!("metadata.name={}", escaped(name))) }
    }

    fn with<'a>(&'a self, query: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let own = [("labelSelector", self.labels.as_deref()), ("fieldSelector", self.fields.as_deref())];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
        query.iter().copied().chain(own).collect()
    }
}

/// The value of a field selector.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

/// True for what the server takes for a label's value, or the part of its key after the slash.
fn is_label(text: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_key(text: &str) -> bool {
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(crate::config::is_label);
    match text.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_label(name),
        None => is_label(text),
    }
}

/// A condition in the server's syntax. One that no object of a server can meet selects nothing; one that each meets is left out.
fn condition(wanted: &LabelMatch) -> Option<String> {
    match wanted {
        LabelMatch::Has(key) if is_key(key) => Some(key.clone()),
        LabelMatch::Lacks(key) => is_key(key).then(|| format!("!{key}")),
        LabelMatch::Is { key, value } if is_key(key) && (value.is_empty() || is_label(value)) => {
            Some(format!("{key}={value}"))
        }
        _ => Some(NOTHING.to_owned()),
    }
}

/// The version of a listing.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// The last one.
    Latest,
    Exactly(u64),
}

/// A page of one scope.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) objects: Vec<Object>,
    pub(super) version: u64,
    pub(super) next: Option<String>,
    /// Number of objects that follow, if the server says it.
    pub(super) rest: Option<u64>,
}

/// One object, or its absence, at a version.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) object: Option<Object>,
    pub(super) version: u64,
}

/// A report about one object.
#[derive(Debug)]
pub(super) enum Report {
    /// The object; `true` if it is new to the watcher.
    Shown(Object, bool),
    Gone(Object),
}

impl Shared {
    /// The kind of an object, which must agree with its reference about a namespace.
    pub(super) async fn kind(
        &self,
        operation: &'static str,
        object: &ResourceRef,
        version: Option<&str>,
    ) -> Result<Arc<Kind>> {
        let kind = self.catalog.find(&self.client, operation, object, version).await?;
        let message = match (kind.is_namespaced, object.namespace()) {
            (true, None) => format!("a {} is in a namespace, and its reference names none", kind.kind),
            (false, Some(_)) => format!("a {} is in no namespace, and its reference names one", kind.kind),
            _ => return Ok(kind),
        };
        Err(self.client.site(operation).error(ErrorKind::InvalidInput, message).with_context("resource", object))
    }

    /// Reads one object: never from a cache, which may be older than what was seen before (trap K30).
    pub(super) async fn look(&self, operation: &'static str, kind: &Kind, object: &ResourceRef) -> Result<Look> {
        let query = Query::named(object.name());
        let path = with_query(kind.path(object.namespace()), &query.with(&[]));
        let listed = self.page(operation, kind, &path).await.map_err(|error| error.with_context("resource", object))?;
        let found = listed.objects.into_iter().find(|found| found.reference == *object);
        Ok(Look { object: found, version: listed.version })
    }

    /// One page of a scope.
    pub(super) async fn list_page(
        &self,
        operation: &'static str,
        scope: &Scope,
        query: &Query,
        at: At,
        limit: u32,
        next: Option<&str>,
    ) -> Result<Listed> {
        let (limit, version) =
            (limit.to_string(), if let At::Exactly(at) = at { at.to_string() } else { String::new() });
        let mut parts = vec![("limit", limit.as_str())];
        match (next, at) {
            (Some(next), _) => parts.push(("continue", next)),
            (None, At::Exactly(_)) => {
                parts.extend([("resourceVersion", version.as_str()), ("resourceVersionMatch", "Exact")]);
            }
            (None, At::Latest) => {}
        }
        let path = with_query(scope.kind.path(scope.namespace.as_deref()), &query.with(&parts));
        self.page(operation, &scope.kind, &path).await
    }

    async fn page(&self, operation: &'static str, kind: &Kind, path: &str) -> Result<Listed> {
        let site = self.client.site(operation);
        let asked = self.client.get(operation, path).await.inspect_err(|error| {
            // A collection that is not there is a kind that is no longer served.
            if error.kind() == ErrorKind::NotFound {
                self.catalog.forget(&kind.group);
            }
        });
        let (_, body) = asked.map_err(|error| error.with_context("kind", kind))?;
        let page: Page<'_> = serde_json::from_slice(&body).map_err(|error| site.undecodable(error))?;
        let version = page.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let version = version.ok_or_else(|| {
            let message = "the listing has no resourceVersion that is a number";
            site.error(ErrorKind::Protocol, message).with_context("kind", kind)
        })?;
        let objects = page.items.iter().filter_map(|item| readable(kind, item)).collect();
        let next = page.metadata.next.map(std::borrow::Cow::into_owned).filter(|token| !token.is_empty());
        Ok(Listed { objects, version, next, rest: page.metadata.remaining_item_count })
    }

    /// Opens a watch after a version, which the server ends after `window`.
    pub(super) async fn open_watch(
        &self,
        operation: &'static str,
        scope: &Scope,
        query: &Query,
        after: u64,
        window: Duration,
    ) -> Result<Lines> {
        let (version, seconds) = (after.to_string(), window.as_secs().max(1).to_string());
        let parts = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
            ("resourceVersion", version.as_str()),
        ];
        let path = with_query(scope.kind.path(scope.namespace.as_deref()), &query.with(&parts));
        let opened = self.client.stream(operation, &path).await.inspect_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.catalog.forget(&scope.kind.group);
            }
        });
        let (_, body) = opened.map_err(|error| error.with_context("kind", &scope.kind))?;
        Ok(Lines::new(body))
    }

    /// The first report about an object after a version that answers; `None`: there is none within `window`.
    ///
    /// # Errors
    /// `Expired` if the server's history does not reach back to the version.
    pub(super) async fn report_after<T>(
        &self,
        operation: &'static str,
        kind: &Arc<Kind>,
        object: &ResourceRef,
        after: u64,
        window: Duration,
        mut answer: impl FnMut(Report) -> Option<T>,
    ) -> Result<Option<T>> {
        let site = self.client.site(operation);
        let scope = Scope { kind: Arc::clone(kind), namespace: object.namespace().map(str::to_owned) };
        let query = Query::named(object.name());
        let mut lines = self.open_watch(operation, &scope, &query, after, window).await?;
        let limit = window + self.client.config().deadline;
        site.within(limit, async {
            loop {
                let line = poll_fn(|cx| lines.poll_line(cx)).await.map_err(|error| of_transport(site, error))?;
                let Line::Whole(line) = line else { return Ok(None) };
                match self.reported(operation, kind, &line)? {
                    Reported::Object(report) => {
                        if let Some(answer) = answer(report) {
                            return Ok(Some(answer));
                        }
                    }
                    Reported::Position(_) | Reported::Unnamed(_) => {}
                }
            }
        })
        .await
    }

    /// Reads one line of a watch.
    ///
    /// # Errors
    /// The error with which the server ended it.
    pub(super) fn reported(&self, operation: &'static str, kind: &Kind, line: &[u8]) -> Result<Reported> {
        let site = self.client.site(operation);
        let event: Event<'_> = serde_json::from_slice(line).map_err(|error| site.undecodable(error))?;
        let is_new = match &*event.kind {
            "ADDED" => Some(true),
            "MODIFIED" => Some(false),
            "DELETED" => None,
            "BOOKMARK" => {
                return match version_of(event.object) {
                    Some(version) => Ok(Reported::Position(version)),
                    None => Err(site.error(ErrorKind::Protocol, "a bookmark has no resourceVersion that is a number")),
                };
            }
            _ => {
                let status: Status = serde_json::from_str(event.object.get()).unwrap_or_default();
                return Err(status.into_error(site).with_context("kind", kind));
            }
        };
        Ok(match (readable(kind, event.object), is_new) {
            (Some(object), Some(is_new)) => Reported::Object(Report::Shown(object, is_new)),
            (Some(object), None) => Reported::Object(Report::Gone(object)),
            (None, _) => Reported::Unnamed(version_of(event.object)),
        })
    }
}

/// The content of one line of a watch.
#[derive(Debug)]
pub(super) enum Reported {
    Object(Report),
    Position(u64),
    /// A change of what no reference names, and its version.
    Unnamed(Option<u64>),
}

/// The object, unless no reference can name it: such a one is in no store.
fn readable(kind: &Kind, item: &RawValue) -> Option<Object> {
    match Object::of(kind, item.get().as_bytes()) {
        Ok(object) => Some(object),
        Err(why) => {
            let shown: String = item.get().chars().take(200).collect();
            tracing::warn!(%kind, why, object = shown, "an object that no reference can name is left out");
            None
        }
    }
}

/// The version of an object that may be unreadable otherwise.
fn version_of(object: &RawValue) -> Option<u64> {
    let named: crate::wire::Named = serde_json::from_str(object.get()).ok()?;
    named.metadata.resource_version.as_str()?.parse().ok()
}

/// True for an error after which the same read may work.
pub(super) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_on_labels_are_the_servers() {
        for (wanted, query) in [
            (LabelMatch::is("app.kubernetes.io/name", "web"), Some("app.kubernetes.io/name=web")),
            (LabelMatch::is("tier", ""), Some("tier=")),
            (LabelMatch::Has("tier".to_owned()), Some("tier")),
            (LabelMatch::Lacks("tier".to_owned()), Some("!tier")),
            (LabelMatch::Lacks("ti er".to_owned()), None),
            (LabelMatch::Has("a,b".to_owned()), Some(NOTHING)),
            (LabelMatch::Has("/b".to_owned()), Some(NOTHING)),
            (LabelMatch::Has("A.b/c".to_owned()), Some(NOTHING)),
            (LabelMatch::is("a", "b,c=d"), Some(NOTHING)),
            (LabelMatch::is("a", "x".repeat(64)), Some(NOTHING)),
        ] {
            assert_eq!(condition(&wanted).as_deref(), query, "{wanted:?}");
        }
        let selector =
            Selector::default().with_label(LabelMatch::is("a", "b")).with_label(LabelMatch::Has("c".to_owned()));
        assert_eq!(
            Query::of(&selector.with_name("n\\m")).with(&[]),
            [("labelSelector", "a=b,c"), ("fieldSelector", "metadata.name=n\\\\m")]
        );
    }
}
