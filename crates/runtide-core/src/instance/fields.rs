//! The table of [`Instance`]'s fields: what each belongs to, and all that is derived from it.
//!
//! A new field is one row. Without it this file does not compile, since the table takes an instance apart to its last field.

use std::fmt;

use super::Instance;

/// Scope of a field's value, which decides when the value is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Names the instance; two views are compared only if they agree in it.
    Key,
    /// Known in every view.
    Always,
    /// Belongs to the instance: kept from run to run.
    Stable,
    /// Belongs to one run, also after its end.
    PerRun,
    /// Belongs to a run that is alive: forgotten at its end.
    WhileAlive,
    /// Belongs to the end of a run: forgotten when the next one begins.
    AtEnd,
    /// The driver's own count; not compared.
    Counter,
}

/// The rows, in the order of the struct. A `required` field always has a value, an `optional` one is `None` where it is not
/// known.
macro_rules! table {
    ($derive:ident) => {
        $derive! {
            required Key id,
            optional PerRun incarnation,
            required Always name,
            required Key backend,
            required Always kind,
            required Always state,
            optional WhileAlive health,
            optional AtEnd exit,
            optional AtEnd reason,
            optional Stable image,
            optional Stable labels,
            optional WhileAlive ports,
            optional WhileAlive addresses,
            optional Stable group,
            optional Stable node,
            optional Stable created_at,
            optional PerRun started_at,
            optional AtEnd finished_at,
            optional PerRun restarts,
            required Counter generation,
        }
    };
}

/// The first block for a required field, the second for an optional one.
macro_rules! by_presence {
    (required $required:block else $optional:block) => {
        $required
    };
    (optional $required:block else $optional:block) => {
        $optional
    };
}

macro_rules! derive {
    ($($presence:ident $class:ident $field:ident,)*) => {
        /// Name and class of each field, in order.
        #[cfg(test)]
        pub(crate) const FIELDS: &[(&str, Class)] = &[$( (stringify!($field), Class::$class), )*];

        /// Every field has a row.
        const _: fn(&Instance) = |instance| {
            let Instance { $( $field: _, )* } = instance;
        };

        impl Instance {
            /// Takes over the known fields of this class, if `self` leaves them open.
            pub(crate) fn keep(&mut self, before: &Instance, class: Class) {
                $( by_presence!($presence {} else {
                    if class == Class::$class && self.$field.is_none() {
                        self.$field.clone_from(&before.$field);
                    }
                }); )*
            }

            /// Forgets the fields of this class.
            pub(crate) fn forget(&mut self, class: Class) {
                $( by_presence!($presence {} else {
                    if class == Class::$class {
                        self.$field = None;
                    }
                }); )*
            }

            /// Name of each field that is compared, and true if its value differs; unknown is a value here.
            pub(crate) fn compared(&self, after: &Instance) -> impl Iterator<Item = (&'static str, bool)> {
                [$( (Class::$class != Class::Counter).then(|| (stringify!($field), self.$field != after.$field)), )*]
                    .into_iter()
                    .flatten()
            }

            /// Names of the fields that are known, but for the driver's count.
            pub(crate) fn known(&self) -> impl Iterator<Item = &'static str> {
                [$( by_presence!($presence {
                    (Class::$class != Class::Counter).then_some(stringify!($field))
                } else {
                    self.$field.is_some().then_some(stringify!($field))
                }), )*]
                    .into_iter()
                    .flatten()
            }

            /// True if both know a field, and differently.
            pub(crate) fn contradicts(&self, other: &Instance) -> bool {
                $( (!matches!(Class::$class, Class::Key | Class::Counter) && by_presence!($presence {
                    self.$field != other.$field
                } else {
                    self.$field.is_some() && other.$field.is_some() && self.$field != other.$field
                })) || )* false
            }

            /// The fields in which two views of one instance contradict each other: both know them, and differently. Neither
            /// `id` and `backend`, which say that it is one instance, nor `generation` is one of them.
            ///
            /// ```
            /// use runtide_core::{Instance, InstanceKind, InstanceState};
            ///
            /// let seen = |state| Instance::new("docker:local", "4f0c", "web", InstanceKind::Container, state);
            /// let (stopped, mut running) = (seen(InstanceState::Stopped), seen(InstanceState::Running));
            /// running.node = Some("a".to_owned()); // not known of the other: no contradiction
            /// let found: Vec<String> = stopped.differences(&running).iter().map(ToString::to_string).collect();
            /// assert_eq!(found, ["state: Stopped against Running"]);
            /// ```
            pub fn differences(&self, other: &Instance) -> Vec<FieldDifference> {
                let mut found = Vec::new();
                $( if !matches!(Class::$class, Class::Key | Class::Counter) {
                    by_presence!($presence {
                        if self.$field != other.$field {
                            found.push(FieldDifference::new(stringify!($field), &self.$field, &other.$field));
                        }
                    } else {
                        if let (Some(left), Some(right)) = (&self.$field, &other.$field)
                            && left != right
                        {
                            found.push(FieldDifference::new(stringify!($field), left, right));
                        }
                    });
                } )*
                found
            }
        }
    };
}

