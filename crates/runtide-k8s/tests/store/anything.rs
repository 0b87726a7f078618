//! Any resource as an object of a kind of the laws' own: the body is a text in its `spec`. The laws write bodies that are no objects, and
//! every kind in every namespace; so they test all of a store except its usual form.

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Digest, Document, ResourceFormat, ResourceRef, Selector},
};
use runtide_k8s::KubeForm;
use serde_json::{Map, Value, json};

pub(crate) const GROUP: &str = "laws.runtide.test";
pub(crate) const KIND: &str = "Anything";
pub(crate) const PLURAL: &str = "anythings";
/// Bytes of the largest body: in hexadecimal it is less than etcd takes.
pub(crate) const LARGEST: usize = 512 << 10;

/// Resources in this namespace.
#[derive(Debug)]
pub(crate) struct Anything(pub(crate) String);

/// The declaration of the kind.
pub(crate) fn definition() -> Value {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
        "reference": { "type": "string" }, "format": { "type": "string" }, "body": { "type": "string" } } } } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{PLURAL}.{GROUP}") },
        "spec": { "group": GROUP, "scope": "Namespaced",
            "names": { "plural": PLURAL, "singular": "anything", "kind": KIND, "listKind": "AnythingList" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }] }
    })
}

impl KubeForm for Anything {
    fn object(&self, resource: &ResourceRef) -> Result<ResourceRef> {
        let digest = Digest::of(resource.as_str().as_bytes()).to_string();
        ResourceRef::new(GROUP, KIND, self.0.as_str(), &digest[..40])
    }

    fn write(&self, resource: &ResourceRef, document: &Document) -> Result<Document> {
        if document.bytes.len() > LARGEST {
            let message = format!("the document has {} bytes, and {LARGEST} is the most", document.bytes.len());
            return Err(Error::new(ErrorKind::InvalidInput, "anything.write", message));
        }
        let labels = document.labels().unwrap_or_default();
        let labels: Map<String, Value> = labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        // Servers take an empty text for none.
        let object = json!({ "metadata": { "labels": labels },
            "spec": { "reference": resource.as_str(), "format": document.format, "body": format!("x{}", hex(&document.bytes)) } });
        Ok(Document::json(object.to_string()))
    }

    fn read(&self, _: &ResourceRef, body: Document) -> Option<(ResourceRef, Document)> {
        let object: Value = serde_json::from_slice(&body.bytes).ok()?;
        let text = |key: &str| object["spec"][key].as_str();
        let format = text("format")?.parse::<ResourceFormat>().ok()?;
        Some((text("reference")?.parse().ok()?, Document::new(format, bytes(text("body")?.strip_prefix('x')?)?)))
    }

    fn narrow(&self, selector: &Selector) -> Selector {
        let mut narrowed = Selector::default().with_group(GROUP).with_kind(KIND).with_namespace(self.0.as_str());
        narrowed.labels.clone_from(&selector.labels);
        narrowed
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}
