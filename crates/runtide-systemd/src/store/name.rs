//! The names of unit files below one folder: [`UnitFileName`].

use std::{fmt, path::PathBuf};

use runtide_core::{Error, ErrorKind, Result};

use crate::names;

/// Suffix of the file of a drop-in.
const ENDING: &str = ".conf";

/// The name of a unit file below a folder of units: `web.service`, or of a drop-in, `web.service.d/10-limits.conf`.
///
/// It always names one file in the folder, or in the folder of a unit's drop-ins, and never one elsewhere.
///
/// ```
/// use runtide_systemd::UnitFileName;
///
/// assert_eq!(UnitFileName::unit("web.service")?.to_string(), "web.service");
/// assert_eq!(UnitFileName::drop_in("web.service", "10-limits")?.to_string(), "web.service.d/10-limits.conf");
/// assert!(UnitFileName::unit("../web.service").is_err());
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitFileName {
    unit: String,
    drop_in: Option<String>,
}

impl UnitFileName {
    /// The file of a unit.
    ///
    /// # Errors
    /// `InvalidInput` if systemd would not accept the name, or ignore such a file.
    pub fn unit(unit: &str) -> Result<Self> {
        match names::flaw(unit) {
            Some(why) => Err(bad(unit, why)),
            None if unit.starts_with('.') => Err(bad(unit, "systemd ignores hidden files")),
            None => Ok(Self { unit: unit.to_owned(), drop_in: None }),
        }
    }

    /// The file of a unit's drop-in; `.conf` is added to its name.
    ///
    /// # Errors
    /// `InvalidInput`, as [`unit`](Self::unit), and if the name cannot be that of a file.
    pub fn drop_in(unit: &str, name: &str) -> Result<Self> {
        let unit = Self::unit(unit)?.unit;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@+~".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(bad(
                name,
                "a drop-in's name is of letters, digits and : - _ . \\ @ + ~, and no dot is the first",
            ));
        }
        if name.len() + ENDING.len() > names::LONGEST || unit.len() + 2 > names::LONGEST {
            return Err(bad(name, "it is longer than 255 bytes"));
        }
        Ok(Self { unit, drop_in: Some(name.to_owned()) })
    }

    /// The drop-in of a file in the folder of a unit's drop-ins.
    pub(super) fn in_folder(unit: &str, file: &str) -> Result<Self> {
        match file.strip_suffix(ENDING) {
            Some(name) => Self::drop_in(unit, name),
            None => Err(bad(file, "systemd reads only files that end in .conf")),
        }
    }

    /// The unit: `web.service`.
    pub fn unit_name(&self) -> &str {
        &self.unit
    }

    /// The drop-in's own name, if it is one: `10-limits`.
    pub fn drop_in_name(&self) -> Option<&str> {
        self.drop_in.as_deref()
    }

    /// The folder of the unit's drop-ins: `web.service.d`.
    pub(super) fn drop_ins(&self) -> String {
        format!("{}.d", self.unit)
    }

    /// The path below the folder of the units.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(self.to_string())
    }
}

impl fmt::Display for UnitFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.drop_in {
            None => f.pad(&self.unit),
            Some(name) => write!(f, "{}.d/{name}{ENDING}", self.unit),
        }
    }
}

fn bad(name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    Error::new(ErrorKind::InvalidInput, "systemd.store.name", why).with_context("name", format!("{shown:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("{}.service", "a".repeat(248));
        for unit in
            ["", "..", "../a.service", "a/b.service", "/etc/a.service", "a\0.service", ".a.service", "web", &long]
        {
            assert!(UnitFileName::unit(unit).is_err(), "{unit:?}");
        }
        for name in ["", "..", ".a", "a/b", "../a", "a\0", "a b", &"a".repeat(251)] {
            assert!(UnitFileName::drop_in("web.service", name).is_err(), "{name:?}");
        }
        assert!(UnitFileName::in_folder("web.service", "a.conf~").is_err());
    }

    proptest! {
        #[test]
        fn none_leaves_the_folder(unit in ".{0,12}(\\.service)?", name in ".{0,12}") {
            let names = [UnitFileName::unit(&unit), UnitFileName::drop_in("web.service", &name)];
            for file in names.into_iter().flatten() {
                let path = file.path();
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(path.components().count(), 1 + usize::from(file.drop_in_name().is_some()));
            }
        }
    }
}
