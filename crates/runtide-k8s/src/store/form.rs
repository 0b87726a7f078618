//! Forms: what a resource is in the cluster. [`Objects`] is the usual one.

use std::fmt;

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Document, ResourceFormat, ResourceRef, Selector},
};
use serde_json::{Map, Value};

/// Operation in the errors of documents that no object can be made of.
const OPERATION: &str = "k8s.store.object";

/// Translation of resources into objects of a cluster and back. [`Objects`] takes each resource for the object that it names; another
/// form can keep other declarations in a kind of its own.
pub trait KubeForm: fmt::Debug + Send + Sync + 'static {
    /// The object that holds the resource. Different resources have different objects.
    ///
    /// # Errors
    /// `InvalidInput` if there can be none.
    fn object(&self, resource: &ResourceRef) -> Result<ResourceRef>;

    /// The object's body, in JSON or YAML; what it does not name of version, kind, name and namespace is filled in.
    ///
    /// # Errors
    /// `InvalidInput` if the document has no form as an object.
    fn write(&self, resource: &ResourceRef, document: &Document) -> Result<Document>;

    /// The resource that an object holds; `None` if it holds none. The body is JSON, without the fields that are the server's.
    fn read(&self, object: &ResourceRef, body: Document) -> Option<(ResourceRef, Document)>;

    /// The objects that can hold the selected resources: all of them, and perhaps others. Labels are the objects' own.
    fn narrow(&self, selector: &Selector) -> Selector;

    /// `true` if objects in the order of their references hold resources in the order of theirs. If not, each page of a listing takes the
    /// whole listing.
    fn is_ordered(&self) -> bool {
        false
    }
}

/// The usual form: a resource is the object that it names.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it is made by its name")]
pub struct Objects;

impl KubeForm for Objects {
    fn object(&self, resource: &ResourceRef) -> Result<ResourceRef> {
        Ok(resource.clone())
    }

    fn write(&self, _: &ResourceRef, document: &Document) -> Result<Document> {
        Ok(document.clone())
    }

    fn read(&self, object: &ResourceRef, body: Document) -> Option<(ResourceRef, Document)> {
        Some((object.clone(), body))
    }

    fn narrow(&self, selector: &Selector) -> Selector {
        selector.clone()
    }

    fn is_ordered(&self) -> bool {
        true
    }
}

/// Fields of `metadata` that are the server's alone.
const OWN: [&str; 8] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Takes out what is the server's: what is left is the declaration.
pub(super) fn strip(object: &mut Map<String, Value>) {
    object.remove("status");
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        for field in OWN {
            metadata.remove(field);
        }
    }
}

/// An object that is about to be applied.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) body: Map<String, Value>,
    /// The version of its group; `None`: the document names none.
    pub(super) version: Option<String>,
    /// Conditions that the document itself carries.
    pub(super) uid: Option<String>,
    pub(super) revision: Option<u64>,
}

fn bad(object: &ResourceRef, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message).with_context("resource", object)
}

/// Reads the body of an object, which must be the object that it is said to be.
pub(super) fn declared(object: &ResourceRef, document: &Document) -> Result<Declared> {
    if document.bytes.len() > Document::MAX_BYTES {
        let message =
            format!("the document has {} bytes, and {} is the most", document.bytes.len(), Document::MAX_BYTES);
        return Err(bad(object, message));
    }
    let json = document.convert(ResourceFormat::Json).map_err(|error| error.with_context("resource", object))?;
    let bytes = json.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&json.bytes);
    let mut body = match serde_json::from_slice(bytes) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return Err(bad(object, "an object is a map")),
        Err(error) => return Err(bad(object, format!("it cannot be read: {error}"))),
    };
    let version = match body.get("apiVersion") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            let (group, version) = text.split_once('/').unwrap_or(("", text));
            if group != object.group() || version.is_empty() {
                return Err(bad(
                    object,
                    format!("its apiVersion is {text:?}, and not of the group {:?}", object.group()),
                ));
            }
            Some(version.to_owned())
        }
        Some(other) => return Err(bad(object, format!("its apiVersion is {other}, and not a text"))),
    };
    agrees(object, "kind", body.get("kind"), object.kind())?;
    body.insert("kind".to_owned(), object.kind().into());
    let metadata = match body.entry("metadata").or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(metadata) => metadata,
        other => return Err(bad(object, format!("its metadata are {other}, and not a map"))),
    };
    agrees(object, "metadata.name", metadata.get("name"), object.name())?;
    agrees(object, "metadata.namespace", metadata.get("namespace"), object.namespace().unwrap_or_default())?;
    metadata.insert("name".to_owned(), object.name().into());
    match object.namespace() {
        Some(namespace) => metadata.insert("namespace".to_owned(), namespace.into()),
        None => metadata.remove("namespace"),
    };
    let mut condition = |key: &str| match metadata.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (uid, seen) = (condition("uid"), condition("resourceVersion"));
    let revision = match seen {
        Some(text) => {
            Some(text.parse().map_err(|_| bad(object, format!("its resourceVersion is no number: {text:?}")))?)
        }
        None => None,
    };
    for field in OWN {
        metadata.remove(field);
    }
    Ok(Declared { body, version, uid, revision })
}

/// Refuses a part that names something else than the reference does; one that is absent or empty names nothing.
fn agrees(object: &ResourceRef, path: &str, found: Option<&Value>, expected: &str) -> Result<()> {
    match found {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.is_empty() || text == expected => Ok(()),
        Some(other) => {
            let shown: String = other.to_string().chars().take(64).collect();
            Err(bad(object, format!("its {path} is {shown}, and its reference says {expected:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ResourceRef {
        ResourceRef::new("apps", "Deployment", "shop", "web").unwrap()
    }

    #[test]
    fn what_is_the_servers_is_stripped_and_conditions_are_kept() {
        let text = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop","uid":"u1",
            "resourceVersion":"7","generation":2,"creationTimestamp":null,"managedFields":[{}],"labels":{"a":"b"}},"spec":{"replicas":1}}"#;
        let declared = declared(&web(), &Document::json(text)).unwrap();
        assert_eq!(
            (declared.uid.as_deref(), declared.revision, declared.version.as_deref()),
            (Some("u1"), Some(7), Some("v1"))
        );
        let body = Value::Object(declared.body);
        let expected = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}}, "spec": {"replicas": 1}});
        assert_eq!(body, expected);
    }

    #[test]
    fn what_a_document_does_not_name_is_filled_in() {
        let declared = declared(&web(), &Document::json("{}")).unwrap();
        let expected = serde_json::json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
        assert_eq!((Value::Object(declared.body), declared.version), (expected, None));
    }

    #[test]
    fn a_document_of_another_resource_is_refused() {
        for (text, why) in [
            ("[]", "a map"),
            ("{", "read"),
            (r#"{"apiVersion":"v1"}"#, "apiVersion"),
            (r#"{"apiVersion":"apps/"}"#, "apiVersion"),
            (r#"{"apiVersion":1}"#, "apiVersion"),
            (r#"{"kind":"Pod"}"#, "kind"),
            (r#"{"kind":1}"#, "kind"),
            (r#"{"metadata":[]}"#, "metadata"),
            (r#"{"metadata":{"name":"other"}}"#, "metadata.name"),
            (r#"{"metadata":{"namespace":"other"}}"#, "metadata.namespace"),
            (r#"{"metadata":{"resourceVersion":"x"}}"#, "resourceVersion"),
        ] {
            let error = declared(&web(), &Document::json(text)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        let native = Document::new(ResourceFormat::Native, "x");
        assert_eq!(declared(&web(), &native).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
