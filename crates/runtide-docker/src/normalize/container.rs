//! Fields that the list, an inspection and the events share (name, labels, group, image), and the summary of an inspection.

use std::{collections::BTreeMap, sync::Arc};

use runtide_core::{Group, GroupKind, ImageRef, Instance, InstanceState, Labels};
use runtide_engine::{Text, create::users_labels};

/// The name without its slash. A linked container lists its aliases among its names (`/web/db`); these are skipped.
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

/// The short id, as in `docker ps`.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The user's labels, verbatim; a label without a value has an empty one.
pub(super) fn labels(labels: Option<&BTreeMap<Text<'_>, Text<'_>>>) -> Labels {
    users_labels(labels.into_iter().flatten().map(|(key, value)| (&**key, &**value)))
}

/// The compose project, or the stack of a swarm, which is deployed from a compose file as well.
pub(super) fn group(labels: &Labels) -> Option<Arc<Group>> {
    let named = |label: &str| labels.get(label).filter(|name| !name.is_empty());
    let (kind, name, service) = if let Some(project) = named("com.docker.compose.project") {
        (GroupKind::Compose, project, named("com.docker.compose.service"))
    } else {
        let stack = named("com.docker.stack.namespace")?;
        // A service's name has the stack's in front: `shop_web`.
        let service = named("com.docker.swarm.service.name")
            .map(|service| service.strip_prefix(stack).and_then(|rest| rest.strip_prefix('_')).unwrap_or(service));
        (GroupKind::Stack, stack, service)
    };
    Some(Arc::new(Group::new(kind, name).with_service(service.map(ToOwned::to_owned))))
}

/// The image's reference; `None` for a bare id, which the list shows in its place once the tag has moved.
pub(super) fn image(image: &str) -> Option<ImageRef> {
    (!image.is_empty() && !image.starts_with("sha256:")).then(|| ImageRef::from(image))
}

/// An inspected instance, reduced to the fields that the list has.
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
