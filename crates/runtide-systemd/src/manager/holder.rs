//! The slice that keeps a unit loaded that was created and does not run.
//!
//! systemd unloads a transient unit as soon as nothing needs it: at once if it was never started, and when it ends with
//! success. So a unit is created together with a transient slice that is ordered before it, and holds nothing else:
//! while that slice is active, the unit stays loaded, its exit included. To remove the unit is to stop the slice.

use std::fmt::Write as _;

use crate::names;

/// Prefix of a holder's name. It has no dash, which would put the slice below another one.
const PREFIX: &str = "runtide:";
const TYPE: &str = ".slice";

/// The name of the slice that holds a unit: one for each unit.
///
/// A character that a slice's name cannot have is escaped as in an object path: `runtide:a_2db.service.slice` of
/// `a-b.service`. A name that would get too long is replaced by its digest, which has no dot, unlike every unit's name.
pub(super) fn of(unit: &str) -> String {
    let mut name = String::from(PREFIX);
    for byte in unit.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b':' {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "_{byte:02x}");
        }
    }
    if name.len() + TYPE.len() > names::LONGEST {
        name.truncate(PREFIX.len());
        name.push_str(&blake3::hash(unit.as_bytes()).to_hex());
    }
    name.push_str(TYPE);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_has_its_own_holder() {
        let long = format!("{}.service", "-".repeat(247));
        let units = ["a.service", "a-b.service", "a_2db.service", "a_b.service", "w@1.service", "a\\x2db.scope", &long];
        let mut holders: Vec<_> = units.iter().map(|unit| of(unit)).collect();
        for holder in &holders {
            assert_eq!(names::flaw(holder), None, "{holder}");
            assert!(!holder.contains('-'), "{holder}");
        }
        assert_eq!(holders[1], "runtide:a_2db.service.slice");
        holders.sort();
        holders.dedup();
        assert_eq!(holders.len(), units.len());
    }
}
