//! YAML as kubectl reads it, against a table of values from kubectl's own library, and the choice between the schemas.
//!
//! The table is `kubectl-cases.jsonl`: a document, without the lines of [`NAMED`] that begin most of them, and its value in JSON, or
//! none if kubectl refuses it. The values are those of `sigs.k8s.io/yaml` 1.3.0 on `gopkg.in/yaml.v2` 2.4.0, each line handed over
//! with a break as kubectl's reader does it. A row with `differs` is read in another way here, for that reason.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::tests::values;
use crate::{
    error::ErrorKind,
    store::{Document, ResourceFormat, ResourceRef, YamlSchema},
};

const NAMED: &str = "apiVersion: v1\nkind: ConfigMap\n";

fn read(text: &str, schema: YamlSchema) -> Result<Json, crate::Error> {
    let json = Document::yaml(text.to_owned()).convert_as(schema, ResourceFormat::Json)?;
    Ok(serde_json::from_slice(&json.bytes).unwrap())
}

/// Compares numbers as JSON has them: `-0` is 0, and beyond 64 bits only the float counts.
fn same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => {
            let float = one.as_f64();
            let is_exact = float.is_some_and(|float| float != 0.0 && float.abs() < 9e18);
            float == other.as_f64() && (!is_exact || one.is_f64() == other.is_f64())
        }
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

#[test]
fn a_manifest_means_what_kubectl_takes_it_for() {
    let (mut rows, mut values) = (0, 0);
    for line in include_str!("kubectl-cases.jsonl").lines() {
        let row: Json = serde_json::from_str(line).unwrap();
        let written = row["yaml"].as_str().unwrap();
        let is_whole = written.contains("apiVersion");
        let text = if is_whole { written.to_owned() } else { [NAMED, written].concat() };
        let expected = row.get("json").map(|json| {
            let mut json = json.clone();
            if let (false, Some(map)) = (is_whole, json.as_object_mut()) {
                map.insert("apiVersion".to_owned(), json!("v1"));
                map.insert("kind".to_owned(), json!("ConfigMap"));
            }
            json
        });
        let found = read(&text, YamlSchema::Kubectl);
        let agrees = match (&found, &expected) {
            (Ok(found), Some(expected)) => same(found, expected),
            (Err(_), None) => true,
            _ => false,
        };
        assert_eq!(agrees, row.get("differs").is_none(), "{text:?}\n{found:?}\n{expected:?}");
        rows += 1;
        values += usize::from(expected.is_some());
        // Such a document is chosen for this schema without being asked for.
        if let (Ok(found), false) = (found, is_whole) {
            assert!(same(&found, &read(&text, YamlSchema::Auto).unwrap()), "{text:?}");
        }
    }
    assert!(rows > 1200 && values > 900, "{rows} rows, {values} values");
}

#[test]
fn a_document_that_names_itself_is_read_as_kubectl_reads_it_and_others_by_yaml_1_2() {
    for (text, as_manifest) in [
        ("apiVersion: v1\nkind: X\nv: no\n", true),
        ("v: no\nkind: X\n# c\n\"apiVersion\": v1\n", true),
        ("{kind: X, v: no, apiVersion: v1}", true),
        ("\"\\x6bind\": X\nv: no\napiVersion: v1\n", true),
        ("x: {y: [1]}\nkind: X\nv: no\napiVersion: v1\n", true),
        ("v: no\n", false),
        ("apiVersion: v1\nv: no\n", false),
        ("x:\n  apiVersion: v1\n  kind: X\nv: no\n", false),
        ("x: apiVersion\ny: kind\nv: no\n", false),
        ("v: no\napiVersion: [v1]\nkind: X\n", false),
    ] {
        let value = |schema| read(text, schema).unwrap()["v"].clone();
        assert_eq!(value(YamlSchema::Auto), if as_manifest { json!(false) } else { json!("no") }, "{text:?}");
        assert_eq!((value(YamlSchema::Core), value(YamlSchema::Kubectl)), (json!("no"), json!(false)), "{text:?}");
    }
}

