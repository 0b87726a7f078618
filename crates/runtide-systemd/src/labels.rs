//! Labels, which systemd does not have: of a unit file, in its `X-` sections, which systemd leaves to others; of a transient
//! unit, which takes no unknown properties (trap S9), in one variable of its environment.

use std::collections::BTreeMap;

use runtide_core::Labels;

use crate::unit_file::UnitFile;

/// A JSON object of texts.
pub(crate) const VARIABLE: &str = "RUNTIDE_LABELS";

/// The kernel takes no longer text into a process (`MAX_ARG_STRLEN`, 128 KiB).
const LONGEST: usize = 128 * 1024 - 1;

/// The section whose keys are labels as they are; those of any other `X-Name` are `Name.key`.
pub(crate) const SECTION: &str = "X-Labels";

/// `RUNTIDE_LABELS={…}`; `None`: longer than any process can be given.
pub(crate) fn assignment(labels: &Labels) -> Option<String> {
    let map: BTreeMap<&str, &str> = labels.iter().collect();
    let text = format!("{VARIABLE}={}", serde_json::to_string(&map).ok()?);
    (text.len() < LONGEST).then_some(text)
}

/// The labels in an environment; none if there is no such variable, or it is of somebody else's making.
pub(crate) fn of_environment<'a>(environment: impl IntoIterator<Item = &'a str>) -> Labels {
    let last = environment.into_iter().filter_map(|one| one.strip_prefix(VARIABLE)?.strip_prefix('=')).last();
    let map: BTreeMap<String, String> = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    map.into_iter().collect()
}

/// The labels in the `X-` sections of a unit's files, main file first; the last assignment of a key counts.
pub(crate) fn of_files<'a>(files: impl IntoIterator<Item = &'a UnitFile>) -> Labels {
    let mut found = BTreeMap::new();
    for section in files.into_iter().flat_map(|file| &file.sections) {
        let Some(name) = section.name.strip_prefix("X-") else { continue };
        for (key, value) in &section.entries {
            let key = if section.name == SECTION { key.clone() } else { format!("{name}.{key}") };
            found.insert(key, value.clone());
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_carries_any_text() {
        let labels = Labels::from_iter([("a.b", "x\"y\nz\\ $%"), ("ü", ""), ("runtide.owner", "me")]);
        let text = assignment(&labels).unwrap();
        assert_eq!(of_environment(["PATH=/bin", &text]), labels);
        assert_eq!(of_environment(["RUNTIDE_LABELS=[1]", "RUNTIDE_LABELSX={}"]), Labels::new());
        assert_eq!(assignment(&Labels::from_iter([("a", "x".repeat(LONGEST))])), None);
    }

    #[test]
    fn files_carry_them_in_sections_of_their_own() {
        let main = UnitFile::parse("[Service]\nA=1\n[X-koi]\ndns.name=web\n[X-Labels]\nteam=a\n").unwrap();
        let drop_in = UnitFile::parse("[X-Labels]\nteam = b c\n").unwrap();
        let labels = of_files([&main, &drop_in]);
        assert_eq!(labels, Labels::from_iter([("koi.dns.name", "web"), ("team", "b c")]));
    }
}
