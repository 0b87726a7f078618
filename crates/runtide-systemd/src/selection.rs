//! The selection of the units that are instances.

use runtide_core::{Instance, LabelMatch};

use crate::names;

/// The selection of the units that are instances. All given conditions must hold; an empty list does not constrain.
///
/// By default those are the services and scopes of the machine's owner: those of systemd itself, of the boot of a
/// machine and of a login are left out ([`Selection::BOOT`]).
///
/// ```
/// use runtide_core::LabelMatch;
/// use runtide_systemd::Selection;
///
/// let shop = Selection::default().with_slice("shop.slice").with_label(LabelMatch::is("koi.expose", "yes"));
/// let everything = Selection::all();
/// # let _ = (shop, everything);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// Accepted types of unit: `service`, `scope`.
    pub types: Vec<UnitType>,
    /// Patterns (`*` and `?`) of names; one of them must match.
    pub patterns: Vec<String>,
    /// Patterns of excluded names; none of them may match.
    pub except: Vec<String>,
    /// Accepted slices, with the slices below them. The slice of a unit that is gone before any inspection is not
    /// known: the unit is not reported.
    pub slices: Vec<String>,
    /// Conditions on the labels; all of them must hold.
    pub labels: Vec<LabelMatch>,
}

/// A type of unit that can be an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnitType {
    /// Processes that systemd started.
    Service,
    /// Processes that another program started, and systemd keeps together.
    Scope,
}

impl UnitType {
    pub(crate) fn of(unit: &str) -> Option<Self> {
        match names::type_of(unit)? {
            "service" => Some(Self::Service),
            "scope" => Some(Self::Scope),
            _ => None,
        }
    }

    pub(crate) fn pattern(self) -> &'static str {
        match self {
            Self::Service => "*.service",
            Self::Scope => "*.scope",
        }
    }
}

impl Default for Selection {
    fn default() -> Self {
        let except = Self::BOOT.iter().map(|&pattern| pattern.to_owned()).collect();
        Self { except, ..Self::all() }
    }
}

impl Selection {
    /// Patterns of the units of systemd itself, of the boot of a machine and of a login.
    pub const BOOT: &[&str] = &[
        "systemd-*",
        "init.scope",
        "session-*.scope",
        "user@*.service",
        "user-runtime-dir@*.service",
        "*getty@*.service",
        "console-getty.service",
        "getty-static.service",
        "dbus.service",
        "dbus-broker.service",
        "modprobe@*.service",
        "kmod-static-nodes.service",
        "emergency.service",
        "rescue.service",
        "debug-shell.service",
        "initrd-*.service",
        "quotaon.service",
        "plymouth-*.service",
        "rc-local.service",
        "ldconfig.service",
    ];

    /// Selects every service and every scope.
    pub fn all() -> Self {
        Self {
            types: vec![UnitType::Service, UnitType::Scope],
            patterns: Vec::new(),
            except: Vec::new(),
            slices: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Restricts the types of unit to this one; a further call adds a type.
    #[must_use]
    pub fn with_type(mut self, kind: UnitType) -> Self {
        if self.types.len() == 2 {
            self.types.clear();
        }
        self.types.push(kind);
        self
    }

    /// Restricts the names to those that this pattern matches; a further call adds a pattern.
    #[must_use]
    pub fn with_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Excludes the names that this pattern matches.
    #[must_use]
    pub fn without(mut self, pattern: impl Into<String>) -> Self {
        self.except.push(pattern.into());
        self
    }

    /// Restricts the units to this slice; a further call adds a slice.
    #[must_use]
    pub fn with_slice(mut self, slice: impl Into<String>) -> Self {
        self.slices.push(slice.into());
        self
    }

    /// Restricts the units to those whose labels satisfy this condition; a further call adds a condition.
    #[must_use]
    pub fn with_label(mut self, label: LabelMatch) -> Self {
        self.labels.push(label);
        self
    }

    /// True if a unit of this name can be an instance.
    pub(crate) fn takes_name(&self, unit: &str) -> bool {
        UnitType::of(unit).is_some_and(|kind| self.types.contains(&kind))
            && (self.patterns.is_empty() || self.patterns.iter().any(|pattern| names::is_match(pattern, unit)))
            && !self.except.iter().any(|pattern| names::is_match(pattern, unit))
    }

    /// True if the name does not decide.
    pub(crate) fn asks_for_more(&self) -> bool {
        !self.slices.is_empty() || !self.labels.is_empty()
    }

    /// True if the known details satisfy the other conditions; an unknown one does not.
    pub(crate) fn takes(&self, instance: &Instance) -> bool {
        let in_slice = |wanted: &String| {
            let below = wanted.strip_suffix(".slice").map(|stem| format!("{stem}-"));
            instance.group.as_ref().is_some_and(|group| {
                group.name == *wanted || below.as_ref().is_some_and(|below| group.name.starts_with(below.as_str()))
            })
        };
        (self.slices.is_empty() || self.slices.iter().any(in_slice))
            && (self.labels.is_empty()
                || instance.labels.as_ref().is_some_and(|labels| self.labels.iter().all(|one| one.matches(labels))))
    }

    /// The patterns for the manager's own filter, which has no exceptions.
    pub(crate) fn asked(&self) -> Vec<String> {
        if self.patterns.is_empty() {
            self.types.iter().map(|kind| kind.pattern().to_owned()).collect()
        } else {
            self.patterns.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runtide_core::{Group, GroupKind, InstanceKind, InstanceState, Labels};

    use super::*;

    #[test]
    fn the_boot_is_left_out_by_default() {
        let (some, all) = (Selection::default(), Selection::all());
        for unit in ["web.service", "web@1.service", "run-r1.scope", "docker.service"] {
            assert!(some.takes_name(unit) && all.takes_name(unit), "{unit}");
        }
        for unit in ["systemd-journald.service", "serial-getty@ttyS0.service", "session-1.scope", "init.scope"] {
            assert!(!some.takes_name(unit) && all.takes_name(unit), "{unit}");
        }
        for unit in ["web.socket", "web", "system.slice"] {
            assert!(!all.takes_name(unit), "{unit}");
        }
    }

    #[test]
    fn conditions_hold_together() {
        let selection =
            Selection::default().with_type(UnitType::Service).with_pattern("a*").with_pattern("b*").without("ab*");
        for (unit, taken) in [
            ("a1.service", true),
            ("b.service", true),
            ("abc.service", false),
            ("a.scope", false),
            ("c.service", false),
        ] {
            assert_eq!(selection.takes_name(unit), taken, "{unit}");
        }
    }

    #[test]
    fn an_unknown_detail_satisfies_no_condition() {
        let mut instance = Instance::new("b", "a.service", "a", InstanceKind::Service, InstanceState::Running);
        let selection = Selection::default().with_slice("shop.slice").with_label(LabelMatch::Has("x".into()));
        assert!(selection.asks_for_more() && !selection.takes(&instance));
        instance.labels = Some(Labels::from_iter([("x", "1")]));
        for (slice, taken) in [("shop.slice", true), ("shop-web.slice", true), ("shopping.slice", false)] {
            instance.group = Some(Arc::new(Group::new(GroupKind::Slice, slice)));
            assert_eq!(selection.takes(&instance), taken, "{slice}");
        }
    }
}
