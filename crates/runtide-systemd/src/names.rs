//! The names of units, and their object paths.

use std::{borrow::Cow, fmt::Write as _};

/// Prefix of the object paths of all units.
pub(crate) const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// Longest name that systemd accepts (`UNIT_NAME_MAX`), its type included.
pub(crate) const LONGEST: usize = 255;

/// The types of units: the part after the last dot of a unit's name.
const TYPES: [&str; 11] =
    ["service", "scope", "slice", "socket", "target", "device", "mount", "automount", "swap", "timer", "path"];

/// The type in a unit's name: `service` of `web.service`.
pub(crate) fn type_of(unit: &str) -> Option<&str> {
    let (_, kind) = unit.rsplit_once('.')?;
    TYPES.contains(&kind).then_some(kind)
}

/// The reason why a text is no name of a unit; `None`: it is one. The rules are systemd's own (`unit_name_is_valid`). A
/// valid name has no slash, so it names one file of a folder and nothing else.
pub(crate) fn flaw(unit: &str) -> Option<&'static str> {
    let Some(kind) = type_of(unit) else {
        return Some("it does not end in a type of unit, as .service");
    };
    let stem = unit.get(..unit.len() - kind.len() - 1).unwrap_or_default();
    if unit.len() > LONGEST {
        Some("it is longer than 255 bytes")
    } else if stem.is_empty() || stem.starts_with('@') {
        Some("nothing comes before its type")
    } else if !stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)) {
        Some("a unit's name is of letters, digits and : - _ . \\ @")
    } else {
        None
    }
}

/// The name that `systemctl` takes a text for: a service's without its type is completed.
pub(crate) fn completed(text: &str) -> Cow<'_, str> {
    if type_of(text).is_some() { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}.service")) }
}

/// The template that a unit is an instance of: `web@.service` of `web@1.service`.
pub(crate) fn template_of(unit: &str) -> Option<String> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let (prefix, instance) = stem.split_once('@')?;
    (!prefix.is_empty() && !instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// The object path of a unit.
pub(crate) fn path_of(unit: &str) -> String {
    let mut path = String::with_capacity(UNITS.len() + unit.len() * 2);
    path.push_str(UNITS);
    for (n, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (n > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// The unit of an object path; `None`: the path is of no unit, or of one whose name is not UTF-8.
pub(crate) fn unit_of(path: &str) -> Option<String> {
    let label = path.strip_prefix(UNITS)?.as_bytes();
    let mut name = Vec::with_capacity(label.len());
    let mut rest = label;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'_'
            && let Some((hex, after)) = after.split_at_checked(2)
            && let Some(code) = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            name.push(code);
            rest = after;
        } else {
            name.push(byte);
            rest = after;
        }
    }
    String::from_utf8(name).ok()
}

/// True if a shell pattern (`*`, `?`) matches the whole name; there are no sets.
pub(crate) fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || name.get(n) == Some(&wanted) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_inverse() {
        for name in ["a.service", "1a.service", "web@x\\x2dy.service", "user@0.service", "a_b:c-d.scope"] {
            let path = path_of(name);
            assert!(path[UNITS.len()..].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{path}");
            assert_eq!(unit_of(&path).as_deref(), Some(name));
        }
        assert_eq!(path_of("tbx1.service"), "/org/freedesktop/systemd1/unit/tbx1_2eservice");
        assert_eq!(unit_of("/org/freedesktop/systemd1/job/1"), None);
        assert_eq!(unit_of("/org/freedesktop/systemd1/unit/a_ff"), None);
    }

    #[test]
    fn an_invalid_name_is_refused() {
        for name in ["web.service", "web@1.service", "web@.service", "a\\x2db.scope", "a.b.timer"] {
            assert_eq!(flaw(name), None, "{name}");
        }
        let long = format!("{}.service", "a".repeat(250));
        for name in [
            "",
            ".service",
            "web",
            "web.exe",
            "../a.service",
            "a/b.service",
            "a b.service",
            "@1.service",
            "ü.service",
            "a\n.service",
            &long,
        ] {
            assert!(flaw(name).is_some(), "{name}");
        }
    }

    #[test]
    fn instances_know_their_template() {
        assert_eq!(template_of("web@1.service").as_deref(), Some("web@.service"));
        assert_eq!(template_of("web@.service"), None);
        assert_eq!(template_of("web.service"), None);
    }

    #[test]
    fn patterns_cover_all_of_a_name() {
        for (pattern, name) in
            [("*", "a"), ("a*c", "abc"), ("a*c", "ac"), ("*.service", "web.service"), ("w?b*", "web@1"), ("a**", "a")]
        {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*c", "ab"), ("?", ""), ("", "a"), ("*.scope", "a.service")] {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }
}
