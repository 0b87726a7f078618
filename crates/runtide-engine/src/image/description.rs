//! [`Description`]: the engine's reports of images, as [`ImageInfo`]: pure.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, ImageRef, Result, backend::CallSite, manager::ImageInfo};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Reference;
use crate::{
    lenient::{lenient, log_left_out},
    time::time,
};

/// An image as its inspection reports it, `/images/{name}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Description {
    id: String,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    created: Option<String>,
    size: Option<u64>,
    os: Option<String>,
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

/// One item of `/images/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Item {
    id: String,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    /// Seconds since 1970.
    created: Option<u64>,
    size: Option<u64>,
    labels: Option<BTreeMap<String, String>>,
}

impl Description {
    /// Reads the answer to an inspection. A field that cannot be read is left out, and named in the log.
    ///
    /// # Errors
    /// `Protocol` for an answer that is none.
    pub fn read(site: CallSite<'_>, json: &[u8]) -> Result<Self> {
        let (mut image, left_out): (Self, _) =
            lenient(&String::from_utf8_lossy(json), |json| serde_json::from_str(json))
                .map_err(|error| site.undecodable(error))?;
        log_left_out(&BackendId::from(site.owner()), "an image's description", &left_out);
        image.id = whole(image.id);
        Ok(image)
    }

    /// The whole id, as `sha256:…`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// User that its containers run as, without the group; empty: root.
    pub fn user(&self) -> &str {
        let user = self.config.as_ref().and_then(|config| config.user.as_deref()).unwrap_or_default();
        user.split(':').next().unwrap_or_default()
    }

    /// True for an image of Windows.
    pub fn is_windows(&self) -> bool {
        self.os.as_deref().is_some_and(|os| os.eq_ignore_ascii_case("windows"))
    }

    /// All but the home directory, which is not in it.
    pub fn into_info(self) -> ImageInfo {
        let config = self.config.unwrap_or_default();
        let mut info = ImageInfo::new(self.id);
        info.tags = names(self.repo_tags);
        info.digests = names(self.repo_digests);
        info.bytes = self.size;
        info.created_at = self.created.as_deref().and_then(time);
        info.labels = config.labels.into_iter().flatten().collect();
        info.user = config.user.filter(|user| !user.is_empty());
        info.env = Some(config.env.unwrap_or_default());
        info.entrypoint = Some(config.entrypoint.unwrap_or_default());
        info.command = Some(config.cmd.unwrap_or_default());
        info
    }
}

/// The images of `/images/json`: every item that can be read; one that cannot hides no other.
///
/// # Errors
/// `Protocol` for an answer that is no list.
pub fn list(site: CallSite<'_>, json: &[u8]) -> Result<Vec<ImageInfo>> {
    let items: Option<Vec<&RawValue>> = serde_json::from_slice(json).map_err(|error| site.undecodable(error))?;
    let backend = BackendId::from(site.owner());
    let read = |item: &&RawValue| {
        let (item, left_out): (Item, _) = lenient(item.get(), |json| serde_json::from_str(json))
            .inspect_err(
                |error| tracing::warn!(%backend, %error, "an image is left out of the list: it cannot be read"),
            )
            .ok()?;
        log_left_out(&backend, "an image in the list", &left_out);
        if item.id.is_empty() {
            tracing::warn!(%backend, "an image without an id is left out of the list");
            return None;
        }
        let mut info = ImageInfo::new(whole(item.id));
        info.tags = names(item.repo_tags);
        info.digests = names(item.repo_digests);
        info.bytes = item.size;
        info.created_at =
            item.created.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        info.labels = item.labels.into_iter().flatten().collect();
        Some(info)
    };
    Ok(items.iter().flatten().filter_map(read).collect())
}

/// Podman leaves the algorithm out.
fn whole(id: String) -> String {
    match Reference::parse(&id) {
        Ok(Reference::Id(id)) => id,
        _ => id,
    }
}

/// Older daemons fill an empty list with a name of their own.
fn names(listed: Option<Vec<String>>) -> Vec<ImageRef> {
    let is_name = |name: &String| !name.starts_with("<none>");
    listed.into_iter().flatten().filter(is_name).map(ImageRef::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(id: &BackendId) -> CallSite<'_> {
        CallSite::new("engine.inspect_image", id)
    }

    #[test]
    fn an_inspection_has_every_field_and_a_listing_says_what_it_lacks() {
        let id = BackendId::from("engine:test");
        let json = br#"{"Id":"sha256:1","RepoTags":["a:1"],"RepoDigests":["a@sha256:2"],"Created":"2024-01-01T00:00:00.5Z","Size":7,
            "Os":"linux","Config":{"User":"web:www","Env":["A=1"],"Entrypoint":["/e"],"Cmd":["c"],"Labels":{"k":"v"}}}"#;
        let image = Description::read(site(&id), json).unwrap();
        assert_eq!((image.user(), image.is_windows()), ("web", false));
        let info = image.into_info();
        assert_eq!((info.tags[0].as_str(), info.digests[0].as_str(), info.bytes), ("a:1", "a@sha256:2", Some(7)));
        assert_eq!((info.user.as_deref(), info.labels.get("k")), (Some("web:www"), Some("v")));
        assert_eq!(
            (info.env, info.entrypoint, info.command),
            (Some(vec!["A=1".into()]), Some(vec!["/e".into()]), Some(vec!["c".into()]))
        );
        assert!(info.created_at.is_some());

        let bare = Description::read(
            site(&id),
            br#"{"Id":"sha256:1","RepoTags":null,"Config":null,"Created":"0001-01-01T00:00:00Z"}"#,
        )
        .unwrap()
        .into_info();
        assert_eq!((bare.entrypoint, bare.user, bare.created_at, bare.bytes), (Some(vec![]), None, None, None));

        let digits = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";
        let podmans = Description::read(site(&id), format!(r#"{{"Id":"{digits}"}}"#).as_bytes()).unwrap();
        assert_eq!(podmans.id(), format!("sha256:{digits}"), "its algorithm is left out");

        let listed = list(
            site(&id),
            br#"[{"Id":"sha256:1","RepoTags":["<none>:<none>"],"RepoDigests":["<none>@<none>"],"Created":10,"Size":-1,"Labels":null},
                 7, {"Id":""}, {"Id":"sha256:2","RepoTags":["b:1"],"Labels":{"k":"v"}}]"#,
        )
        .unwrap();
        assert_eq!(listed.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), ["sha256:1", "sha256:2"]);
        assert_eq!((listed[0].tags.len(), listed[0].bytes, &listed[0].env), (0, None, &None));
        assert!(list(site(&id), b"{}").is_err());
    }
}