table!(derive);

/// A field in which two views of one instance contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldDifference {
    /// Name of the field.
    pub field: &'static str,
    /// Its value in the first view, as `Debug` writes it.
    pub left: String,
    /// Its value in the second view.
    pub right: String,
}

impl FieldDifference {
    fn new(field: &'static str, left: &impl fmt::Debug, right: &impl fmt::Debug) -> Self {
        Self { field, left: format!("{left:?}"), right: format!("{right:?}") }
    }
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} against {}", self.field, self.left, self.right)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        event::FieldSet,
        instance::{ExitStatus, Group, GroupKind, Health, InstanceKind, InstanceState},
    };

    /// An instance of which everything is known.
    fn full() -> Instance {
        let now = Some(SystemTime::UNIX_EPOCH);
        Instance {
            incarnation: Some("1".into()),
            health: Some(Health::Healthy),
            exit: Some(ExitStatus::code(0)),
            reason: Some("watchdog".into()),
            image: Some("web:1".into()),
            labels: Some(crate::labels::Labels::default()),
            ports: Some(Vec::new()),
            addresses: Some(Vec::new()),
            group: Some(std::sync::Arc::new(Group::new(GroupKind::Compose, "shop"))),
            node: Some("a".to_owned()),
            created_at: now,
            started_at: now,
            finished_at: now,
            restarts: Some(1),
            generation: 7,
            ..bare()
        }
    }

    fn bare() -> Instance {
        Instance::new("b", "i", "web", InstanceKind::Container, InstanceState::Running)
    }

    #[test]
    fn every_field_has_a_row_in_the_structs_order() {
        let text = serde_json::to_string(&full()).unwrap();
        let mut behind = text.as_str();
        for (name, _) in FIELDS {
            let key = format!("\"{name}\":");
            let at = behind.find(&key).unwrap_or_else(|| panic!("{name} is no field, or not in this place: {text}"));
            behind = &behind[at + key.len()..];
        }
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(json.len(), FIELDS.len());
        assert!(json.values().all(|value| !value.is_null()), "full() leaves a field open: {text}");
    }

    #[test]
    fn each_optional_field_is_kept_and_forgotten_by_its_class_alone() {
        let classes = [Class::Stable, Class::PerRun, Class::WhileAlive, Class::AtEnd];
        let expected = |class| FIELDS.iter().filter(|row| row.1 == class).map(|row| row.0).collect::<Vec<_>>();
        let mut all = 0;
        for class in classes {
            let (mut kept, mut forgetful) = (bare(), full());
            kept.keep(&full(), class);
            forgetful.forget(class);
            for changed in [FieldSet::between(&bare(), &kept), FieldSet::between(&full(), &forgetful)] {
                assert_eq!(changed.iter().collect::<Vec<_>>(), expected(class), "{class:?}");
            }
            all += expected(class).len();
        }
        assert_eq!(all, FieldSet::between(&bare(), &full()).iter().count());
    }

    #[test]
    fn only_fields_that_both_views_know_can_differ() {
        assert_eq!(bare().differences(&full()), []);
        assert!(!bare().contradicts(&full()));
        let other = Instance { restarts: Some(2), name: "other".to_owned(), generation: 8, ..full() };
        let fields: Vec<&str> = full().differences(&other).iter().map(|one| one.field).collect();
        assert_eq!(fields, ["name", "restarts"]);
        assert!(full().contradicts(&other));
    }
}
