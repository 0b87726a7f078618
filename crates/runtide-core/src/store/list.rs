//! Lists of resources: `kind: List`, and every other kind that ends in `List`.

use memchr::memmem;

use super::{
    Document, ResourceFormat,
    format::{self, Value},
};
use crate::error::{Error, ErrorKind, Result};

const OPERATION: &str = "document.resources";

/// Returns true if the value is a list of resources.
pub(super) fn is_list(value: &Value) -> bool {
    let text = |key| if let Some(Value::Text(text)) = value.get(key) { text.as_str() } else { "" };
    !text("apiVersion").is_empty()
        && text("kind").ends_with("List")
        && matches!(value.get("items"), Some(Value::List(_) | Value::Null))
}

/// Adds the document, or its items if it is a list.
pub(super) fn flatten(document: Document, found: &mut Vec<Document>) -> Result<()> {
    let has_shape = matches!(document.format, ResourceFormat::Yaml | ResourceFormat::Json | ResourceFormat::Cbor);
    if !has_shape || !may_be_list(&document) {
        found.push(document);
        return Ok(());
    }
    let wrap = |problem: format::Problem| problem.into_error(OPERATION, document.format);
    let value = format::read(&document).map_err(wrap)?;
    if !is_list(&value) {
        found.push(document);
        return Ok(());
    }
    items(value, &mut |item| {
        found.push(Document::new(document.format, format::write(item, document.format).map_err(wrap)?));
        Ok(())
    })
}

/// Hands out the items of a list, and in place of a list among them its items. The depth of a value is bounded, and so is this
/// recursion.
fn items(list: Value, put: &mut dyn FnMut(&Value) -> Result<()>) -> Result<()> {
    let Value::Map(mut entries) = list else { return Ok(()) };
    let mut take = |key: &str| {
        let at = entries.iter().position(|(known, _)| known == key)?;
        Some(entries.swap_remove(at).1)
    };
    let (Some(Value::List(items)), kind, version) = (take("items"), take("kind"), take("apiVersion")) else {
        return Ok(());
    };
    let kind = match kind {
        Some(Value::Text(kind)) => kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(str::to_owned),
        _ => None,
    };
    for (at, item) in items.into_iter().enumerate() {
        let Value::Map(mut entries) = item else {
            let message = format!("the item {at} of the list is {}, and not a map", item.sort());
            return Err(Error::new(ErrorKind::InvalidInput, OPERATION, message));
        };
        let is_named = entries.iter().any(|(key, _)| key == "kind" || key == "apiVersion");
        if let (false, Some(kind), Some(version)) = (is_named, &kind, &version) {
            let named = [("apiVersion".to_owned(), version.clone()), ("kind".to_owned(), Value::Text(kind.clone()))];
            entries.splice(..0, named);
        }
        let item = Value::Map(entries);
        if is_list(&item) { self::items(item, put)? } else { put(&item)? }
    }
    Ok(())
}

/// Returns false if no spelling of `items` is in the document.
fn may_be_list(document: &Document) -> bool {
    // An escape begins with a backslash, a tag may decode base64, and a text of CBOR in pieces begins with 0x7f.
    memmem::find(&document.bytes, b"items").is_some()
        || [b'\\', b'!', 0x7f].iter().any(|byte| memchr::memchr(*byte, &document.bytes).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ResourceRef;

    const LIST: &str = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}},
        {"apiVersion":"apps/v1","kind":"DeploymentList","items":[
            {"metadata":{"name":"web"}},
            {"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}]}]}"#;

    #[test]
    fn a_list_is_its_items_in_every_format() {
        let json = Document::json(LIST);
        for format in [ResourceFormat::Json, ResourceFormat::Yaml, ResourceFormat::Cbor] {
            let Ok(list) = json.convert(format) else { continue };
            assert!(ResourceRef::from_document(&list).unwrap_err().message().contains("Document::resources"));
            let items = list.resources().unwrap();
            let names: Vec<_> = items.iter().map(|item| ResourceRef::from_document(item).unwrap()).collect();
            let names: Vec<_> = names.iter().map(ResourceRef::as_str).collect();
            assert_eq!(names, ["/Node//n1", "apps/Deployment//web", "/Pod//p"], "{format}");
            assert!(items.iter().all(|item| item.format == format));
        }
    }

    #[test]
    fn what_is_no_list_is_the_same_to_the_byte() {
        for text in [
            "{ broken items",
            r#"{"kind":"List","items":[]}"#,
            r#"{"apiVersion":"v1","kind":"Menu","items":[1]}"#,
            r#"{"apiVersion":"v1","kind":"List","items":{}}"#,
            "[]",
        ] {
            let document = Document::json(text);
            let found = document.resources();
            // Only a body that may be a list is parsed.
            assert!(
                found.as_ref().map_or_else(|_| text.contains("broken"), |found| *found == [document.clone()]),
                "{found:?}"
            );
        }
        assert!(Document::json(r#"{"apiVersion":"v1","kind":"List","items":null}"#).resources().unwrap().is_empty());
        let bad = Document::json(r#"{"apiVersion":"v1","kind":"List","items":[1]}"#).resources().unwrap_err();
        assert!(bad.kind() == ErrorKind::InvalidInput && bad.message().contains("item 0"), "{bad}");
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn a_stream_is_split_first_and_a_list_in_it_too() {
        let stream = Document::yaml(
            "a: 1\n---\napiVersion: v1\nkind: List\nitems:\n- kind: A\n  on: yes\n- kind: B\n---\n# end\n",
        );
        let found = stream.resources().unwrap();
        assert_eq!(
            found,
            [Document::yaml("a: 1\n"), Document::yaml("kind: A\n\"true\": true\n"), Document::yaml("kind: B\n")]
        );
    }
}
