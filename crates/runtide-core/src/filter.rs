//! Conditions that choose instances: [`InstanceFilter`].

use serde::{Deserialize, Serialize};

use crate::{
    instance::{Group, Instance, InstanceId, InstanceKind, InstanceState},
    labels::LabelMatch,
    names::setters,
};

/// Conditions on instances. All given conditions must hold; an empty list does not constrain.
///
/// An instance whose labels or group are unknown does not satisfy a condition on them. In a watch, an instance that ceases
/// to match is delivered once more, so that the change is seen.
///
/// ```
/// use runtide_core::{Instance, InstanceFilter, InstanceKind, InstanceState, LabelMatch};
///
/// let running_fronts = InstanceFilter::default()
///     .with_states([InstanceState::Running])
///     .with_label(LabelMatch::is("tier", "front"))
///     .with_label(LabelMatch::Lacks("canary".to_owned()));
///
/// let mut web = Instance::new("docker:local", "4f0c", "web", InstanceKind::Container, InstanceState::Running);
/// assert!(!running_fronts.matches(&web), "its labels are unknown");
/// web.labels = Some([("tier", "front")].into_iter().collect());
/// assert!(running_fronts.matches(&web));
/// // As an option: ListOptions::default().with_filter(running_fronts), and the same of WatchOptions.
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InstanceFilter {
    /// Any of these ids.
    pub ids: Vec<InstanceId>,
    /// Any of these names.
    pub names: Vec<String>,
    /// Any of these kinds.
    pub kinds: Vec<InstanceKind>,
    /// Any of these states.
    pub states: Vec<InstanceState>,
    /// All of these conditions on labels.
    pub labels: Vec<LabelMatch>,
    /// This group; without a `service`, any role in it.
    pub group: Option<Group>,
}

setters!(InstanceFilter {
    /// Any of these ids.
    with_ids: ids: Vec<InstanceId>;
    /// Any of these names.
    with_names: names: Vec<String>;
    /// Any of these kinds.
    with_kinds: kinds: Vec<InstanceKind>;
    /// Any of these states.
    with_states: states: Vec<InstanceState>;
    /// All of these conditions on labels.
    with_labels: labels: Vec<LabelMatch>;
    /// This group.
    with_group: group: Option<Group>;
});

impl InstanceFilter {
    /// This condition on the labels too.
    #[must_use]
    pub fn with_label(mut self, condition: LabelMatch) -> Self {
        self.labels.push(condition);
        self
    }

    /// `true` if it selects every instance.
    pub fn is_empty(&self) -> bool {
        let Self { ids, names, kinds, states, labels, group } = self;
        ids.is_empty()
            && names.is_empty()
            && kinds.is_empty()
            && states.is_empty()
            && labels.is_empty()
            && group.is_none()
    }

    /// `true` if the instance satisfies every condition.
    pub fn matches(&self, instance: &Instance) -> bool {
        fn any<T: PartialEq>(wanted: &[T], is: &T) -> bool {
            wanted.is_empty() || wanted.contains(is)
        }
        any(&self.ids, &instance.id)
            && any(&self.names, &instance.name)
            && any(&self.kinds, &instance.kind)
            && any(&self.states, &instance.state)
            && (self.labels.is_empty()
                || instance.labels.as_ref().is_some_and(|labels| self.labels.iter().all(|one| one.matches(labels))))
            && self.group.as_ref().is_none_or(|wanted| {
                instance.group.as_ref().is_some_and(|is| {
                    wanted.kind == is.kind
                        && wanted.name == is.name
                        && (wanted.service.is_none() || wanted.service == is.service)
                })
            })
    }
}
