//! The heading of a body: the resource's name, and its labels.

use memchr::memmem;

use super::{
    Document, ResourceFormat, ResourceRef,
    format::{self, Value},
    list,
};
use crate::{
    error::{Error, ErrorKind, Result},
    labels::Labels,
};

const REFERENCE: &str = "document.reference";
const LABELS: &str = "document.labels";
const LIST: &str = "it is a list of resources; `Document::resources` separates them";

impl ResourceRef {
    /// Reads the reference from a body.
    ///
    /// * YAML (read as kubectl does, [`YamlSchema::Auto`](super::YamlSchema::Auto)), JSON and CBOR: `apiVersion` (`apps/v1` is the group `apps`, `v1` is the core group), `kind`, `metadata.name`,
    ///   and `metadata.namespace` if it is there and not empty.
    /// * HCL: the one block at the top, next to any number of `variable`, `variables` and `locals`. Its type is the kind, its
    ///   first label the name, its attribute `namespace` the namespace, and its group the core group. Expressions elsewhere
    ///   do not matter.
    ///
    /// A byte order mark before a text does not matter either.
    ///
    /// ```
    /// use runtide_core::store::{Document, ResourceRef};
    ///
    /// let json = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"}}"#;
    /// assert_eq!(ResourceRef::from_document(&Document::json(json))?.as_str(), "apps/Deployment/shop/web");
    /// # #[cfg(feature = "hcl")] {
    /// let hcl = "job \"web\" {\n  namespace = \"shop\"\n  group \"front\" {}\n}\n";
    /// assert_eq!(ResourceRef::from_document(&Document::hcl(hcl))?.as_str(), "/job/shop/web");
    /// # }
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if the body cannot be read, names what is missing, or has a name that cannot be one; `Unsupported` for
    /// a native body, and for a format of which the feature is off.
    pub fn from_document(document: &Document) -> Result<Self> {
        let wrap = |problem: format::Problem| problem.into_error(REFERENCE, document.format);
        #[cfg(feature = "hcl")]
        if document.format == ResourceFormat::Hcl {
            let heading = format::heading(document).map_err(wrap)?;
            let name =
                heading.name.ok_or_else(|| bad(REFERENCE, document, "its block has no label, which would name it"))?;
            return Self::new("", &heading.kind, heading.namespace.as_deref().filter(|text| !text.is_empty()), &name);
        }
        let value = format::read(document).map_err(wrap)?;
        if !matches!(value, Value::Map(_)) {
            return Err(bad(REFERENCE, document, &format!("it is {}, and not a map", value.sort())));
        }
        let version = text(document, &value, "apiVersion", "apiVersion")?;
        let group = match version.split_once('/') {
            Some((group, version)) if !group.is_empty() && !version.is_empty() && !version.contains('/') => group,
            None if !version.is_empty() => "",
            _ => return Err(bad(REFERENCE, document, "`apiVersion` is neither `version` nor `group/version`")),
        };
        let kind = text(document, &value, "kind", "kind")?;
        let metadata = value.get("metadata");
        if list::is_list(&value) && metadata.and_then(|metadata| metadata.get("name")).is_none() {
            return Err(bad(REFERENCE, document, LIST));
        }
        let metadata = metadata.ok_or_else(|| bad(REFERENCE, document, "`metadata` is missing"))?;
        let name = text(document, metadata, "name", "metadata.name")?;
        let namespace = match metadata.get("namespace") {
            None | Some(Value::Null) => None,
            Some(_) => Some(text(document, metadata, "namespace", "metadata.namespace")?),
        };
        Self::new(group, kind, namespace.filter(|namespace| !namespace.is_empty()), name)
    }
}

fn bad(operation: &'static str, document: &Document, message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, operation, message).with_context("format", document.format)
}

/// A text that must be there.
fn text<'a>(document: &Document, map: &'a Value, key: &str, path: &str) -> Result<&'a str> {
    match map.get(key) {
        Some(Value::Text(text)) => Ok(text),
        Some(other) => Err(bad(REFERENCE, document, &format!("`{path}` is {}, and not a text", other.sort()))),
        None => Err(bad(REFERENCE, document, &format!("`{path}` is missing"))),
    }
}

