//! Objects as the server shows them: what a store needs of their metadata, and the rest as it is.

use std::sync::Arc;

use runtide_core::store::{Document, Resource, ResourceRef, Revision};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    catalog::Kind,
    form::{KubeForm, strip},
};

/// An object of the server.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) reference: ResourceRef,
    pub(super) uid: String,
    pub(super) revision: u64,
    /// True once its deletion was accepted.
    pub(super) is_deleted: bool,
    pub(super) finalizers: Vec<String>,
    /// All of it.
    pub(super) body: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    resource_version: String,
    #[serde(default)]
    deletion_timestamp: Option<Value>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
}

impl Object {
    /// Reads an object of this kind; the reason, if it is none that a reference can name.
    pub(super) fn of(kind: &Kind, bytes: &[u8]) -> Result<Self, String> {
        let mut body: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let metadata = body.get("metadata").ok_or("it has no metadata")?;
        let meta = Meta::deserialize(metadata).map_err(|error| error.to_string())?;
        let namespace = meta.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let reference = ResourceRef::new(&kind.group, &kind.kind, namespace, &meta.name);
        let reference = reference.map_err(|error| error.message().to_owned())?;
        let revision = meta.resource_version.parse().map_err(|_| "its resourceVersion is no number")?;
        // The items of a list have neither.
        for (key, value) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
            body.entry(key).or_insert(Value::String(value));
        }
        Ok(Self {
            reference,
            uid: meta.uid.unwrap_or_default(),
            revision,
            is_deleted: meta.deletion_timestamp.is_some_and(|time| !time.is_null()),
            finalizers: meta.finalizers.unwrap_or_default(),
            body,
        })
    }

    /// The object without what is the server's.
    pub(super) fn declaration(&self) -> Document {
        let mut body = self.body.clone();
        strip(&mut body);
        Document::json(Value::Object(body).to_string())
    }

    /// The resource that it holds.
    pub(super) fn resource(&self, form: &dyn KubeForm) -> Option<Arc<Resource>> {
        let (reference, document) = form.read(&self.reference, self.declaration())?;
        Some(Arc::new(Resource::new(reference, document, Revision(self.revision))))
    }

    fn managers(&self) -> impl Iterator<Item = &Value> {
        let entries = self.body.get("metadata").and_then(|metadata| metadata.get("managedFields"));
        entries.and_then(Value::as_array).into_iter().flatten()
    }

    /// The server's note of the manager's applies: which fields they were, and when.
    pub(super) fn applied_by(&self, manager: &str) -> Option<&Value> {
        self.managers().find(|entry| {
            let is = |key, wanted: &str| entry.get(key).and_then(Value::as_str) == Some(wanted);
            is("manager", manager) && is("operation", "Apply")
        })
    }

    /// The author of the one write that made this of the object before it, by the server's notes. A note has the second of its manager's
    /// last write, so that two writes within one second may not differ in it.
    pub(super) fn author_since(&self, before: Option<&Self>, manager: &str) -> Author {
        let part = |note: &Value, key: &str| note.get(key).cloned();
        let is_of = |one: &Value, other: &Value| {
            ["manager", "operation", "apiVersion", "subresource"].iter().all(|key| part(one, key) == part(other, key))
        };
        let is_this = |note: &Value| {
            part(note, "manager") == Some(manager.into()) && part(note, "operation") == Some("Apply".into())
        };
        let mut author = Author::Unclear;
        for note in self.managers() {
            let earlier = before.and_then(|before| before.managers().find(|earlier| is_of(earlier, note)));
            // A write may take fields from the notes of others, and leaves their times.
            if earlier.is_none_or(|earlier| part(earlier, "time") != part(note, "time")) {
                if !is_this(note) {
                    return Author::Other;
                }
                author = Author::This;
            }
        }
        author
    }

    /// True if this is the other, but for the times of applies.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.revision == other.revision && self.uid == other.uid && untimed(&self.body) == untimed(&other.body)
    }

    /// True if every field of the declaration is in it with the same value.
    pub(super) fn has(&self, declared: &Map<String, Value>) -> bool {
        declared.iter().all(|(key, value)| match key.as_str() {
            // A version is a form, and not a part of the object.
            "apiVersion" | "kind" => true,
            _ => contains(self.body.get(key), value),
        })
    }
}

/// The author of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// The manager that was asked about.
    This,
    Other,
    Unclear,
}

/// The object without the times in `managedFields`.
fn untimed(body: &Map<String, Value>) -> Map<String, Value> {
    let mut body = body.clone();
    let metadata = body.get_mut("metadata").and_then(|metadata| metadata.get_mut("managedFields"));
    for entry in metadata.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(entry) = entry {
            entry.remove("time");
        }
    }
    body
}

