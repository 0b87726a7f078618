//! The reference of a document: from its own metadata, or from its file's name if it is a unit of systemd.

use std::path::Path;

use runtide_core::store::{Document, ResourceFormat, ResourceRef};
use runtide_examples::Stop;
use runtide_systemd::{UnitFileName, UnitForm, Units};

/// The reference of a unit file: `web.service`, `web.service.d/10-limits.conf`, and `web.service.yaml` as well.
pub(crate) fn unit(file: &Path) -> Option<ResourceRef> {
    let name = file.file_name()?.to_str()?;
    let bare = match name.rsplit_once('.') {
        Some((bare, ending)) if ending.parse::<ResourceFormat>().is_ok() => bare,
        _ => name,
    };
    let folder = file.parent().and_then(Path::file_name).and_then(|folder| folder.to_str());
    let of_drop_in = folder.and_then(|folder| folder.strip_suffix(".d")).zip(bare.strip_suffix(".conf"));
    let file = match of_drop_in {
        Some((unit, name)) => UnitFileName::drop_in(unit, name),
        None => UnitFileName::unit(bare),
    };
    // The text has no name in it.
    Units.read(&file.ok()?, &Vec::new().into()).map(|(reference, _)| reference)
}

/// `true` if a unit file can have this reference.
pub(crate) fn is_unit(reference: &ResourceRef) -> bool {
    Units.file(reference).is_ok()
}

/// The given reference, the document's own, or that of its file's name. `number` counts the documents of the file.
pub(crate) fn of(
    document: &Document,
    number: usize,
    file: &Path,
    given: Option<&ResourceRef>,
) -> Result<ResourceRef, Stop> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let native = document.format == ResourceFormat::Native;
    if native || has_sections(document) {
        return unit(file).ok_or_else(|| {
            Stop::refused(format_args!(
                "{}: it has no reference; name the file as the unit, as web.service, or give one with --as",
                file.display()
            ))
        });
    }
    Ok(ResourceRef::from_document(document).map_err(|error| error.with_context("document", number))?)
}

/// A unit in JSON or YAML is a list of sections, which has no name.
fn has_sections(document: &Document) -> bool {
    let json = document.convert(ResourceFormat::Json).ok();
    let value = json.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json.bytes).ok());
    value.is_some_and(|value| value.get("sections").is_some() && value.get("apiVersion").is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_by_its_file() {
        for (file, reference) in [
            ("a/web.service", "/service//web"),
            ("web@1.service.yaml", "/service//web@1"),
            ("web.service.d/10-limits.conf", "/service.d/web/10-limits"),
        ] {
            assert_eq!(unit(Path::new(file)).unwrap().to_string(), reference);
        }
        for file in ["web.yaml", "-", "web.conf", "a/"] {
            assert!(unit(Path::new(file)).is_none(), "{file}");
        }
    }

    #[test]
    fn a_document_with_metadata_is_named_by_it() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: n}\n";
        let document = Document::new(ResourceFormat::Yaml, text);
        assert_eq!(of(&document, 1, Path::new("web.service.yaml"), None).unwrap().to_string(), "/Service//n");
    }
}
