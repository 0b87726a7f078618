//! The JSON form of a unit file: a list of sections, and the labels.

use std::collections::BTreeMap;

use bytes::Bytes;
use runtide_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::{
    labels::SECTION,
    unit_file::{Section, UnitFile},
};

const READ: &str = "systemd.store.sections";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    #[serde(default)]
    sections: Vec<FormSection>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormSection {
    name: String,
    #[serde(default)]
    entries: Vec<(String, String)>,
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, READ, why)
}

/// Converts to the text of a unit file.
pub(super) fn to_text(json: &[u8]) -> Result<Bytes> {
    let form: Form = serde_json::from_slice(json)
        .map_err(|error| refused(format!("it is not of sections, as {{\"sections\": […]}}: {error}")))?;
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(refused("it is a list, and not a map of `sections`"));
    }
    let sections = form.sections.into_iter().map(|one| Section { name: one.name, entries: one.entries });
    let mut file = UnitFile { sections: sections.collect() };
    if !form.metadata.is_empty() {
        let entries = form.metadata.labels.into_iter().collect();
        file.sections.push(Section { name: SECTION.to_owned(), entries });
    }
    match file.render() {
        Ok(text) => Ok(text.into()),
        Err((what, why)) => Err(refused(why).with_context("entry", format!("{what:?}"))),
    }
}

/// Converts the text of a unit file to sections; comments are dropped.
pub(super) fn to_json(text: &[u8]) -> Result<Bytes> {
    let file = UnitFile::parse(text).map_err(|flaw| refused(flaw.why).with_context("line", flaw.line))?;
    let mut form = Form::default();
    for section in file.sections {
        if section.name == SECTION {
            form.metadata.labels.extend(section.entries);
        } else {
            form.sections.push(FormSection { name: section.name, entries: section.entries });
        }
    }
    let mut json = serde_json::to_vec_pretty(&form).map_err(|error| refused(error.to_string()))?;
    json.push(b'\n');
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_in_their_own_section() {
        let json = br#"{"metadata":{"labels":{"team":"a b"}},"sections":[{"name":"Unit","entries":[["After","x"],["After",""]]}]}"#;
        let text = to_text(json).unwrap();
        assert_eq!(text, "[Unit]\nAfter=x\nAfter=\n\n[X-Labels]\nteam=a b\n");
        let back: Form = serde_json::from_slice(&to_json(&text).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap().as_bytes(), json);
    }

    #[test]
    fn sections_that_no_file_can_have_are_refused() {
        for json in [
            r#"{"sections":[{"name":"Unit","entries":[["a","x\ny"]]}]}"#,
            r#"{"sections":[{"name":"Unit","entries":[["a"," x"]]}]}"#,
            r#"{"sections":[{"name":"Unit","entries":[["a=b","x"]]}]}"#,
            r##"{"sections":[{"name":"Unit","entries":[["#a","x"]]}]}"##,
            r#"{"sections":[{"name":"Un\\it","entries":[]}]}"#,
            r#"{"sections":[{"name":"Un\nit","entries":[]}]}"#,
            r#"{"sections":[{"name":"Unit","entries":{}}]}"#,
            r#"{"Unit":{}}"#,
            "[]",
        ] {
            assert_eq!(to_text(json.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidInput, "{json}");
        }
    }

    proptest! {
        #[test]
        fn sections_in_json_are_read_back(
            sections in prop::collection::vec(("[A-Z][a-zA-Z-]{0,8}", prop::collection::vec(("[\\PC&&[^=]]{1,8}", "\\PC{0,12}"), 0..4)), 0..4),
            labels in prop::collection::btree_map("[a-z.]{1,5}", "[a-z ]{0,5}", 0..3),
        ) {
            let sections = sections.into_iter().filter(|(name, _)| name != SECTION);
            let sections = sections.map(|(name, entries)| FormSection { name, entries }).collect();
            let json = serde_json::to_vec(&Form { metadata: Metadata { labels }, sections }).unwrap();
            if let Ok(text) = to_text(&json) {
                let back: Form = serde_json::from_slice(&to_json(&text).unwrap()).unwrap();
                prop_assert_eq!(serde_json::to_vec(&back).unwrap(), json);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(json) = to_json(&text) {
                let _ = to_text(&json);
            }
        }
    }
}
