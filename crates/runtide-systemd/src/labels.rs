//! Labels, which systemd does not have: those of a unit file are in its `X-` sections, which systemd ignores; those of
//! a transient unit, which accepts no unknown properties (trap S9), are in one variable of its environment.

use std::collections::BTreeMap;

use runtide_core::Labels;

use crate::unit_file::UnitFile;

/// Environment variable with the labels, as a JSON object of strings.
pub(crate) const VARIABLE: &str = "RUNTIDE_LABELS";

/// Longest string that the kernel passes to a process (`MAX_ARG_STRLEN`, 128 KiB).
const LONGEST: usize = 128 * 1024 - 1;

/// Section whose keys are labels as they are; the keys of any other `X-Name` are `Name.key`.
pub(crate) const SECTION: &str = "X-Labels";

/// Formats `RUNTIDE_LABELS={…}`; `None`: longer than any process can be given.
pub(crate) fn assignment(labels: &Labels) -> Option<String> {
    let map: BTreeMap<&str, &str> = labels.iter().collect();
    let text = format!("{VARIABLE}={}", serde_json::to_string(&map).ok()?);
    (text.len() < LONGEST).then_some(text)
}

/// Reads the labels in an environment; none if there is no such variable, or its value is not in our format.
pub(crate) fn of_environment<'a>(environment: impl IntoIterator<Item = &'a str>) -> Labels {
    let last = environment.into_iter().filter_map(|one| one.strip_prefix(VARIABLE)?.strip_prefix('=')).last();
    let map: BTreeMap<String, String> = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    map.into_iter().collect()
}

/// Reads the labels in the file that systemd writes for a transient unit: those of its environment.
pub(crate) fn of_transient(file: &UnitFile) -> Labels {
    let mut variables: Vec<String> = Vec::new();
    for (_, line) in file.entries("Service").filter(|(key, _)| *key == "Environment") {
        if line.is_empty() {
            variables.clear(); // as systemd does with every list
        }
        variables.extend(words(line));
    }
    of_environment(variables.iter().map(String::as_str))
}

/// Splits a line as systemd writes it into words: quoted where necessary, with the escapes of C, and `%` doubled.
fn words(line: &str) -> Vec<String> {
    let (mut found, mut word, mut open) = (Vec::new(), None::<Vec<u8>>, None);
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, open) {
            (b'"' | b'\'', None) => {
                open = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(quote)) if byte == quote => open = None,
            (b' ' | b'\t', None) => found.extend(word.take()),
            (b'\\', _) => word.get_or_insert_default().push(match bytes.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'r') => b'\r',
                Some(b'a') => 7,
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'v') => 11,
                Some(b's') => b' ',
                Some(b'x') => hex(&mut bytes),
                Some(digit @ b'0'..=b'3') => octal(digit, &mut bytes),
                Some(other) => other,
                None => b'\\',
            }),
            (b'%', _) => {
                word.get_or_insert_default().push(b'%');
                let mut ahead = bytes.clone();
                if ahead.next() == Some(b'%') {
                    bytes = ahead;
                }
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    found.extend(word);
    found.into_iter().filter_map(|word| String::from_utf8(word).ok()).collect()
}

fn hex(bytes: &mut std::str::Bytes<'_>) -> u8 {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let value = bytes.by_ref().take(2).fold(0, |value, byte| value * 16 + digit(byte));
    u8::try_from(value).unwrap_or(b'?')
}

fn octal(first: u8, bytes: &mut std::str::Bytes<'_>) -> u8 {
    let digit = |byte: u8| u32::from(byte.saturating_sub(b'0'));
    let value = bytes.by_ref().take(2).fold(digit(first), |value, byte| value * 8 + digit(byte));
    u8::try_from(value).unwrap_or(b'?')
}

/// Reads the labels in the `X-` sections of a unit's files, main file first; the last assignment of a key counts.
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
    fn the_file_of_a_transient_unit_is_read_as_systemd_writes_it() {
        let text = "[Service]\nEnvironment=\"A=1 2\" \"RUNTIDE_LABELS={\\\"a.b\\\":\\\"x%%y\\\\n\\\"}\"\n";
        let file = UnitFile::parse(text.as_bytes()).unwrap();
        assert_eq!(of_transient(&file), Labels::from_iter([("a.b", "x%y\n")]));
        assert_eq!(words("a 'b c' \"d\\x41\\101\" e"), ["a", "b c", "dAA", "e"]);
    }

    #[test]
    fn files_have_labels_in_x_sections() {
        let main = UnitFile::parse(b"[Service]\nA=1\n[X-koi]\ndns.name=web\n[X-Labels]\nteam=a\n").unwrap();
        let drop_in = UnitFile::parse(b"[X-Labels]\nteam = b c\n").unwrap();
        let labels = of_files([&main, &drop_in]);
        assert_eq!(labels, Labels::from_iter([("koi.dns.name", "web"), ("team", "b c")]));
    }
}
