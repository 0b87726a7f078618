//! What list, inspect and events have in common: names, labels, groups, and the summary of a full look.

use std::{collections::BTreeMap, sync::Arc};

use runtide_core::{Group, GroupKind, ImageRef, Instance, InstanceState, Labels};

use super::Text;

/// The name without its slash. A linked container has its aliases among its names (`/web/db`); they are not its own.
pub(super) fn name<'a>(names: impl IntoIterator<Item = &'a str>, id: &str) -> String {
    let mut first = None;
    for name in names {
        let name = name.strip_prefix('/').unwrap_or(name);
        if !name.is_empty() && !name.contains('/') {
            return name.to_owned();
        }
        first = first.or(Some(name).filter(|name| !name.is_empty()));
    }
    first.map_or_else(|| short(id).to_owned(), ToOwned::to_owned)
}

/// As `docker ps` shows it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Verbatim; a label without a value is an empty one.
pub(super) fn labels(labels: Option<&BTreeMap<Text<'_>, Text<'_>>>) -> Labels {
    labels.into_iter().flatten().map(|(key, value)| (&**key, &**value)).collect()
}

pub(super) fn group(labels: &Labels) -> Option<Arc<Group>> {
    let project = labels.get("com.docker.compose.project").filter(|project| !project.is_empty())?;
    let service = labels.get("com.docker.compose.service").map(ToOwned::to_owned);
    Some(Arc::new(Group::new(GroupKind::Compose, project).with_service(service)))
}

/// An image given as a bare id says what the container was made from only if nobody moved its tag since; `None` then.
pub(super) fn image(image: &str) -> Option<ImageRef> {
    (!image.is_empty() && !image.starts_with("sha256:")).then(|| ImageRef::from(image))
}

/// A full look, as the list would have shown it.
pub(crate) fn summary(full: &Instance) -> Instance {
    let mut summary = full.clone();
    summary.incarnation = None;
    (summary.started_at, summary.finished_at, summary.restarts) = (None, None, None);
    summary.exit = full.exit.map(|exit| exit.with_oom_killed(None));
    if full.state == InstanceState::Paused {
        summary.health = None;
    }
    summary
}
