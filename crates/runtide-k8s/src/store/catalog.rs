//! Kinds that the server serves, as it says: asked for when they are needed, kept, and asked for again when one is not there.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
};

use runtide_core::{
    ErrorKind, Result,
    backend::lock,
    store::{ResourceRef, Selector},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::options::Kinds;
use crate::{client::Client, list::encoded};

const DISCOVER: &str = "k8s.store.discover";

/// Kinds that two groups serve: the same objects, of which one group's are taken (trap K24).
const TWICE: [(&str, &str); 9] = [
    ("extensions", "Deployment"),
    ("extensions", "DaemonSet"),
    ("extensions", "ReplicaSet"),
    ("extensions", "Ingress"),
    ("extensions", "NetworkPolicy"),
    ("extensions", "PodSecurityPolicy"),
    ("extensions", "ReplicationController"),
    ("", "Event"),
    ("events.k8s.io", "Event"),
];

/// A kind of objects, in one version of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the word of the API, beside its group and version")]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    /// Name in paths.
    plural: String,
    pub(super) is_namespaced: bool,
    verbs: Vec<String>,
}

impl Kind {
    /// `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `apps/Deployment/`: common beginning of the references of its objects, by which kinds are ordered.
    pub(super) fn prefix(&self) -> String {
        format!("{}/{}/", self.group, self.kind)
    }

    /// Path of its objects in a namespace, or in all.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => {
                format!("{root}/{}/namespaces/{}/{}", self.api_version(), plain(namespace), self.plural)
            }
            None => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }

    /// Path of one object.
    pub(super) fn path_of(&self, object: &ResourceRef) -> String {
        format!("{}/{}", self.path(object.namespace()), plain(object.name()))
    }

    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// True if it can be kept in a store.
    fn is_storable(&self) -> bool {
        self.can("list") && self.can("watch")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, self.api_version())
    }
}

/// A part of a path, with all but plain characters encoded.
fn plain(text: &str) -> String {
    encoded(text).replace("%2D", "-").replace("%2E", ".")
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    name: String,
    #[serde(default)]
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Clone, Deserialize)]
struct Version {
    version: String,
}

impl Group {
    /// Its versions, the preferred one first.
    fn order(self) -> Vec<String> {
        let first = self.preferred_version.map(|one| one.version);
        let rest = self.versions.into_iter().map(|one| one.version).filter(|one| Some(one) != first.as_ref());
        first.iter().cloned().chain(rest).collect()
    }
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Debug, Default)]
struct Known {
    /// Versions of each group, the preferred one first.
    versions: HashMap<String, Arc<Vec<String>>>,
    /// Kinds of each version of a group.
    kinds: HashMap<(String, String), Arc<Vec<Arc<Kind>>>>,
    /// All groups, if they were asked for.
    groups: Option<Arc<Vec<String>>>,
}

/// The groups, versions and kinds that the server said it serves.
#[derive(Debug, Default)]
pub(super) struct Catalog(Mutex<Known>);

impl Catalog {
    /// Forgets a group, which may have changed.
    pub(super) fn forget(&self, group: &str) {
        let mut known = lock(&self.0);
        known.versions.remove(group);
        known.kinds.retain(|(of, _), _| of != group);
        known.groups = None;
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *lock(&self.0) = Known::default();
    }