fn contains(found: Option<&Value>, declared: &Value) -> bool {
    match (found, declared) {
        (Some(Value::Object(found)), Value::Object(declared)) => {
            declared.iter().all(|(key, value)| contains(found.get(key), value))
        }
        (Some(Value::Array(found)), Value::Array(declared)) => {
            // Lists that are merged may have others' items between ours.
            let mut rest = found.iter();
            declared.iter().all(|value| rest.any(|found| contains(Some(found), value)))
        }
        (Some(found), declared) => found == declared,
        // The server leaves out what is empty.
        (None, Value::Object(declared)) => declared.values().all(|value| contains(None, value)),
        (None, Value::Array(declared)) => declared.is_empty(),
        (None, declared) => declared.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::tests::kind;

    #[test]
    fn an_object_is_read_and_its_declaration_has_nothing_of_the_servers() {
        let bytes = br#"{"metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":"9","generation":3,
            "managedFields":[{"manager":"runtide","operation":"Apply"},{"manager":"x","operation":"Apply"}],"labels":{"a":"b"},
            "deletionTimestamp":"2026-12-01T00:00:00Z","finalizers":["f"]},"spec":{"n":1},"status":{"ready":true}}"#;
        let object = Object::of(&kind("apps", "Deployment"), bytes).unwrap();
        assert_eq!(
            (object.reference.as_str(), object.revision, object.is_deleted),
            ("apps/Deployment/shop/web", 9, true)
        );
        assert_eq!((object.uid.as_str(), &object.finalizers[..]), ("u", &["f".to_owned()][..]));
        assert!(object.applied_by("runtide").is_some() && object.applied_by("y").is_none());
        let declared: Value = serde_json::from_slice(&object.declaration().bytes).unwrap();
        let expected = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"n": 1},
            "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}, "finalizers": ["f"]}});
        assert_eq!(declared, expected);
    }

    #[test]
    fn what_is_no_object_says_why() {
        let kind = kind("apps", "Deployment");
        for (text, why) in [
            ("[]", "map"),
            ("{}", "no metadata"),
            (r#"{"metadata":{"name":"a"}}"#, "resourceVersion"),
            (r#"{"metadata":{"name":"a","resourceVersion":"x"}}"#, "no number"),
            (r#"{"metadata":{"name":"a b","resourceVersion":"1"}}"#, "not a name"),
            (r#"{"metadata":{"name":1,"resourceVersion":"1"}}"#, "string"),
        ] {
            let refused = Object::of(&kind, text.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_declaration_is_found_among_the_fields_of_others() {
        let bytes =
            br#"{"metadata":{"name":"a","resourceVersion":"1"},"spec":{"n":1,"m":2,"l":[{"k":1,"d":2},{"k":3}]}}"#;
        let object = Object::of(&kind("", "Thing"), bytes).unwrap();
        let has = |text: &str| object.has(&serde_json::from_str(text).unwrap());
        assert!(has(r#"{"apiVersion":"other","spec":{"n":1,"l":[{"k":3}]}}"#));
        assert!(has(r#"{"metadata":{"labels":{}},"spec":{"x":null,"y":[],"z":{"a":{}}}}"#));
        assert!(
            !has(r#"{"spec":{"n":2}}"#) && !has(r#"{"spec":{"x":0}}"#) && !has(r#"{"spec":{"l":[{"k":3},{"k":1}]}}"#)
        );
    }

    #[test]
    fn the_author_of_a_write_is_read_from_the_servers_notes() {
        let object = |notes: Value| {
            let object = serde_json::json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": notes}});
            Object::of(&kind("", "Thing"), object.to_string().as_bytes()).unwrap()
        };
        let note = |manager: &str, operation: &str, second: u32| serde_json::json!({"manager": manager, "operation": operation, "time": format!("2026-12-01T00:00:0{second}Z")});
        let before = object([note("runtide", "Apply", 1), note("kubectl", "Update", 1)].into());
        for (after, author) in [
            ([note("runtide", "Apply", 2), note("kubectl", "Update", 1)], Author::This),
            ([note("runtide", "Apply", 1), note("kubectl", "Update", 2)], Author::Other),
            ([note("runtide", "Apply", 1), note("kubectl", "Update", 1)], Author::Unclear),
            ([note("runtide", "Apply", 1), note("kubectl", "Apply", 1)], Author::Other),
            ([note("runtide", "Update", 1), note("kubectl", "Update", 1)], Author::Other),
        ] {
            assert_eq!(object(after.clone().into()).author_since(Some(&before), "runtide"), author, "{after:?}");
        }
        assert_eq!(object([note("runtide", "Apply", 1)].into()).author_since(None, "runtide"), Author::This);
        assert_eq!(object([note("kubectl", "Apply", 1)].into()).author_since(None, "runtide"), Author::Other);
    }
}
