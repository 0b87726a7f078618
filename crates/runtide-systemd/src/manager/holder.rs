//! What keeps a unit that was created and does not run.
//!
//! systemd forgets a transient unit as soon as nothing needs it: at once if it was never started, and when it ends well. So a
//! unit is created together with a transient slice that is ordered before it, and holds nothing else: while that slice is
//! active, the unit stays, its exit included. To remove the unit is to stop the slice.

use std::fmt::Write as _;

use crate::names;

/// Holds no dash, which would put the slice below another one.
const PREFIX: &str = "runtide:";
const TYPE: &str = ".slice";

/// The slice that holds a unit: one for each name, and each for one name.
///
/// What a slice's name cannot hold is written as in an object's path: `runtide:a_2db.service.slice` of `a-b.service`. A name
/// that would get too long is known by its digest; it holds no dot, which every unit's name has.
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
    fn each_unit_has_a_holder_of_its_own() {
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
