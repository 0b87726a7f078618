//! Fields that the list, an inspection and the events share (labels, group, image), and the summary of an inspection.

use std::{collections::BTreeMap, sync::Arc};

use runtide_core::{Group, GroupKind, Health, ImageRef, Instance, InstanceState, Labels};
use runtide_engine::{Text, create::users_labels};

/// Label of a container that systemd runs, as quadlet and `podman generate systemd` set it.
const UNIT: &str = "PODMAN_SYSTEMD_UNIT";

/// The systemd unit that made the container, as `web.service`: by quadlet, or by a unit that `podman generate systemd` wrote.
/// systemd starts and stops such a container, and removes it at its end: a verb on the container is undone by the unit.
///
/// ```
/// use runtide_core::{Instance, InstanceKind, InstanceState, Labels};
///
/// let mut instance = Instance::new("podman:local", "6a00", "systemd-web", InstanceKind::Container, InstanceState::Running);
/// instance.labels = Some(Labels::from_iter([("PODMAN_SYSTEMD_UNIT", "web.service")]));
/// assert_eq!(runtide_podman::quadlet_unit(&instance), Some("web.service"));
/// ```
pub fn quadlet_unit(instance: &Instance) -> Option<&str> {
    instance.labels.as_ref()?.get(UNIT).filter(|unit| !unit.is_empty())
}

/// The unit of a container with these labels.
pub(crate) fn unit_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(UNIT).map(String::as_str).filter(|unit| !unit.is_empty())
}

/// The name; the short id in place of an empty one.
pub(super) fn name(name: &str, id: &str) -> String {
    if name.is_empty() { short(id).to_owned() } else { name.to_owned() }
}

/// The short id, as in `podman ps`.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The user's labels, verbatim; a label without a value has an empty one.
pub(super) fn labels(labels: Option<&BTreeMap<Text<'_>, Text<'_>>>) -> Labels {
    users_labels(labels.into_iter().flatten().map(|(key, value)| (&**key, &**value)))
}

/// The compose project. podman-compose sets both names of the label, docker-compose the second.
pub(super) fn compose(labels: &Labels) -> Option<Arc<Group>> {
    let named = |label: &str| labels.get(label).filter(|name| !name.is_empty());
    let project = named("io.podman.compose.project").or_else(|| named("com.docker.compose.project"))?;
    let service = named("io.podman.compose.service").or_else(|| named("com.docker.compose.service"));
    Some(Arc::new(Group::new(GroupKind::Compose, project).with_service(service.map(ToOwned::to_owned))))
}

/// A pod as a group.
pub(crate) fn pod(name: &str) -> Arc<Group> {
    Arc::new(Group::new(GroupKind::Pod, name))
}

/// The image's reference; `None` for a bare id.
pub(super) fn image(image: &str) -> Option<ImageRef> {
    (!image.is_empty() && !image.starts_with("sha256:")).then(|| ImageRef::from(image))
}

pub(super) fn health(text: &str) -> Option<Health> {
    match text {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

/// An inspected instance, reduced to the fields that the list has, and to its addresses: it is inspected because of these.
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