    async fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>> {
        match client.get(DISCOVER, path).await {
            Ok((_, body)) => {
                serde_json::from_slice(&body).map(Some).map_err(|error| client.site(DISCOVER).undecodable(error))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The versions of a group; none if the server has no such group.
    async fn versions(&self, client: &Client, group: &str) -> Result<Arc<Vec<String>>> {
        if let Some(known) = lock(&self.0).versions.get(group) {
            return Ok(Arc::clone(known));
        }
        let versions = if group.is_empty() {
            vec!["v1".to_owned()]
        } else {
            Self::ask::<Group>(client, &format!("/apis/{}", plain(group))).await?.map(Group::order).unwrap_or_default()
        };
        let versions = Arc::new(versions);
        if !versions.is_empty() {
            lock(&self.0).versions.insert(group.to_owned(), Arc::clone(&versions));
        }
        Ok(versions)
    }

    /// The kinds of one version of a group; none if the server has no such version.
    async fn kinds(&self, client: &Client, group: &str, version: &str) -> Result<Arc<Vec<Arc<Kind>>>> {
        let key = (group.to_owned(), version.to_owned());
        if let Some(known) = lock(&self.0).kinds.get(&key) {
            return Ok(Arc::clone(known));
        }
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", plain(group)) };
        let served = Self::ask::<Resources>(client, &format!("{root}/{}", plain(version))).await?;
        let is_there = served.is_some();
        // A subresource is a part of an object.
        let served = served.map(|served| served.resources).unwrap_or_default();
        let kinds = served.into_iter().filter(|one| !one.name.contains('/')).map(|one| {
            Arc::new(Kind {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: one.kind,
                plural: one.name,
                is_namespaced: one.namespaced,
                verbs: one.verbs,
            })
        });
        let kinds = Arc::new(kinds.collect::<Vec<_>>());
        if is_there {
            lock(&self.0).kinds.insert(key, Arc::clone(&kinds));
        }
        Ok(kinds)
    }

    /// The kind of an object, in a version, or in the first one that has it; a kind that is not known is asked for once more.
    ///
    /// # Errors
    /// `NotFound` if the server does not serve it; `InvalidInput` if it serves it in other versions alone.
    pub(super) async fn find(
        &self,
        client: &Client,
        operation: &'static str,
        object: &ResourceRef,
        version: Option<&str>,
    ) -> Result<Arc<Kind>> {
        let (group, name) = (object.group(), object.kind());
        let named = |error: runtide_core::Error| error.with_context("resource", object);
        for is_last in [false, true] {
            let versions = self.versions(client, group).await.map_err(named)?;
            let mut others = Vec::new();
            for served in versions.iter() {
                let kinds = self.kinds(client, group, served).await.map_err(named)?;
                let Some(kind) = kinds.iter().find(|kind| kind.kind == name) else { continue };
                if version.is_none_or(|version| version == served) {
                    return Ok(Arc::clone(kind));
                }
                others.push(served.as_str());
            }
            if !is_last {
                self.forget(group);
                continue;
            }
            let site = client.site(operation);
            let of = if group.is_empty() { "the core group".to_owned() } else { format!("the group {group}") };
            let error = match version {
                Some(version) if !others.is_empty() => {
                    let message = format!("the server has {name} in {}, and not in {version}", others.join(", "));
                    site.error(ErrorKind::InvalidInput, message)
                }
                _ => site.error(ErrorKind::NotFound, format!("the server has no kind {name} in {of}")),
            };
            return Err(named(error).with_context("kind", name));
        }
        Err(named(client.site(operation).error(ErrorKind::NotFound, "the server has no such kind")))
    }

    /// All groups of the server.
    async fn groups(&self, client: &Client) -> Result<Arc<Vec<String>>> {
        if let Some(groups) = lock(&self.0).groups.clone() {
            return Ok(groups);
        }
        let served = Self::ask::<Groups>(client, "/apis").await?.map(|groups| groups.groups).unwrap_or_default();
        let mut names = vec![String::new()];
        let mut known = lock(&self.0);
        for group in served {
            names.push(group.name.clone());
            known.versions.insert(group.name.clone(), Arc::new(group.order()));
        }
        let names = Arc::new(names);
        known.groups = Some(Arc::clone(&names));
        Ok(names)
    }

    /// The kinds that a selector can select, in the order of their references. A kind that is not served, after it was asked for once more,
    /// has no objects.
    pub(super) async fn select(
        &self,
        client: &Client,
        operation: &'static str,
        selector: &Selector,
        configured: &Kinds,
    ) -> Result<Vec<Arc<Kind>>> {
        let wanted = |kind: &Kind| {
            let is = |wanted: &Option<String>, part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
            let is_ours = match configured {
                Kinds::Only(only) => only.iter().any(|(group, name)| *group == kind.group && *name == kind.kind),
                // One that is asked for by name is the caller's choice.
                Kinds::All => {
                    selector.kind.is_some() && selector.group.is_some()
                        || !TWICE.contains(&(kind.group.as_str(), kind.kind.as_str()))
                }
            };
            is_ours && kind.is_storable() && is(&selector.group, &kind.group) && is(&selector.kind, &kind.kind)
        };
        for is_last in [false, true] {
            let groups = match (&selector.group, configured) {
                (Some(group), _) => Arc::new(vec![group.clone()]),
                (None, Kinds::Only(kinds)) => {
                    let mut groups: Vec<_> = kinds.iter().map(|(group, _)| group.clone()).collect();
                    groups.sort();
                    groups.dedup();
                    Arc::new(groups)
                }
                (None, Kinds::All) => self.groups(client).await?,
            };
            let mut found: BTreeMap<String, Arc<Kind>> = BTreeMap::new();
            for group in groups.iter() {
                for version in self.versions(client, group).await?.iter() {
                    // A group whose own server is away fails the call: what it has is not known, and not nothing (trap K23).
                    let kinds = self.kinds(client, group, version).await;
                    let kinds = kinds.map_err(|error| error.with_context("group", group))?;
                    for kind in kinds.iter().filter(|kind| wanted(kind)) {
                        found.entry(kind.prefix()).or_insert_with(|| Arc::clone(kind));
                    }
                }
            }
            let is_named = |kind: &(String, String)| found.contains_key(&format!("{}/{}/", kind.0, kind.1));
            let lacks = match configured {
                Kinds::Only(kinds) if selector.kind.is_none() && selector.group.is_none() => {
                    kinds.iter().find(|kind| !is_named(kind)).map(|(group, kind)| (group.clone(), kind.clone()))
                }
                _ => selector
                    .kind
                    .clone()
                    .filter(|_| found.is_empty())
                    .map(|kind| (selector.group.clone().unwrap_or_default(), kind)),
            };
            match lacks {
                None => return Ok(found.into_values().collect()),
                Some(_) if !is_last => self.clear(),
                // One that is not served has no objects; a selector may name what is not there yet.
                Some((group, kind)) => {
                    tracing::debug!(group, kind, operation, "the server has no such kind");
                    return Ok(found.into_values().collect());
                }
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::store) fn kind(group: &str, kind: &str) -> Kind {
        Kind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_ascii_lowercase()),
            is_namespaced: true,
            verbs: vec!["list".to_owned(), "watch".to_owned()],
        }
    }

    #[test]
    fn paths_have_their_parts_encoded() {
        let (core, apps) = (kind("", "Thing"), kind("apps", "Thing"));
        assert_eq!(core.path(None), "/api/v1/things");
        assert_eq!(apps.path(Some("shop-2")), "/apis/apps/v1/namespaces/shop-2/things");
        let object = ResourceRef::new("apps", "Thing", "shop", "a:b\\c.d").unwrap();
        assert_eq!(apps.path_of(&object), "/apis/apps/v1/namespaces/shop/things/a%3Ab%5Cc.d");
        let cluster = Kind { is_namespaced: false, ..apps };
        assert_eq!(cluster.path(Some("shop")), "/apis/apps/v1/things");
    }
}