/// The body's own labels.
pub(super) fn labels(document: &Document) -> Result<Labels> {
    let wrap = |problem: format::Problem| problem.into_error(LABELS, document.format);
    format::known(document.format).map_err(wrap)?;
    if !may_have_labels(document.format, format::bounded(document).map_err(wrap)?) {
        return Ok(Labels::new());
    }
    #[cfg(feature = "hcl")]
    if document.format == ResourceFormat::Hcl {
        let meta = format::labels(document).map_err(wrap)?;
        return unique(document, meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
    }
    let value = format::read(document).map_err(wrap)?;
    match value.get("metadata").and_then(|metadata| metadata.get("labels")) {
        None | Some(Value::Null) => Ok(Labels::new()),
        Some(Value::Map(entries)) => {
            let pairs = entries.iter().map(|(key, value)| match value {
                Value::Text(value) => Ok((key.as_str(), value.as_str())),
                other => {
                    let shown: String = key.chars().take(64).collect();
                    let message = format!("the label {shown:?} is {}, and not a text", other.sort());
                    Err(bad(LABELS, document, &message))
                }
            });
            unique(document, pairs.collect::<Result<_>>()?)
        }
        Some(other) => Err(bad(LABELS, document, &format!("`metadata.labels` is {}, and not a map", other.sort()))),
    }
}

fn unique(document: &Document, pairs: Vec<(&str, &str)>) -> Result<Labels> {
    let count = pairs.len();
    let labels: Labels = pairs.into_iter().collect();
    if labels.len() == count { Ok(labels) } else { Err(bad(LABELS, document, "a label is there twice")) }
}

/// `true` if the key can be in these bytes: as itself, or in a spelling that needs one of the characters searched for.
fn may_have_labels(format: ResourceFormat, bytes: &[u8]) -> bool {
    match format {
        // An escape begins with a backslash, a folded line puts a space where it breaks the word, and a tag may decode base64.
        ResourceFormat::Yaml | ResourceFormat::Json => {
            memmem::find(bytes, b"labels").is_some() || memchr::memchr2(b'\\', b'!', bytes).is_some()
        }
        ResourceFormat::Hcl => memmem::find(bytes, b"meta").is_some() || memchr::memchr(b'\\', bytes).is_some(),
        // A text in pieces begins with this byte.
        ResourceFormat::Cbor => memmem::find(bytes, b"labels").is_some() || memchr::memchr(0x7f, bytes).is_some(),
        ResourceFormat::Native => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same body in every format of this build that has the shape of JSON.
    fn bodies(json: &str) -> Vec<Document> {
        let json = Document::json(json.to_owned());
        let others = [ResourceFormat::Yaml, ResourceFormat::Cbor].map(|format| json.convert(format).ok());
        others.into_iter().flatten().chain([json.clone()]).collect()
    }

    #[test]
    fn a_body_names_its_resource() {
        for (json, named) in [
            (
                r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web","namespace":"shop"}}"#,
                "apps/Deployment/shop/web",
            ),
            (r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}"#, "/Node//n1"),
            (r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","namespace":null}}"#, "/Node//n1"),
            (r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","namespace":""}}"#, "/Node//n1"),
        ] {
            for body in bodies(json) {
                assert_eq!(ResourceRef::from_document(&body).unwrap().as_str(), named, "{}", body.format);
            }
        }
    }

    #[test]
    fn a_missing_part_is_named() {
        for (json, missing) in [
            ("[]", "a list, and not a map"),
            ("{}", "`apiVersion` is missing"),
            (r#"{"apiVersion":1}"#, "`apiVersion` is a number"),
            (r#"{"apiVersion":"a/b/c"}"#, "neither `version` nor `group/version`"),
            (r#"{"apiVersion":"/v1"}"#, "neither"),
            (r#"{"apiVersion":"v1"}"#, "`kind` is missing"),
            (r#"{"apiVersion":"v1","kind":"K"}"#, "`metadata` is missing"),
            (r#"{"apiVersion":"v1","kind":"K","metadata":{}}"#, "`metadata.name` is missing"),
            (
                r#"{"apiVersion":"v1","kind":"K","metadata":{"name":"n","namespace":1}}"#,
                "`metadata.namespace` is a number",
            ),
            (r#"{"apiVersion":"v1","kind":"K","metadata":{"name":"../n"}}"#, "not a name"),
        ] {
            for body in bodies(json) {
                let error = ResourceRef::from_document(&body).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.message().contains(missing), "{error}");
            }
        }
        let native = Document::new(ResourceFormat::Native, "[Unit]");
        assert_eq!(ResourceRef::from_document(&native).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(native.labels().unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn labels_are_read_and_checked() {
        for (json, count) in [
            (r#"{"metadata":{"labels":{"a":"1","b":""}}}"#, Some(2)),
            (r#"{"metadata":{"labels":null}}"#, Some(0)),
            (r#"{"metadata":{"l":"labels"}}"#, Some(0)),
            (r#"{"labels":{"a":"b"}}"#, Some(0)),
            ("[]", Some(0)),
            (r#"{"metadata":{"labels":{"a":1}}}"#, None),
            (r#"{"metadata":{"labels":{"a":true}}}"#, None),
            (r#"{"metadata":{"labels":[]}}"#, None),
        ] {
            for body in bodies(json) {
                let labels = body.labels();
                assert_eq!(labels.as_ref().ok().map(Labels::len), count, "{json} {labels:?}");
                assert!(labels.err().is_none_or(|error| error.kind() == ErrorKind::InvalidInput));
            }
        }
    }

    #[test]
    fn no_spelling_of_the_key_is_overlooked() {
        let spelled = [
            Document::json(r#"{"metadata":{"\u006cabels":{"a":"b"}}}"#),
            Document::yaml("metadata: {\"\\x6cabels\": {a: b}}"),
            Document::yaml("metadata:\n  ? \"lab\\\n    els\"\n  : a: b\n"),
            Document::cbor(&b"\xa1\x68metadata\xa1\x7f\x63lab\x63els\xff\xa1\x61a\x61b"[..]),
            Document::hcl("job \"x\" {\n  meta {\n    a = \"b\"\n  }\n}\n"),
            Document::hcl("job \"x\" { meta = { \"a\" = \"b\" } }\n"),
        ];
        for document in spelled.into_iter().filter(|document| format::known(document.format).is_ok()) {
            assert_eq!(document.labels().unwrap().get("a"), Some("b"), "{}", document.format);
        }
    }

    #[test]
    fn a_body_that_cannot_have_labels_is_not_parsed() {
        assert!(Document::json("{ broken").labels().unwrap().is_empty());
        assert_eq!(Document::json("{ broken labels").labels().unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_byte_order_mark_does_not_matter() {
        let yaml = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {a: b}}\n";
        for body in [
            Document::json(
                "\u{feff}{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"n1\",\"labels\":{\"a\":\"b\"}}}",
            ),
            Document::yaml(format!("\u{feff}{yaml}")),
            Document::yaml(format!("\u{feff}---\r\n{yaml}")),
            Document::hcl("\u{feff}Node \"n1\" {\r\n  meta { a = \"b\" }\r\n}\r\n"),
        ] {
            if format::known(body.format).is_err() {
                continue;
            }
            assert_eq!(ResourceRef::from_document(&body).unwrap().as_str(), "/Node//n1", "{}", body.format);
            assert_eq!(body.labels().unwrap().get("a"), Some("b"), "{}", body.format);
            assert_eq!(body.split().unwrap(), std::slice::from_ref(&body), "its bytes stay as they are");
            assert_eq!(body.resources().unwrap(), std::slice::from_ref(&body));
            assert_eq!(body.convert(ResourceFormat::Native).unwrap_err().kind(), ErrorKind::Unsupported);
            if body.format != ResourceFormat::Json {
                assert!(!body.convert(ResourceFormat::Json).unwrap().bytes.starts_with(b"\xef"));
            }
        }
        assert!(ResourceRef::from_document(&Document::json("\u{feff}\u{feff}{}")).is_err(), "one mark only");
    }

    /// Expressions that HCL allows wherever it allows a value.
    #[cfg(feature = "hcl")]
    const EXPRESSIONS: [&str; 34] = [
        "var.a",
        "local.b[0].c",
        "a.*.b",
        "a[*].b",
        "a.0.b",
        "a[var.key]",
        "f()",
        "f(a, 1, [2]...)",
        "upper(join(\"-\", [\"a\", var.b]))",
        "a ? b : c",
        "a ? { x = 1 } : {}",
        "!a && -b < 2 || c != d",
        "(a + 1) * 2 % 3",
        "[for x in y : x if x != \"\"]",
        "{ for k, v in m : k => v... }",
        "{ (a) = 1, \"b\" : 2, c = var.d }",
        "[a, \"${b}\", { c = d }]",
        "\"${a}\"",
        "\"a ${b} c ${d[\"e\"]} %{ if f }g%{ else }h%{ endif }\"",
        "\"%{ for x in y ~}\\n${x}%{~ endfor }\"",
        "\"$${a} %%{b}\"",
        "\"${NOMAD_TASK_DIR}/x\"",
        "<<EOF\n${a}\n  b \"c\" {\n}\nEOF",
        "<<-EOF\n    %{ if a }\n    b\n    %{ endif }\n    EOF",
        "<<EOF\n{{ range service \"x\" }}{{ .Address }}{{ end }}\nEOF",
        "1.5e3",
        "null",
        "true",
        "map(object({ a = string, b = optional(number, 1) }))",
        "string",
        "[\n  a,\n  # c\n  b, // d\n]",
        "{\n  a = b /* c */\n  \"d\" = e\n}",
        "(\n  a\n)",
        "file(\"x.tpl\")",
    ];

    #[cfg(feature = "hcl")]
    #[test]
    fn expressions_matter_only_where_a_job_is_named() {
        let named = |hcl: &str| {
            let job = Document::hcl(hcl.to_owned());
            let found = ResourceRef::from_document(&job);
            assert_eq!(
                found.as_ref().map(ResourceRef::as_str).unwrap_or_default(),
                "/job/shop/web",
                "{hcl}\n{found:?}"
            );
            job
        };
        for value in EXPRESSIONS {
            let around = [
                format!("v = {value}\njob \"web\" {{\n  namespace = \"shop\"\n  meta {{ tier = \"front\" }}\n}}\n"),
                format!(
                    "variable \"v\" {{\n  default = {value}\n}}\nvariables {{\n  w = {value}\n}}\nlocals {{\n  x = {value}\n}}\njob web {{\n  namespace = \"shop\"\n  meta = {{ tier = \"front\" }}\n}}\nvariable \"last\" {{}}\n"
                ),
                format!(
                    "job \"web\" {{\n  count = {value}\n  namespace = \"shop\"\n  meta {{ tier = \"front\" }}\n  group \"g\" {{\n    x = {value}\n    task \"t\" {{ \n y = [{value}\n]\n }}\n    meta {{\n z = {value}\n }}\n  }}\n}}\n"
                ),
            ];
            for hcl in &around {
                assert_eq!(named(hcl).labels().unwrap().get("tier"), Some("front"), "{hcl}");
            }
            // The labels do not matter for the name, nor the name for the labels.
            named(&format!("job \"web\" {{\n  namespace = \"shop\"\n  meta {{\n    a = {value}\n  }}\n}}\n"));
            named(&format!("job \"web\" {{\n  namespace = \"shop\"\n  meta = {{\n    a = {value}\n  }}\n}}\n"));
            named(&format!("job \"web\" {{\n  namespace = \"shop\"\n  meta = {value}\n}}\n"));
            let job =
                Document::hcl(format!("job \"web\" {{\n  meta {{ tier = \"front\" }}\n  namespace = {value}\n}}\n"));
            assert_eq!(job.labels().unwrap().get("tier"), Some("front"), "{value}");
        }
    }

    #[cfg(feature = "hcl")]
    #[test]
    fn a_text_that_needs_no_evaluation_is_one_in_every_spelling() {
        for spelled in ["\"shop\"", "(\"shop\")", "<<E\nshop\nE", "\"\\u0073hop\""] {
            let job = Document::hcl(format!(
                "job \"web\" {{\n  namespace = {spelled}\n  meta {{\n    a = {spelled}\n  }}\n}}\n"
            ));
            let found = ResourceRef::from_document(&job);
            // A heredoc ends with a break, which no name has.
            assert_eq!(found.is_ok(), !spelled.starts_with('<'), "{spelled}");
            assert_eq!(job.labels().unwrap().get("a").map(str::trim_end), Some("shop"), "{spelled}");
        }
        let meta = Document::hcl("job \"web\" {\n  meta = { (\"a\") = 3, b = -1.50, c = true, \"d\" = \"\" }\n}\n")
            .labels()
            .unwrap();
        let found: Vec<_> = meta.iter().collect();
        assert_eq!(found, [("a", "3"), ("b", "-1.5"), ("c", "true"), ("d", "")]);
        // A declaration alone is the one block.
        let variable = Document::hcl("variable \"v\" {}\n");
        assert_eq!(ResourceRef::from_document(&variable).unwrap().as_str(), "/variable//v");
        let two = Document::hcl("variable \"v\" {}\nvariable \"w\" {}\n");
        assert!(ResourceRef::from_document(&two).unwrap_err().message().contains("2 blocks"));
    }

    #[cfg(feature = "hcl")]
    #[test]
    fn a_job_is_named_by_its_block_though_it_has_expressions() {
        let job = "# web\njob \"web\" {\n  namespace = \"shop\"\n  count = var.count + 1\n  meta {\n    tier = \"front\"\n  }\n}\n";
        let job = Document::hcl(job);
        assert_eq!(ResourceRef::from_document(&job).unwrap().as_str(), "/job/shop/web");
        assert_eq!(job.labels().unwrap().get("tier"), Some("front"));
        for (hcl, missing) in [
            ("a = 1\n", "0 blocks"),
            ("job \"a\" {}\njob \"b\" {}\n", "2 blocks"),
            ("job {}\n", "no label"),
            ("job \"a\" { namespace = 1 }\n", "`namespace` is not a text"),
            ("job \"a\" { namespace = var.x }\n", "`namespace` is not a text"),
            ("job \"a/b\" {}\n", "not a name"),
            ("job \"a\" {", "line 1"),
        ] {
            let error = ResourceRef::from_document(&Document::hcl(hcl)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().contains(missing), "{error}");
        }
        for bad in
            ["meta = 1", "meta = { a = [1] }", "meta = { a = \"${b}\" }", "meta {}\nmeta {}", "meta {}\nmeta = {}"]
        {
            let error = Document::hcl(format!("job \"a\" {{\n{bad}\n}}\n")).labels().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