/// Keys in the order of their names, as kubectl prints them: the parser refuses the text in quotes before it comes to `kind`.
#[test]
fn a_document_that_only_kubectl_can_read_may_name_itself_behind_what_the_parser_refuses() {
    let text = "apiVersion: v1\ndata:\n  a: \"{\n}x\"\nkind: ConfigMap\nv: no\n";
    let value = read(text, YamlSchema::Auto).unwrap();
    assert_eq!((&value["data"]["a"], &value["v"]), (&json!("{ }x"), &json!(false)));
    let other = "data:\n  a: \"{\n}x\"\n# apiVersion and kind\n";
    let refused = |schema| read(other, schema).unwrap_err().to_string();
    assert_eq!(refused(YamlSchema::Auto), refused(YamlSchema::Core));
}

#[test]
fn a_body_is_named_and_labelled_by_the_same_reading() {
    let body =
        Document::yaml("x: &m {labels: {9000: 'y'}}\napiVersion: v1\nkind: Node\nmetadata:\n  <<: *m\n  name: n1\n");
    assert_eq!(ResourceRef::from_document(&body).unwrap().as_str(), "/Node//n1");
    assert_eq!(body.labels().unwrap().get("9000"), Some("y"));
    let coded = Document::yaml("apiVersion: v1\nkind: Node\nmetadata: {!!binary bGFiZWxz : {a: b}}\n");
    assert_eq!(coded.labels().unwrap().get("a"), Some("b"));
    let no_text = Document::yaml("apiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {a: on}}\n");
    assert!(no_text.labels().unwrap_err().message().contains("a boolean"));
    // By name, both can be had, and written again in YAML.
    let mode = Document::yaml("mode: 0644\nwhen: on\n");
    let written = |schema| mode.convert_as(schema, ResourceFormat::Yaml).unwrap();
    assert_eq!(written(YamlSchema::Kubectl), Document::yaml("mode: 420\nwhen: true\n"));
    assert_eq!(written(YamlSchema::Core), Document::yaml("mode: 644\nwhen: \"on\"\n"));
}

#[test]
fn hostile_manifests_are_refused_in_time() {
    let merges = |times: usize| {
        let mut text = NAMED.to_owned() + "a0: &a0 {k0: x, k1: y}\n";
        let level = |at: usize| format!("a{at}: &a{at}\n  <<: [*a{0}, *a{0}]\n  k{at}: {{<<: *a{0}}}\n", at - 1);
        text.extend((1..times).map(level));
        text
    };
    assert!(read(&merges(6), YamlSchema::Auto).is_ok());
    assert_eq!(read(&merges(60), YamlSchema::Auto).unwrap_err().kind(), ErrorKind::InvalidInput);
    // More lines than are indented.
    let quoted = |lines: usize| [NAMED, "v: '", &"x\n".repeat(lines), "'\n"].concat();
    assert!(read(&quoted(100), YamlSchema::Auto).is_ok());
    let refused = read(&quoted(100_000), YamlSchema::Auto).unwrap_err();
    assert!(refused.kind() == ErrorKind::InvalidInput && refused.message().contains("indentation"), "{refused}");
}

/// The value as kubectl has it: a float without a fraction that fits an integer is one.
fn as_kubectl_has_it(value: &mut Json) {
    match value {
        Json::Number(number) => {
            if let Some(whole) =
                number.is_f64().then(|| number.to_string()).filter(|_| number.as_f64().unwrap().fract() == 0.0)
            {
                let float: f64 = whole.parse().unwrap();
                if let Ok(whole) = float.to_string().parse::<i64>() {
                    *value = json!(whole);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(as_kubectl_has_it),
        Json::Object(map) => map.values_mut().for_each(as_kubectl_has_it),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_means_the_same_to_both(value in values(true)) {
        let Ok(bytes) = super::super::write(&value, ResourceFormat::Yaml) else { return Ok(()) };
        let text = String::from_utf8(bytes).unwrap();
        let mut core = read(&text, YamlSchema::Core).unwrap();
        as_kubectl_has_it(&mut core);
        let kubectl = read(&text, YamlSchema::Kubectl);
        prop_assert!(kubectl.is_ok(), "{kubectl:?}\n{text}");
        prop_assert!(same(&core, &kubectl.unwrap()), "{text}");
    }
}
